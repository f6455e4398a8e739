"""What the prompt knows of the lab beyond Mininet's own commands, and what of Mininet's is done another way here.

A command is a method `do_NAME`; its docstring is its help. One that has failed says so (`fail`) and the prompt goes on.
How lines are read is in shell.py.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from plugin.core.errors import InputError
from testbed.lab.status import healthy, observe
from testbed.lab.tables import print_tables
from testbed.prompt.host import LabPodHost, LabSwitch

# isort: split
# testbed.prompt.host has put Mininet's stand-in in place.
import mininet.cli as mininet_cli
from mininet.cli import CLI
from mininet.log import error, output

_TRANSFER_S: Final = 20.0
_PINGALL_MAX_S: Final = 60.0


class LabCommands(CLI):  # type: ignore[misc]  # Mininet ships no types
    """Commands about the lab, and measurements.

    Attributes:
        failed: Whether a command failed so far.
        mn: The lab as a Mininet network.
    """

    failed: bool
    mn: Any

    def fail(self, message: str, hint: str = "") -> None:
        """Show what went wrong; a script's exit code will tell it."""
        self.failed = True
        error(f"*** {message}\n" + (f"    {hint}\n" if hint else ""))

    # ---- commands about the lab

    def do_nodes(self, _line: str) -> None:
        """List the nodes, routers and the outside host, with their addresses."""
        for host in self.mn.hosts:
            if not isinstance(host, LabPodHost):
                output(f"{host.name:<16}{self.mn.address_of(host.name)}\n")

    def do_pods(self, _line: str) -> None:
        """List the pods: name, node, address, MAC, the interface on the node's side."""
        for pod in self.mn.lab.pods.values():
            output(f"{pod.name:<16}{pod.node:<16}{pod.address!s:<16}{pod.mac:<19}{pod.host_ifname}\n")

    def do_net(self, _line: str) -> None:
        """Show who is plugged into whom."""
        for member in [*self.mn.hosts, *self.mn.switches]:
            ends = []
            for intf in member.intfList():
                if intf.link is None:  # a switch's loopback, which Mininet adds
                    continue
                other = intf.link.intf2 if intf.link.intf1 is intf else intf.link.intf1
                ends.append(f"{intf.name}:{other.node.name}-{other.name}")
            output(f"{member.name} {' '.join(ends)}\n")

    def do_links(self, _line: str) -> None:
        """Show every cable, and whether both its ends are up."""
        for link in self.mn.links:
            near, far = link.intf1, link.intf2
            output(f"{near.node.name}-{near.name}<->{far.node.name}-{far.name} {link.status()}\n")

    def do_link(self, line: str) -> None:
        """Pull or plug the cable between two members: link node1 br-lan down|up, link red node1 down|up."""
        words = line.split()
        if len(words) != 3 or words[2] not in {"up", "down"}:
            raise InputError("wanted two members and up or down", hint="for example: link node1 br-lan down")
        self._members(words[:2])
        try:
            self.mn.configLinkStatus(*words)
        except ValueError as problem:
            raise InputError(str(problem), hint="`links` shows them all") from None

    def do_dump(self, _line: str) -> None:
        """Show all that is known about each member: kind, interfaces with addresses, namespace."""
        for member in [*self.mn.hosts, *self.mn.switches]:
            ends = ", ".join(f"{intf.name} {intf.IP() or '-'} {intf.MAC() or '-'}" for intf in member.intfList())
            where = self.mn.lab.paths.netns_name("underlay" if isinstance(member, LabSwitch) else member.name)
            output(f"<{_kind(member)} {member.name}: {ends}; {where}>\n")

    def do_intfs(self, _line: str) -> None:
        """List the interfaces of each member."""
        for member in [*self.mn.hosts, *self.mn.switches]:
            output(f"{member.name}: {','.join(member.intfNames())}\n")

    def do_status(self, _line: str) -> None:
        """Show the lab as `weavelab status` does; it fails where that does, when something is not as it should be."""
        found = observe(self.mn.lab.name)
        print_tables(found)
        if not all(map(healthy, found)):
            self.failed = True

    # ---- Python

    def do_py(self, line: str) -> None:
        """Evaluate a Python expression, members by name: py red.IP()."""
        value = self._python(eval, line)
        if value is not None and not (isinstance(value, str) and not value):
            output(f"{value if isinstance(value, str) else repr(value)}\n")

    def do_px(self, line: str) -> None:
        """Execute a Python statement, members by name: px print(red.cmd('ip route'))."""
        self._python(exec, line)

    def _python(self, carry_out: Callable[..., Any], line: str) -> Any:
        if not line.strip():
            raise InputError("wanted some Python", hint="for example: py red.IP()")
        try:
            return carry_out(line, vars(mininet_cli), self.getLocals())
        except (Exception, SystemExit) as problem:  # noqa: BLE001 - whatever was typed may raise whatever there is
            self.fail(f"{type(problem).__name__}: {problem}")
        return None

    # ---- measurements

    def do_pingall(self, line: str) -> None:
        """Ping from every pod to every other: pingall [SECONDS to wait for each]."""
        if len(self.mn.pods or self.mn.hosts) < 2:
            raise InputError("there is nobody to ping: the lab has only one member", hint="`nodes` and `pods` show all")
        self._note_loss(self.mn.pingAll(timeout=_seconds(line)))

    def do_pingpair(self, line: str) -> None:
        """Ping between the first two pods, or between two members: pingpair [A B]."""
        names = line.split()
        pair = self._members(names) if names else (self.mn.pods or self.mn.hosts)[:2]
        if len(set(pair)) != 2 or len(pair) != 2:
            raise InputError("wanted two different members", hint="for example: pingpair red blue")
        self._note_loss(self.mn.ping(hosts=pair))

    def do_iperf(self, line: str) -> None:
        """Measure TCP throughput with iperf3, one second: iperf [FROM TO]; the first and the last pod when left out."""
        from testbed.probes.command import Processes  # noqa: PLC0415 - only this needs them
        from testbed.probes.iperf import Transfer, describe_iperf, measure  # noqa: PLC0415

        names = line.split()
        ends = self._members(names) if names else [self.mn.pods[0], self.mn.pods[-1]] if self.mn.pods else []
        if len(ends) != 2 or ends[0] is ends[1]:
            raise InputError("wanted two different members", hint="for example: iperf red blue")
        source, target = ends
        address = self.mn.address_of(target.name)
        output(f"*** Iperf: testing TCP bandwidth from {source.name} to {target.name}\n")
        measured = measure(Processes(), source.space, target.space, str(address), Transfer(), timeout_s=_TRANSFER_S)
        if measured.result.error:
            self.fail(measured.result.error)
        else:
            output(f"*** Results: {describe_iperf(measured.result)}\n")

    def _note_loss(self, loss: float | None) -> None:
        if loss:
            self.failed = True

    def _members(self, names: Sequence[str]) -> list[Any]:
        unknown = [name for name in names if name not in self.mn]
        if unknown:
            raise InputError(f"the lab has nobody named {unknown[0]}", hint=f"it has {', '.join(self.mn)}")
        return [self.mn[name] for name in names]


def _kind(member: Any) -> str:
    if isinstance(member, LabPodHost):
        return "pod"
    return "switch" if isinstance(member, LabSwitch) else "host"


def _seconds(line: str) -> float | None:
    if not line.strip():
        return None
    try:
        seconds = float(line)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _PINGALL_MAX_S:
        raise InputError(f"wanted seconds, up to {_PINGALL_MAX_S:g}, found {line!r}", hint="for example: pingall 2")
    return seconds
