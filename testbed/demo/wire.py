"""Three steps of the demo: a ping on one node, a ping between two, and its reply, seen on the wire.

Every sentence about a frame is checked against that frame before it is said (`testbed.probes.wire` judges the path).
"""

from typing import Final

from rich.table import Table
from rich.text import Text

from plugin.core.packet import vxlan
from plugin.core.packet.ip import IPv4
from testbed.demo.cast import MARKERS, Cast, WatchedPing, find, watch_ping
from testbed.demo.show import Show, demand, make_table
from testbed.demo.stage import DemoError
from testbed.lab.running import LabPod
from testbed.machine import screen
from testbed.probes.capture import CapturedFrame, Direction
from testbed.probes.packet_view import render, render_hex
from testbed.probes.ping import parse_ping
from testbed.probes.wire import WirePath

_PING_COUNT: Final = 3


def same_node(show: Show) -> None:
    """A ping to a pod of the same node, and the empty uplink."""
    cast, stage = show.cast, show.stage
    target = show.running.pods[cast.new]
    stage.say(
        f"{cast.sender} and {cast.new} are both on {cast.node}. Which port of the switch leads to {cast.new}? Its own"
        " cable:"
    )
    seen = show.exec(cast.node, "bridge", "fdb", "get", target.mac, "br", "weave", mark=(f"dev {target.host_ifname}",))
    demand(f"dev {target.host_ifname} ", seen, "the switch's entry")
    stage.say(
        f"Now {cast.sender} pings {cast.new}, while weavelab captures at both pods and on every uplink. Other "
        "frames are the talk of kernels and agents; the ping's carry a text that nothing else does (-p)."
    )
    watched = _ping(show, target, "same-node", _PING_COUNT)
    stage.show(_captured_table(watched))
    _demand_path(watched, _PING_COUNT)
    show.near_frames = sum(own for _, own in watched.uplinks.values())
    stage.say(
        f"{_PING_COUNT} requests and {_PING_COUNT} replies passed, and {show.near_frames} frames of them left the "
        "node: the switch, and nowhere else."
    )


def cross_node(show: Show) -> None:
    """A ping to a pod of another node, and the request taken apart."""
    cast, stage, lab = show.cast, show.stage, show.running
    target = lab.pods[cast.far]
    device = f"vxlan-{vxlan.UDP_PORT}"
    far = str(lab.nodes[cast.far_node].uplink_address)
    stage.say(
        f"{cast.far} is on {cast.far_node}. For the switch of {cast.node} it is behind the VXLAN device, and that "
        "knows the node:"
    )
    seen = show.exec(cast.node, "bridge", "fdb", "get", target.mac, "br", "weave", mark=(f"dev {device}",))
    demand(f"dev {device} ", seen, "the switch's entry")
    seen = show.exec(cast.node, "bridge", "fdb", "get", target.mac, "dev", device, "self", mark=(f"dst {far}",))
    demand(f"dst {far} ", seen, "the VXLAN device's entry")
    stage.say(f"The same ping as before, one request, to {cast.far}:")
    watched = _ping(show, target, "cross-node", 1)
    stage.show(_captured_table(watched))
    _demand_path(watched, 1)
    show.echoes, show.routed = _echoes(watched, cast), watched.routed
    leaving = show.echoes["request out"]
    stage.say(f"The request as it left {cast.node}, layer by layer:")
    stage.show(render(leaving.packet, explain=True))
    stage.say("The same frame as bytes; the ping's payload can be read in it:")
    stage.show(render_hex(leaving.packet))
    sent, wire = show.echoes["request sent"].wire_bytes, leaving.wire_bytes
    if wire - sent != vxlan.OVERHEAD_BYTES:
        raise DemoError(f"wanted {vxlan.OVERHEAD_BYTES} bytes of wrapping, found {wire} - {sent} = {wire - sent}")
    stage.say(
        f"{cast.sender} sent {sent} bytes, {wire} were on the wire: {wire} - {sent} = {wire - sent}. Outside the "
        "addresses of the nodes, inside those of the pods, untouched: no NAT between pods."
    )


