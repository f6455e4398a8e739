"""What the agent must remember across a crash: which attachment holds which address. A journal of JSON lines.

Every change is an appended line, flushed to the disk before anybody is told. A line that was cut off by a crash can
only be the last one, and its change was never confirmed to anybody, so it is dropped. Damage anywhere else is never
passed over in silence: the file is set aside under another name and what could be read is used (`Loaded.damage`).
"""

import contextlib
import errno
import fcntl
import os
import secrets
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final, Literal

import msgspec

from plugin.core.cni.bandwidth import Bandwidth
from plugin.core.cni.hostports import PortMapping
from plugin.core.errors import InputError, MissingError
from plugin.core.ipam.allocator import EXPOSE, Attachment

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
    known (plugin/link/nsid.py).
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
    """The journal at `directory`/attachments.journal.

    Raises:
        MissingError: The directory cannot be made or written.
        InputError: Another agent uses it.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "attachments.journal"
        self._records: dict[Attachment, Record] = {}
        self._lines = 0
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(directory)
            try:
                self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError:
                os.close(self._lock)
                raise
        except OSError as error:
            raise _unwritable(self._path, error) from error

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
                raise _unwritable(aside, error) from error
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
            MissingError: The disk is full or read-only; nothing has changed.
        """
        self._append(_Line(put=record), durably=record.state == "added")
        self._records[record.attachment] = record
        self._maybe_compact()

    def drop(self, *attachments: Attachment) -> None:
        """Forget attachments, durably, all or none; unknown ones are ignored.

        Raises:
            MissingError: The disk is full or read-only; nothing has changed.
        """
        known = [attachment for attachment in attachments if attachment in self._records]
        if known:
            self._append(*(_Line(drop=attachment) for attachment in known))
            for attachment in known:
                del self._records[attachment]
            self._maybe_compact()

    def next_life(self, now_ns: int) -> int:
        """A number larger than in every earlier life of this agent, even when the clock was set back in between.

        Raises:
            MissingError: It cannot be written.
        """
        path = self._path.with_name("incarnation")
        try:
            last = int(path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            last = 0  # the first life, or a damaged file: then the clock has to do
        life = max(now_ns, last + 1)
        self._replace(path, f"{life}\n".encode())
        return life

    def identity(self, name: str, pod_range: str) -> str:
        """Who this agent is: 16 hex digits that came with this disk, new for another name or another range.

        Raises:
            InputError: The range was changed under pods that hold addresses.
            MissingError: It cannot be written.
        """
        path, known = self._identity_path, self._read_identity()
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
        self._set_aside(self._ring_path)
        made = _Identity(uid=secrets.token_hex(8), name=name, range=pod_range)
        self._replace(path, msgspec.json.encode(made) + b"\n")
        return made.uid

    def written_range(self) -> IPv4Network | None:
        """The pod range for which the state was written; None at a first start, or when nothing can be read of it."""
        known = self._read_identity()
        try:
            return None if known is None else IPv4Network(known.range)
        except ValueError:
            return None

    @property
    def _identity_path(self) -> Path:
        return self._path.with_name("identity.json")

    def _read_identity(self) -> _Identity | None:
        try:
            return msgspec.json.decode(self._identity_path.read_bytes(), type=_Identity)
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            return None  # the first start, or a damaged file: then it is another agent

    def read_ring(self) -> bytes | None:
        """What `write_ring` wrote last, or None."""
        try:
            return self._ring_path.read_bytes()
        except FileNotFoundError:
            return None

    def write_ring(self, data: bytes) -> None:
        """Remember what is agreed about addresses, durably.

        Raises:
            MissingError: The disk is full or read-only; the old text stands.
        """
        self._replace(self._ring_path, data)

    def ring_damaged(self) -> Path:
        """The ring on the disk makes no sense: set it aside and be a new agent with the next `identity`."""
        self._identity_path.unlink(missing_ok=True)
        return self._set_aside(self._ring_path)

    def read_targets(self) -> bytes | None:
        """What `write_targets` wrote last, or None."""
        try:
            return self._path.with_name("targets.json").read_bytes()
        except FileNotFoundError:
            return None

    def write_targets(self, data: bytes) -> None:
        """Remember at which addresses other agents are looked for, when somebody changed them.

        Raises:
            MissingError: It cannot be written.
        """
        self._replace(self._path.with_name("targets.json"), data)

    def wipe(self) -> None:
        """Forget everything: this agent leaves for good."""
        for name in ("identity.json", "targets.json", self._ring_path.name, "incarnation"):
            self._path.with_name(name).unlink(missing_ok=True)
        self.drop(*self.records)

    @property
    def _ring_path(self) -> Path:
        return self._path.with_name("ring.json")

    def _set_aside(self, path: Path) -> Path:
        aside = path.with_suffix(".old")
        with contextlib.suppress(FileNotFoundError):
            path.replace(aside)
        return aside

    def _replace(self, path: Path, data: bytes) -> None:
        """A file as a whole, old or new, also after a power cut."""
        temporary = path.with_suffix(".new")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                _write_all(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise _unwritable(path, error) from error
        self._sync_directory()

    def close(self) -> None:
        """Release the file and the directory."""
        os.close(self._file)
        os.close(self._lock)

    def _replay(self, line: _Line) -> None:
        if line.put is not None:
            self._records[line.put.attachment] = line.put
        if line.drop is not None:
            self._records.pop(line.drop, None)

    def _append(self, *lines: _Line, durably: bool = True) -> None:
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        size = os.fstat(self._file).st_size
        try:
            _write_all(self._file, data)
            if durably:
                os.fdatasync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):  # a file system that became read-only has taken no half line
                os.ftruncate(self._file, size)  # half a line must not swallow the next one
            raise _unwritable(self._path, error) from error
        self._lines += len(lines)

    def _maybe_compact(self) -> None:
        if self._lines > max(_COMPACT_MIN, _COMPACT_FACTOR * len(self._records)):
            # The change itself is on the disk: when there is no room for the short form, the long one serves on.
            with contextlib.suppress(MissingError):
                self._compact()

    def _compact(self) -> None:
        """Write what is remembered to a new file and put it in the old one's place."""
        temporary = self._path.with_suffix(".new")
        lines = [msgspec.json.encode(_Line(put=record)) + b"\n" for record in self._records.values()]
        try:
            fd = os.open(temporary, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unwritable(temporary, error) from error
        try:
            _write_all(fd, b"".join(lines))
            os.fsync(fd)
            temporary.replace(self._path)
        except OSError as error:
            os.close(fd)
            temporary.unlink(missing_ok=True)
            raise _unwritable(temporary, error) from error
        os.close(self._file)
        self._file, self._lines = fd, len(lines)
        # Without this a power cut can bring the old file back, without what is appended from now on.
        self._sync_directory()

    def _sync_directory(self) -> None:
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        except OSError as error:
            raise _unwritable(self._path.parent, error) from error
        finally:
            os.close(directory)


def _locked(directory: Path) -> int:
    """A descriptor that keeps other agents out of the directory for as long as it is open, also after a crash."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise InputError(
            f"another agent uses the state directory {directory}", hint="one node has one agent; stop the other first"
        ) from None
    return fd


def _write_all(fd: int, data: bytes) -> None:
    """Write everything; a disk that takes only a part of it is full."""
    if os.write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _unwritable(path: Path, error: OSError) -> MissingError:
    return MissingError(
        f"the agent's state {path} cannot be written: {error.strerror}",
        hint="free disk space or make the file system writable; no address is given out that cannot be remembered",
    )
