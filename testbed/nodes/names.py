"""What the members of a lab are called by each other: one hosts file for all, replaced when a pod comes or goes.

The file lies in a directory of the lab's tmpfs that every emulated host sees at /run/names, read-only; its /etc/hosts
leads there (`testbed.nodes.nodespace`), and a pod has the files of its node. So a change is one file, however many
members there are. Containers of a real runtime get a file bound to /etc/hosts, and a bound file cannot be replaced:
for them there is a second one, which is written over in place.

`add` and `remove` are called by whoever makes a pod (`testbed.kubelet`): nobody else has to think of it. This file
decides what is looked up and where; it knows no pod and asks no agent.
"""

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from testbed.lab.paths import LabPaths
from testbed.nodes.mounts import alone
from testbed.topology.underlay import UnderlayPlan

SEEN_AT: Final = Path("/run/names")
"""Where an emulated host sees the directory."""

FILE: Final = "hosts"
"""The list; replaced as a whole, so that a reader sees the old one or the new one."""

BOUND_FILE: Final = "hosts-of-containers"
"""The same list for containers, written in place: a look-up that meets the very change may miss a name once."""

_BEGINNING: Final = f"""\
# The members of the lab. weavelab keeps this list true; it is the same for all and cannot be written to.
# For a list of this host's own: cp --remove-destination {SEEN_AT / FILE} /etc/hosts
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
"""

RESOLV_CONF: Final = """\
# No name server: a member of a lab has no way to the machine's. Names of the lab are in /etc/hosts.
options timeout:1 attempts:1
"""

_LINE: Final = re.compile(r"^([0-9.]+)\t([a-z][a-z0-9-]*)$", re.MULTILINE)
_HOSTS_LINE: Final = re.compile(r"^[ \t]*hosts[ \t]*:.*$", re.MULTILINE)


def nsswitch(text: str) -> str:
    """A name service configuration in which hosts are looked up in /etc/hosts and nowhere else (nsswitch.conf(5)).

    Args:
        text: The machine's; whatever it says of users, groups and services stays.
    """
    wanted = "hosts:          files"
    replaced, count = _HOSTS_LINE.subn(wanted, text)
    if count:
        return replaced
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{wanted}\n"


def addresses(plan: UnderlayPlan) -> dict[str, str]:
    """What members have an address before there is any pod: nodes, routers (their first one), `outside`."""
    return {host.name: str((host.loopback[0] if host.loopback else host.uplink.address).ip) for host in plan.hosts}


def render(names: Mapping[str, str]) -> str:
    """The text of the file: name -> address."""
    return _BEGINNING + "".join(f"{address}\t{name}\n" for name, address in names.items())


def parse(text: str) -> dict[str, str]:
    """The members in a text that `render` made; what somebody else wrote into it is left out."""
    return {name: address for address, name in _LINE.findall(text.removeprefix(_BEGINNING))}


def begin(paths: LabPaths, plan: UnderlayPlan) -> None:
    """Make the directory and the first list, before the first member is made.

    Raises:
        OSError: The kernel refused.
    """
    paths.names.mkdir()
    _write(paths, render(addresses(plan)))


def add(paths: LabPaths, name: str, address: str) -> None:
    """A member has this address from now on.

    Raises:
        OSError: The lab is going.
    """
    _change(paths, lambda names: {**names, name: address})


def remove(paths: LabPaths, name: str) -> None:
    """A member is gone. Safe to repeat; a lab that is gone has no names either."""
    with contextlib.suppress(FileNotFoundError):
        _change(paths, lambda names: {one: address for one, address in names.items() if one != name})


def known(paths: LabPaths) -> dict[str, str]:
    """Who has which name now.

    Raises:
        OSError: The lab is gone.
    """
    return parse((paths.names / FILE).read_text(encoding="ascii"))


def _change(paths: LabPaths, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    with alone(paths.names):  # pods of several nodes come and go at once, in several threads and commands
        before = known(paths)
        after = change(before)
        if after != before:
            _write(paths, render(after))


def _write(paths: LabPaths, text: str) -> None:
    fresh = paths.names / f"{FILE}.new"
    fresh.write_text(text, encoding="ascii")
    fresh.replace(paths.names / FILE)
    # Not truncated first: then a reader would find nobody for a moment.
    fd = os.open(paths.names / BOUND_FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.pwrite(fd, text.encode("ascii"), 0)
        os.ftruncate(fd, len(text))
    finally:
        os.close(fd)
