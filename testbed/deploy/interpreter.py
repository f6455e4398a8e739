"""Which Python executes the CNI plugin on a node, and on a real node the agent and the command `weave`, too.

The runtime starts the plugin with an environment of its own and in the node's file system, for every pod: the first
line must name a real program by its absolute path. A version manager's shim is a shell script that costs more than the
whole plugin and needs variables that are not there; a virtual environment costs 5 ms for a `site` that is never used,
and goes away with the checkout.
"""

import json
import os
import re
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from plugin.core.errors import InputError, MissingError, WeaveError
from testbed.deploy.machine import Kind, Machine

_OLDEST: Final = (3, 11)
_NEWEST: Final = (3, 13)
_SYSTEM: Final = Path("/usr/bin/python3")
_VERSION: Final = re.compile(r"python3\.(\d+)$")
_ELF: Final = b"\x7fELF"
_ELF_MACHINE_AT: Final = 18
"""Where an ELF file says for which processor it is (elf(5), e_machine)."""
_HEAD_BYTES: Final = 64

_ANYWHERE: Final = "192.0.2.1"
"""Stands for the rest of the world (RFC 5737): the way there is the default route's."""

_PROBE_S: Final = 30.0
_PROBE: Final = """
import json, platform, socket, sys
facts = {"version": list(sys.version_info[:2]), "implementation": sys.implementation.name,
         "processor": platform.machine(), "system": sys.platform, "name": platform.node(), "address": "", "root": False}
try:
    import os
    facts["root"] = os.geteuid() == 0
    uplink, towards = sys.argv[1:]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        if uplink:
            import fcntl, struct
            answer = fcntl.ioctl(probe, 0x8915, struct.pack("256s", uplink.encode()[:15]))  # SIOCGIFADDR
            facts["address"] = socket.inet_ntoa(answer[20:24])
        else:
            probe.connect((towards, 9))  # sends nothing: the kernel only chooses the way
            facts["address"] = probe.getsockname()[0]
except OSError as error:
    facts["problem"] = error.strerror
print(json.dumps(facts))
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a Python on a machine says about itself and the machine.

    Attributes:
        interpreter: The Python.
        checked: Whether it could be asked, or at least looked at: not in a folder where it is to come.
        name: The machine's host name; empty when it was not asked.
        address: By which other nodes reach it, as its routes have it; empty when that is not known.
        root: Whether we are root there.
        problem: Why the address is not known.
    """

    interpreter: Path
    checked: bool
    name: str = ""
    address: str = ""
    root: bool = False
    problem: str = ""


def plugin_interpreter(system: Path = _SYSTEM) -> Path:
    """For the nodes of a lab: the distribution's Python where it is new enough, else the program behind our own.

    Args:
        system: The distribution's Python.
    """
    if _version(os.path.realpath(system)) >= _OLDEST and _is_program(_head(system)):
        return system
    return Path(os.path.realpath(sys.executable))


