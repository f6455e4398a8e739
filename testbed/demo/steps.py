"""The steps of the demo, in order: `STEPS`. Each shows real commands and their output, and checks what it says.

A step that finds something else than it explains raises `DemoError`; nothing is shown as true that was not seen. The
steps with packets are in `testbed.demo.wire` and `testbed.demo.way`, the one with the damage in `testbed.demo.damage`.
`testbed.demo.play` plays them.
"""

import json
from collections.abc import Callable, Mapping
from typing import Final

from plugin.core.packet import vxlan
from testbed.demo.cast import add_pod, result_of
from testbed.demo.damage import break_it
from testbed.demo.show import Show, demand, make_table
from testbed.demo.stage import DemoError, Stage
from testbed.demo.texts import LESSONS
from testbed.demo.way import routers
from testbed.demo.wire import cross_node, ends_of, reply, same_node
from testbed.lab.cni_call import CniCall
from testbed.lab.paths import NETNS, LabPaths
from testbed.lab.progress import Silent
from testbed.life import agents
from testbed.life.down import tear_down
from testbed.life.up import bring_up
from testbed.probes.packet_view import describe
from testbed.scenario.members import WEAVELAB

_ENDPOINT_S: Final = 10.0


def cluster(show: Show) -> None:
    """The lab comes up."""
    stage = show.stage
    stage.say(
        f"{len(show.topology.nodes)} nodes, each with its own network, files and host name; on each an agent starts, as"
        " the DaemonSet of a network add-on would start it, and the agents find each other."
    )
    stage.command(f"{WEAVELAB} up {show.topology_file} --name {show.name}")
    show.lab = bring_up(
        show.topology,
        name=show.name,
        topology_file=str(show.topology_file.resolve()),
        progress=Silent(),
        owned=True,
        use=show.use,
    )
    stage.output(f"lab {show.name} is up: {len(show.lab.nodes)} nodes, {len(show.lab.pods)} pods")
    stage.say("Every agent is ready and sees its peers; every pod has an address of the one flat pod range.")
    seen = stage.weavelab("status", show.name, mark=("ready",))
    for node in show.lab.nodes.values():
        demand(str(node.uplink_address), seen, "the status")
    stage.say("While the demo waits, every command can be typed in a second terminal too.")


def node(show: Show) -> None:
    """What the agent made on a node."""
    cast, stage, vni = show.cast, show.stage, show.running.topology.network.vni
    stage.say("The switch: a Linux bridge. Every pod of the node will be plugged into it.")
    seen = show.exec(cast.node, "ip", "-d", "link", "show", "weave", mark=("weave", "bridge "))
    demand("bridge", seen, "the description of weave")
    stage.say(
        "The way to other nodes: a VXLAN device, a port of the same switch. What goes in comes out of the node's eth0 "
        f"wrapped, to UDP port {vxlan.UDP_PORT}, marked with VNI {vni}. Its MTU leaves room for the wrapping."
    )
    device = f"vxlan-{vxlan.UDP_PORT}"
    facts = (f"vxlan id {vni} ", f"dstport {vxlan.UDP_PORT}", "nolearning", "master weave")
    seen = show.exec(cast.node, "ip", "-d", "link", "show", device, mark=(*facts, "mtu"))
    for fact in facts:
        demand(fact, seen, f"the description of {device}")
    stage.say(
        "Which MAC address lives behind which node. Nothing is learned from traffic: the agents tell each other, and "
        "write it here before the first packet. The line of zeros is for broadcasts."
    )
    far = str(show.running.nodes[cast.far_node].uplink_address)
    seen = show.exec(cast.node, "bridge", "fdb", "show", "dev", device, mark=(f"dst {far}",))
    demand(f"{show.running.pods[cast.far].mac} dst {far}", seen, "the forwarding entries")
    stage.say("And the file that tells the container runtime which plugin to call for every new pod:")
    seen = show.exec(cast.node, "cat", "/etc/cni/net.d/10-weave.conflist", mark=("weave-net",))
    demand('"weave-net"', seen, "the CNI configuration")


