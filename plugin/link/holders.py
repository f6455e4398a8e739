"""Who has a port of the node: for the sentence that says why ours cannot be opened."""

from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")


def holder_of(protocol: str, port: int) -> str:
    """The process that has this port in the calling thread's namespace: `dnsmasq (pid 812)`; empty when none is found.

    A socket of the kernel's own (another VXLAN device) belongs to no process.

    Args:
        protocol: `tcp` or `udp`.
        port: The port.
    """
    sockets = {f"socket:[{inode}]" for inode in _inodes(protocol, port)}
    if not sockets:
        return ""
    for process in _PROC.iterdir():
        if not process.name.isdigit():
            continue
        try:
            for descriptor in (process / "fd").iterdir():
                if str(descriptor.readlink()) in sockets:
                    name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                    return f"{name} (pid {process.name})"
        except OSError:
            continue  # it has ended, or a descriptor was closed, while we looked
    return ""


def taken_by(protocol: str, port: int) -> str:
    """As a part of a sentence: ` by dnsmasq (pid 812)`, or nothing."""
    holder = holder_of(protocol, port)
    return f" by {holder}" if holder else ""


def _inodes(protocol: str, port: int) -> set[int]:
    """The inodes of the sockets that are bound to the port (proc(5), /proc/net/tcp)."""
    found = set()
    for name in (protocol, f"{protocol}6"):
        try:
            lines = (_PROC / "thread-self" / "net" / name).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue  # no IPv6
        for line in lines:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[9] != "0":
                found.add(int(fields[9]))
    return found