def choose_interpreter(
    machine: Machine,
    given: Path | None,
    *,
    same_as_ours: bool,
    before: str = "",
    uplink: str = "",
    towards: str = "",
) -> Facts:
    """The Python for an installation, and what it tells about the machine.

    Args:
        machine: Where.
        given: What the person names; None: the distribution's, else the program behind our own if that is there.
        before: The one that an earlier installation has chosen.
        same_as_ours: Whether it has to be of our version, for which msgspec was compiled: the agent is installed.
        uplink: An interface whose address is wanted.
        towards: Whatever the node has to reach from the address that is wanted, otherwise.

    Raises:
        InputError: The one that was named will not do.
        MissingError: None will.
    """
    ours = f"{sys.version_info[0]}.{sys.version_info[1]}"
    candidates = [Path(before)] if before else []
    if given is not None:
        candidates = [given]
    else:
        names = ["python3", f"python{ours}"] if same_as_ours else ["python3", "python3.13", "python3.12", "python3.11"]
        candidates += [Path("/usr/bin", name) for name in names]
        candidates += [Path("/usr/local/bin", name) for name in names]
        if machine.live:
            candidates.append(Path(os.path.realpath(sys.executable)))
    towards = towards or _ANYWHERE
    wanted = f"Python {ours}, for which msgspec was installed here," if same_as_ours else "Python 3.11 to 3.13"
    problems = []
    for candidate in dict.fromkeys(candidates):
        try:
            return _examine(machine, candidate, same_as_ours=same_as_ours, uplink=uplink, towards=towards)
        except _UnfitError as unfit:
            problems.append(f"{candidate} {unfit.message}")
    named = given or (Path(before) if before else None)
    if named is not None and not machine.live and machine.observe(str(named.parent)).kind is Kind.ABSENT:
        return Facts(named, checked=False)  # files are gathered in a folder that has no programs yet
    if given is not None:
        raise InputError(f"--interpreter: wanted {wanted} on {machine.name}, found that {problems[-1]}")
    raise MissingError(
        f"wanted {wanted} on {machine.name}, found: {'; '.join(problems)}",
        hint="install it (apt-get install python3), or name one with --interpreter"
        + (" or run weavelab with the Python that is there" if same_as_ours else ""),
    )


class _UnfitError(WeaveError):
    """A Python will not do."""


def _examine(machine: Machine, path: Path, *, same_as_ours: bool, uplink: str, towards: str) -> Facts:
    if not path.is_absolute() or re.search(r"\s", str(path)):
        raise _UnfitError("is no absolute path without blanks")
    head = machine.read(str(path), bytes_max=_HEAD_BYTES)
    if head is None:
        raise _UnfitError("does not exist")
    if not _is_program(head):
        raise _UnfitError("is a script, which needs variables that a runtime does not set")
    if not machine.live:
        target = machine.target(str(path))
        if same_as_ours and _elf_machine(head) != _elf_machine(_head(Path(sys.executable))):
            raise _UnfitError("is for another processor than this machine's, for which msgspec was compiled")
        _check_version(_version(target), same_as_ours=same_as_ours)
        return Facts(path, checked=True)
    said = machine.run([str(path), "-ISE", "-c", _PROBE, uplink, towards], timeout_s=_PROBE_S)
    try:
        facts = json.loads(said.text.splitlines()[-1])
        version = tuple(facts["version"])
    except (ValueError, KeyError, IndexError, TypeError):
        raise _UnfitError(f"ended with exit code {said.code} and said {said.text[-200:]!r}") from None
    if facts["implementation"] != "cpython":
        raise _UnfitError(f"is {facts['implementation']}")
    if same_as_ours and facts["processor"] != os.uname().machine:
        raise _UnfitError(f"is for {facts['processor']}, and msgspec was compiled for {os.uname().machine} here")
    _check_version(version, same_as_ours=same_as_ours)
    return Facts(
        path, checked=True, name=facts["name"], address=facts["address"], root=facts["root"],
        problem=facts.get("problem", ""),
    )  # fmt: skip


def _check_version(version: tuple[int, ...], *, same_as_ours: bool) -> None:
    shown = ".".join(map(str, version)) if any(version) else "of unknown version"
    if not _OLDEST <= version <= _NEWEST or (same_as_ours and version != sys.version_info[:2]):
        raise _UnfitError(f"is {shown}")


def _version(resolved: str) -> tuple[int, int]:
    """By the name it resolves to (`python3.11`), which distributions keep to; (0, 0) when it does not tell."""
    found = _VERSION.search(resolved)
    return (3, int(found[1])) if found else (0, 0)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""


def _is_program(head: bytes) -> bool:
    return head.startswith(_ELF)


def _elf_machine(head: bytes) -> int:
    order = "<" if head[5:6] == b"\x01" else ">"
    return int(struct.unpack_from(f"{order}H", head.ljust(_HEAD_BYTES, b"\0"), _ELF_MACHINE_AT)[0])