def pod(show: Show) -> None:
    """A pod is created; the CNI call with its input and output."""
    cast, stage = show.cast, show.stage
    stage.say(
        f"Pod {cast.new} is scheduled to {cast.node}. The kubelet's runtime makes an empty network namespace, then "
        "executes the plugin of the configuration above: a program, told by its environment and standard input."
    )
    show.lab = add_pod(show.running, cast.node, cast.new)
    agents.await_endpoints(show.lab, deadline_s=_ENDPOINT_S, progress=Silent())
    made = show.lab.pods[cast.new]
    for call in made.cni_calls:
        _show_call(stage, call)
    result = result_of(made.cni_calls[-1])
    stage.say("What the pod has now is what the result says: an address, and the switch as its gateway.")
    seen = show.exec(cast.new, "ip", "address", "show", made.ifname, mark=(result["ips"][0]["address"],))
    demand(f"inet {result['ips'][0]['address']} ", seen, "the pod's addresses")
    seen = show.exec(cast.new, "ip", "route", mark=("default via", result["ips"][0]["gateway"]))
    demand(f"default via {result['ips'][0]['gateway']} ", seen, "the pod's routes")


def _show_call(stage: Stage, call: CniCall) -> None:
    stage.say(f"Executed on the node: /opt/cni/bin/{call.plugin}")
    for title, text, mark in (
        ("environment:", "\n".join(f"{k}={v}" for k, v in call.environment.items()), ("CNI_COMMAND=ADD", "CNI_NETNS")),
        ("standard input:", json.dumps(call.stdin), ()),
        (
            f"standard output (exit code {call.exit_code}, {call.seconds * 1000:.0f} ms):",
            _result_lines(call),
            ('"address"', '"gateway"'),
        ),
    ):
        stage.label(title)
        stage.output(text, mark)


def _result_lines(call: CniCall) -> str:
    """The result with one line an interface, address, route: indented as JSON usually is, it would fill the screen."""
    lines = ["{"]
    for key, value in result_of(call).items():
        if isinstance(value, list):
            lines.append(f'  "{key}": [')
            lines += [f"    {json.dumps(item)}{',' if item is not value[-1] else ''}" for item in value]
            lines.append("  ],")
        else:
            lines.append(f'  "{key}": {json.dumps(value)},')
    lines[-1] = lines[-1].removesuffix(",")
    return "\n".join([*lines, "}"])


def recap(show: Show) -> None:
    """Same node and other node side by side; then the lab goes."""
    cast, stage = show.cast, show.stage
    out = describe(show.echoes["request out"].packet)
    table = make_table("", f"same node: {cast.sender} > {cast.new}", f"other node: {cast.sender} > {cast.far}")
    table.add_row("way", "pod, switch, pod", "pod, switch, VXLAN, underlay,\nVXLAN, switch, pod")
    table.add_row("on the uplink", f"{show.near_frames} frames", f"UDP {vxlan.UDP_PORT}, one frame a packet")
    table.add_row("bytes", f"{out['cargo_bytes']}", f"{out['cargo_bytes']} + {out['envelope_bytes']} of wrapping")
    table.add_row("addresses outside", "-", ends_of(show.echoes["request out"].packet.ipv4))
    table.add_row(
        "addresses inside",
        f"{show.address(cast.sender)} > {show.address(cast.new)}",
        f"{show.address(cast.sender)} > {show.address(cast.far)}",
    )
    table.add_row("who decides", "the switch's entries", "the same, then the VXLAN device's")
    stage.show(table)
    stage.say("Everything this lab consists of goes; the machine is as it was.")
    stage.command(f"{WEAVELAB} down {show.name}")
    tear_down(show.name)
    left = leftovers(show.name)
    if left:
        raise DemoError(f"wanted nothing of lab {show.name} left, found {', '.join(left)}")
    stage.output(f"lab {show.name} is down")
    stage.say("Left of it: no process, no namespace, no mount, no file.")


def leftovers(name: str) -> list[str]:
    """What is left of a lab, as paths."""
    paths = LabPaths(name)
    return [
        *([str(paths.directory)] if paths.directory.exists() else []),
        *(str(path) for path in NETNS.glob(f"{name}-*")),
    ]


STEPS: Final[Mapping[str, Callable[[Show], None]]] = {
    "cluster": cluster,
    "node": node,
    "pod": pod,
    "same-node": same_node,
    "cross-node": cross_node,
    "routers": routers,
    "reply": reply,
    "break": break_it,
    "recap": recap,
}
assert list(STEPS) == list(LESSONS), "every step has its texts"
assert len(STEPS) < 10, "one key leads to a step"


def steps_of(show: Show) -> Mapping[str, Callable[[Show], None]]:
    """The steps that this show has: routers only where there are some on the way."""
    return {name: step for name, step in STEPS.items() if name != "routers" or show.cast.routers}