def reply(show: Show) -> None:
    """The reply, the same way back."""
    cast, stage = show.cast, show.stage
    stage.say(f"{cast.far_node} unwrapped the request, {cast.far} answered. All places that request and reply passed:")
    stage.show(_way_table(show))
    stage.say(f"The reply as it arrived at {cast.node}: the same wrapping, all addresses turned round.")
    back = show.echoes["reply in"]
    stage.show(render(back.packet))
    there, sent = show.echoes["request out"].packet, show.echoes["reply sent"].wire_bytes
    outer, inner = (there.ipv4, back.packet.ipv4), (there.innermost.ipv4, back.packet.innermost.ipv4)
    for what, (first, second) in (("outer", outer), ("inner", inner)):
        turned = first and second and (first.source, first.destination) == (second.destination, second.source)
        if not turned:
            raise DemoError(f"wanted the {what} addresses of the reply to be the request's turned round")
    stage.say(f"{cast.far} sent {sent} bytes, {back.wire_bytes} were on the wire: + {back.wire_bytes - sent} again.")


def _ping(show: Show, target: LabPod, path: WirePath, count: int) -> WatchedPing:
    cast = show.cast
    argv = ("ping", "-n", "-c", str(count), "-p", MARKERS[path].hex(), str(target.address))

    def ping() -> int:
        seen = show.exec(cast.sender, *argv, mark=(f"{count} received", "0% packet loss"))
        return parse_ping(seen, requested=count).received

    return watch_ping(show.running, show.running.pods[cast.sender], target, path, count=count, ping=ping)


def _demand_path(watched: WatchedPing, count: int) -> None:
    """See that the packets went where the step says; an empty uplink proves nothing unless the pods exchanged them."""
    for pod, (_, own) in watched.pods.items():
        if own != 2 * count:
            raise DemoError(f"wanted {2 * count} frames of the ping at pod {pod}, found {own}")
    failed = watched.verdict.failed
    if failed:
        said = "; ".join(f"{check.name}: wanted {check.wanted}, found {check.found}" for check in failed[:3])
        raise DemoError(said, hint="`weavelab run` gives the whole picture, with the state of the nodes")


def _echoes(watched: WatchedPing, cast: Cast) -> dict[str, CapturedFrame]:
    """The request and the reply at every place they passed."""
    evidence = watched.verdict.evidence
    places = {
        "request sent": (watched.inside, cast.sender, Direction.OUT, True),
        "request out": (evidence, cast.node, Direction.OUT, True),
        "request in": (evidence, cast.far_node, Direction.IN, True),
        "request got": (watched.inside, cast.far, Direction.IN, True),
        "reply sent": (watched.inside, cast.far, Direction.OUT, False),
        "reply out": (evidence, cast.far_node, Direction.OUT, False),
        "reply in": (evidence, cast.node, Direction.IN, False),
        "reply got": (watched.inside, cast.sender, Direction.IN, False),
    }
    found = {
        name: find(frames, tap, direction, request=request)
        for name, (frames, tap, direction, request) in places.items()
    }
    missing = [name for name, frame in found.items() if frame is None]
    if missing:
        raise DemoError(f"wanted the ping at eight places, found nothing at: {', '.join(missing)}")
    return {name: frame for name, frame in found.items() if frame is not None}


def _captured_table(watched: WatchedPing) -> Table:
    table = make_table("captured meanwhile", "frames", "of this ping")
    for what, counts in (("pod", watched.pods), ("uplink of", watched.uplinks)):
        for name, (frames, own) in counts.items():
            table.add_row(f"{what} {name}, eth0", str(frames), Text(str(own), style=screen.MARK))
    return table


def _way_table(show: Show) -> Table:
    cast = show.cast
    table = make_table("seen at", "bytes", "outer addresses", "inner addresses")
    pods, nodes = (cast.sender, cast.far), (cast.node, cast.far_node)
    for kind, (near, far), (here, there) in (("request", pods, nodes), ("reply", pods[::-1], nodes[::-1])):
        table.add_row(Text(f"the {kind}", style=screen.TITLE))
        for place, where in (
            ("sent", f"{near} eth0"),
            ("out", f"{here} eth0"),
            ("in", f"{there} eth0"),
            ("got", f"{far} eth0"),
        ):
            frame = show.echoes[f"{kind} {place}"]
            outer = "-" if frame.packet.inner is None else ends_of(frame.packet.ipv4)
            table.add_row(f" {where}", str(frame.wire_bytes), outer, ends_of(frame.packet.innermost.ipv4))
    return table


def ends_of(ip: IPv4 | None) -> str:
    """`10.32.0.2 > 10.40.0.2`."""
    return "no IPv4" if ip is None else f"{ip.source} > {ip.destination}"
