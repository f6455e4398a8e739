"""What the agent must remember across a crash: which attachment holds which address. A journal of JSON lines.

Every change is an appended line, flushed to the disk before anybody is told. A line that was cut off by a crash can
only be the last one, and its change was never confirmed to anybody, so it is dropped. Damage anywhere else is never
passed over in silence: the file is set aside under another name and what could be read is used (`Loaded.damage`).

What others do to the files while the agent runs is folder.py's; a change that cannot be made to outlive the agent is
refused, also when the whole folder is gone.
"""

import contextlib
import os
import secrets
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final, Literal

import msgspec

from plugin.agent.folder import Folder, unwritable
from plugin.core.cni.bandwidth import Bandwidth
from plugin.core.cni.exemption import Exemption
from plugin.core.cni.hostports import PortMapping
from plugin.core.errors import InputError, MissingError
from plugin.core.ipam.allocator import EXPOSE, Attachment

_JOURNAL: Final = "attachments.journal"
_COMPACT_FACTOR: Final = 4
_COMPACT_MIN: Final = 256


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attachment. `state` is `adding` until the pod's interface is complete.

    What was added to it later has a default: a journal of an older agent is read, and an older agent reads ours.

    `address` is empty as long as another IPAM plugin has not given one; `more` are further addresses; `prefixes` belong
    to all of them and are empty where each is that of the pod range. `ipam` is the `ipam` object, as JSON, by which
    another plugin gave the addresses: they go back the same way. `masquerade` False: the pod leaves the range as who it
    is. `mtu` is the MTU that its configuration asks for, 0 for all that the network carries; `hairpin` whether it may
    reach itself through the switch. `stamp` is the age of its claim to address and MAC; by `nsid` its namespace is
    known (plugin/link/nsid.py). `guard`: what it may send as beside its own MAC and
    addresses.
    """

    network: str
    container_id: str
    ifname: str
    address: str
    mac: str
    host_ifname: str
    netns: str = ""
    label: str = ""
    state: Literal["adding", "added"] = "adding"
    ports: tuple[PortMapping, ...] = ()
    bandwidth: Bandwidth | None = None
    more: tuple[str, ...] = ()
    prefixes: tuple[int, ...] = ()
    ipam: str = ""
    masquerade: bool = True
    mtu: int = 0
    hairpin: bool = False
    stamp: int = 0
    nsid: int = 0
    guard: Exemption | None = None

    @property
    def locked(self) -> bool:
        """Whether all that the pod may send has its own MAC, so that its port takes no other."""
        return bool(self.mac) and (self.guard is None or self.guard.one_mac)

    @property
    def addresses(self) -> tuple[IPv4Address, ...]:
        """All its addresses, the first one first."""
        return tuple(IPv4Address(text) for text in (self.address, *self.more) if text)

    def shown(self, prefix: int) -> list[str]:
        """Its addresses as `weave ps` prints them; `prefix` is that of the pod range."""
        prefixes = self.prefixes or (prefix,) * (1 + len(self.more))
        return [f"{address}/{length}" for address, length in zip(self.addresses, prefixes, strict=False)]

    @property
    def attachment(self) -> Attachment:
        """Its key."""
        return self.network, self.container_id, self.ifname


class _Line(msgspec.Struct, omit_defaults=True):
    put: Record | None = None
    drop: Attachment | None = None


class _Identity(msgspec.Struct, frozen=True, kw_only=True):
    uid: str
    name: str
    range: str


class Loaded(msgspec.Struct):
    """What was found on the disk; `damage` is a sentence when something could not be read."""

    records: dict[Attachment, Record]
    damage: str = ""


class Store:
    """The journal at `directory`/attachments.journal, and the files beside it.

    Args:
        directory: The state folder.

    Attributes:
        may_renew: Whether the folder may be written anew when somebody has damaged it.
        renewed: Told why it was.

    Raises:
        MissingError: The directory cannot be made or written.
        InputError: Another agent uses it.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / _JOURNAL
        self._records: dict[Attachment, Record] = {}
        self._lines = 0
        self._folder = Folder(directory, _JOURNAL, self._journal)
        self.may_renew: Callable[[], bool] = lambda: True
        self.renewed: Callable[[str], None] = lambda _cause: None

    def load(self) -> Loaded:
        """Read the journal once, at the start.

        Raises:
            MissingError: A damaged file cannot be set aside.
        """
        data = self._path.read_bytes()
        complete, _, torn = data.rpartition(b"\n")
        damage = ""
        for number, text in enumerate(complete.split(b"\n") if complete else (), start=1):
            try:
                self._replay(msgspec.json.decode(text, type=_Line))
            except (msgspec.ValidationError, msgspec.DecodeError) as error:
                damage = damage or f"line {number} of {self._path} cannot be read ({error})"
        self._lines = complete.count(b"\n")
        if damage:
            aside = self._path.with_suffix(".damaged")
            damage += f"; the file was set aside as {aside}"
            try:
                os.link(self._path, aside)
            except FileExistsError:
                pass  # the first damaged file is the one worth keeping
            except OSError as error:
                raise unwritable(aside, error) from error
        if damage or torn or self._lines:
            self._compact()
        return Loaded(dict(self._records), damage)

    @property
    def records(self) -> dict[Attachment, Record]:
        """What is remembered now."""
        return dict(self._records)

    @property
    def pods(self) -> dict[Attachment, Record]:
        """The attachments of pods: all but the switch's own address."""
        return {attachment: record for attachment, record in self._records.items() if attachment != EXPOSE}

    def get(self, attachment: Attachment) -> Record | None:
        """What is remembered of one attachment."""
        return self._records.get(attachment)

    def put(self, record: Record) -> None:
        """Remember `record`: durably once it is `added`, which is when somebody is told.

        Until then it is there for the next agent if this one dies. A power cut it need not outlive: no pod does.

        Raises:
            MissingError: The disk is full or read-only, or the folder is damaged and stays so; nothing has changed.
        """
        known = self._records.get(record.attachment)
        self._records[record.attachment] = record
        try:
            self._write([_Line(put=record)], durably=record.state == "added")
        except MissingError:
            if known is None:
                del self._records[record.attachment]
            else:
                self._records[record.attachment] = known
            raise

    def drop(self, *attachments: Attachment) -> None:
        """Forget attachments, durably, all or none; unknown ones are ignored.

        Raises:
            MissingError: As `put`.
        """
        known = {one: self._records.pop(one) for one in attachments if one in self._records}
        if known:
            try:
                self._write([_Line(drop=attachment) for attachment in known])
            except MissingError:
                self._records |= known
                raise

    def next_life(self, now_ns: int) -> int:
        """A number larger than in every earlier life of this agent, even when the clock was set back in between.

        Raises:
            MissingError: It cannot be written.
        """
        try:
            last = int(self._folder.read("incarnation") or b"0")
        except (OSError, ValueError):
            last = 0  # a damaged file: then the clock has to do
        life = max(now_ns, last + 1)
        self._folder.replace("incarnation", f"{life}\n".encode())
        return life

    def identity(self, name: str, pod_range: str) -> str:
        """Who this agent is: 16 hex digits that came with this disk, new for another name or another range.

        Raises:
            InputError: The range was changed under pods that hold addresses.
            MissingError: It cannot be written.
        """
        known = self._read_identity()
        if known is not None and (known.name, known.range) == (name, pod_range):
            return known.uid
        pods = [record for attachment, record in self._records.items() if attachment != EXPOSE]
        if known is not None and known.range != pod_range:
            if pods:
                raise InputError(
                    f"the pod range was changed from {known.range} to {pod_range}, and {len(pods)} pods of this node "
                    f"hold addresses of the old one, the first is {pods[0].label} with {pods[0].address}",
                    hint="restore the old range in the configuration, delete the pods of this node, then change it",
                )
            for attachment in self.records:
                self.drop(attachment)
        self._folder.set_aside("ring.json")
        made = _Identity(uid=secrets.token_hex(8), name=name, range=pod_range)
        self._folder.replace("identity.json", msgspec.json.encode(made) + b"\n")
        return made.uid

    def written_range(self) -> IPv4Network | None:
        """The pod range for which the state was written; None at a first start, or when nothing can be read of it."""
        known = self._read_identity()
        try:
            return None if known is None else IPv4Network(known.range)
        except ValueError:
            return None

    def _read_identity(self) -> _Identity | None:
        try:
            return msgspec.json.decode(self._folder.read("identity.json") or b"", type=_Identity)
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            return None  # the first start, or a damaged file: then it is another agent

    def read_ring(self) -> bytes | None:
        """What `write_ring` wrote last, or None."""
        return self._folder.read("ring.json")

    def write_ring(self, data: bytes) -> None:
        """Remember what is agreed about addresses, durably.

        Raises:
            MissingError: The disk is full or read-only; the old text stands.
        """
        self._folder.replace("ring.json", data)

    def ring_damaged(self) -> Path:
        """The ring on the disk makes no sense: set it aside and be a new agent with the next `identity`."""
        self._folder.forget("identity.json")
        return self._folder.set_aside("ring.json")

    def read_targets(self) -> bytes | None:
        """What `write_targets` wrote last, or None."""
        return self._folder.read("targets.json")

    def write_targets(self, data: bytes) -> None:
        """Remember at which addresses other agents are looked for, when somebody changed them.

        Raises:
            MissingError: It cannot be written.
        """
        self._folder.replace("targets.json", data)

    def wipe(self) -> None:
        """Forget everything: this agent leaves for good."""
        for name in ("identity.json", "targets.json", "ring.json", "incarnation"):
            self._folder.forget(name)
        self.drop(*self.records)

    def close(self) -> None:
        """Release the files and the directory."""
        self._folder.close()

    # --- what others do to the folder -------------------------------------------------------------------------------
    def look(self) -> str:
        """What `renew` would mend, in a sentence; empty when all is well. Costs a dozen calls of stat."""
        return self._folder.look()

    def room(self) -> str:
        """Why the file system takes no more, as far as it says; empty when it does."""
        return self._folder.room()

    def renew(self) -> None:
        """Write everything anew, durably.

        Raises:
            MissingError: It cannot be written.
        """
        self._folder.renew()
        self._lines = len(self._records)

    def _write(self, lines: list[_Line], *, durably: bool = True) -> None:
        """The records have changed by these lines: have that written where the next agent will find it."""
        if not self._folder.append(b"".join(msgspec.json.encode(line) + b"\n" for line in lines), durably=durably):
            self._mend()
        self._lines += len(lines)
        self._maybe_compact()

    def _mend(self) -> None:
        """What was just written is where nobody will find it: have it where it has to be, before anybody is told.

        Raises:
            MissingError: That cannot be done.
        """
        cause = self.look() or f"{self._path} is not where it was"
        if not self.may_renew():
            raise MissingError(
                cause,
                hint="it is held broken, and nothing is given out meanwhile that would be forgotten: weave release",
            )
        self.renew()
        self.renewed(cause)

    def _replay(self, line: _Line) -> None:
        if line.put is not None:
            self._records[line.put.attachment] = line.put
        if line.drop is not None:
            self._records.pop(line.drop, None)

    def _journal(self) -> bytes:
        return b"".join(msgspec.json.encode(_Line(put=record)) + b"\n" for record in self._records.values())

    def _maybe_compact(self) -> None:
        if self._lines > max(_COMPACT_MIN, _COMPACT_FACTOR * len(self._records)):
            # The change itself is on the disk: when there is no room for the short form, the long one serves on.
            with contextlib.suppress(MissingError):
                self._compact()

    def _compact(self) -> None:
        """Only what is remembered now, instead of how it came about."""
        self._folder.rewrite_log()
        self._lines = len(self._records)
