"""A step of the demo for labs whose nodes sit in different subnets: the routers on the way, and what they know of pods.

The frames are those of the step before, captured at the routers' interfaces while it ran; what is said of them is
checked against them.
"""

from ipaddress import IPv4Address, IPv4Network

from plugin.core.packet.ip import IPv4
from testbed.demo.show import Show, demand, make_table
from testbed.demo.stage import DemoError
from testbed.lab.running import Lab
from testbed.probes.capture import CapturedFrame, Direction


def routers(show: Show) -> None:
    """Where the node sends the envelope, what the router changes of it, and what it need not know."""
    cast, stage, lab = show.cast, show.stage, show.running
    target = str(lab.nodes[cast.far_node].uplink_address)
    first = cast.routers[0]
    here = lab.underlay.host(cast.node).uplink
    entrance = next(each for each in lab.underlay.host(first).attachments if each.segment == here.segment)
    stage.say(
        f"{cast.node} and {cast.far_node} sit in different subnets. For {cast.node} the way of the envelope is that of "
        f"any packet to {cast.far_node}: to router {first}, which is a hop."
    )
    seen = show.exec(cast.node, "ip", "route", "get", target, mark=(f"via {entrance.address.ip}",))
    demand(f"via {entrance.address.ip} ", seen, "the route")
    steps = _steps(show)
    stage.say(
        "The request of the last step, captured on the way. A router takes a frame that is addressed to its own MAC, "
        "lowers the TTL by one, so that a packet cannot circle for ever, and sends it on in a new Ethernet header:"
    )
    table = make_table("request seen at", "outer TTL", "inner TTL", "outer MACs")
    for frame in steps:
        ethernet, outer, inner = frame.packet.ethernet, frame.packet.ipv4, frame.packet.innermost.ipv4
        macs = "-" if ethernet is None else f"{ethernet.source} > {ethernet.destination}"
        table.add_row(frame.place, str(_ttl(outer)), str(_ttl(inner)), macs)
    stage.show(table)
    _demand_hops(steps, len(cast.routers))
    stage.say(
        f"Outside {_ttl(steps[0].packet.ipv4)} became {_ttl(steps[-1].packet.ipv4)}; inside it is "
        f"{_ttl(steps[-1].packet.innermost.ipv4)} as sent: for the pods there is no router, they are neighbours on one "
        "switch. Addresses of pods stand only inside, and the router reads only the outside:"
    )
    seen = show.exec(first, "ip", "route")
    _demand_ignorance(show, seen)
    stage.say(f"Not one of these routes leads to the pod range {lab.topology.network.range}.")


def _steps(show: Show) -> list[CapturedFrame]:
    """The request on the underlay, in the order of its way: out of its node, in and out of every router, in."""
    on_routers: dict[tuple[str, Direction], CapturedFrame] = {}
    for frame in show.routed:
        icmp = frame.packet.innermost.icmp
        if icmp is not None and icmp.is_request and frame.direction is not Direction.OVERHEARD:
            on_routers.setdefault((frame.tap, frame.direction), frame)
    wanted = [(name, way) for name in show.cast.routers for way in (Direction.IN, Direction.OUT)]
    missing = [f"{name} {way}" for name, way in wanted if (name, way) not in on_routers]
    if missing:
        raise DemoError(f"wanted the request on every router of its way, found nothing at: {', '.join(missing)}")
    return [show.echoes["request out"], *(on_routers[place] for place in wanted), show.echoes["request in"]]


def _ttl(ip: IPv4 | None) -> int:
    return -1 if ip is None else ip.ttl


def _demand_hops(steps: list[CapturedFrame], routers: int) -> None:
    """See that every router lowered the outer TTL by one, and that nobody touched the inner one.

    Raises:
        DemoError: It is otherwise.
    """
    outside = [_ttl(frame.packet.ipv4) for frame in steps]
    inside = {_ttl(frame.packet.innermost.ipv4) for frame in steps}
    begin = outside[0]
    wanted = [begin - hop for hop in range(routers + 1) for _ in (0, 1)]
    if outside != wanted:
        raise DemoError(f"wanted the outer TTLs {wanted} on the way, found {outside}")
    if len(inside) != 1:
        raise DemoError(f"wanted one inner TTL on the whole way, found {sorted(inside)}")


def _demand_ignorance(show: Show, routes: str) -> None:
    """See that none of a router's routes has to do with the pod range.

    Raises:
        DemoError: One has.
    """
    lab: Lab = show.running
    addresses = [str(pod.address) for pod in lab.pods.values()]
    known = [line for line in routes.splitlines() if any(_leads_to(line, address) for address in addresses)]
    if known:
        raise DemoError(f"wanted no route to pods on {show.cast.routers[0]}, found {known[0]!r}")


def _leads_to(line: str, address: str) -> bool:
    """Whether a line of `ip route` has that address in its destination; a default route leads anywhere."""
    destination = line.split(maxsplit=1)[0] if line.strip() else ""
    try:
        return IPv4Address(address) in IPv4Network(destination)
    except ValueError:
        return False
