"""The underlay's plan: names, addresses, and routes that lead everywhere, shown by forwarding packets by hand."""

import random
from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.topology.load import parse_topology
from testbed.topology.underlay import Host, UnderlayPlan, plan_underlay

OUTSIDE_ADDRESS = IPv4Address("198.51.100.1")
HOPS_MAX = 64


def plan(text: str) -> UnderlayPlan:
    return plan_underlay(parse_topology(f"name: lab\n{text}", file="lab.yaml"))


def addresses(planned: UnderlayPlan) -> dict[str, str]:
    return {host.name: str(host.uplink.address.ip) for host in planned.hosts}


def owners(planned: UnderlayPlan) -> dict[IPv4Address, Host]:
    held = {plug.address.ip: planned.host(plug.owner) for plug in planned.attachments}
    return held | {address.ip: host for host in planned.hosts for address in host.loopback}


def way(planned: UnderlayPlan, source: Host, target: IPv4Address) -> list[str]:
    """The hosts a packet passes, by longest prefix match and only where routers forward; AssertionError when lost."""
    here, passed, held = source, [source.name], owners(planned)
    while here is not held[target]:
        assert len(passed) < HOPS_MAX, f"a loop: {passed}"
        assert here is source or here.forwards, f"{here.name} does not forward: {passed}"
        if any(target in plug.address.network for plug in here.attachments):
            here = held[target]
        else:
            routes = [route for route in here.routes if target in route.destination]
            assert routes, f"{here.name} has no route to {target}: {passed}"
            best = max(routes, key=lambda route: route.destination.prefixlen)
            plug = next(plug for plug in here.attachments if plug.ifname == best.ifname)
            assert best.gateway in plug.address.network, f"{here.name} cannot reach its gateway {best.gateway}"
            here = held[best.gateway]
        passed.append(here.name)
    return passed


def assert_whole(planned: UnderlayPlan) -> None:
    """Everything is unique that has to be, and everybody reaches everybody."""
    plugs = planned.attachments
    ports = [plug.port for plug in plugs] + [bridge.name for bridge in planned.bridges]
    for values in (ports, [plug.mac for plug in plugs], [plug.address.ip for plug in plugs]):
        assert len(set(values)) == len(values)
    assert all(len(name) <= 15 for name in ports)
    subnets = {bridge.segment: bridge.subnet for bridge in planned.bridges}
    for plug in plugs:
        subnet = subnets[plug.segment]
        assert plug.address.network == subnet
        assert plug.address.ip not in {subnet.network_address, subnet.broadcast_address}
        assert int(plug.mac[:2], 16) & 3 == 2, "locally administered, unicast"
    for source in planned.hosts:
        for target in owners(planned):
            way(planned, source, target)


RACKS = """
underlay:
  segments: {rack1: {subnet: 10.1.0.0/24}, rack2: {subnet: 10.2.0.0/24}, wan: {subnet: 192.0.2.0/24}}
  routers: {spine: {segments: [rack1, rack2, wan]}}
  outside: {segment: wan}
nodes: {node1: {segment: rack1}, node2: {segment: rack2}}
"""

CHAIN = """
underlay:
  segments: {a: {subnet: 10.1.0.0/24}, b: {subnet: 10.2.0.0/24}, c: {subnet: 10.3.0.0/24}, d: {subnet: 10.4.0.0/24}}
  routers: {ab: {segments: [a, b]}, bc: {segments: [b, c]}, cd: {segments: [c, d]}}
  outside: {segment: b}
nodes: {node1: {segment: a}, node2: {segment: b}, node3: {segment: c}, node4: {segment: d}}
"""


# ----------------------------------------------------------------------------------------------------------- addresses


def test_nodes_start_at_11_and_the_outside_host_is_the_last() -> None:
    assert addresses(plan("nodes: {node1: , node2: }")) == {
        "node1": "192.168.56.11",
        "node2": "192.168.56.12",
        "outside": "192.168.56.254",
    }


def test_routers_take_the_first_addresses() -> None:
    spine = plan(RACKS).host("spine")
    assert [(plug.ifname, str(plug.address)) for plug in spine.attachments] == [
        ("eth0", "10.1.0.1/24"),
        ("eth1", "10.2.0.1/24"),
        ("eth2", "192.0.2.1/24"),
    ]


def test_a_small_subnet_is_used_from_its_first_address() -> None:
    text = "underlay: {segments: {lan: {subnet: 10.1.0.0/28}}}\nnodes: {node1: , node2: , node3: , node4: }"
    assert addresses(plan(text)) == {
        "node1": "10.1.0.1",
        "node2": "10.1.0.2",
        "node3": "10.1.0.3",
        "node4": "10.1.0.4",
        "outside": "10.1.0.14",
    }


def test_a_subnet_is_filled_to_the_last_address() -> None:
    nodes = ", ".join(f"n{number}: " for number in range(253))
    planned = plan(f"nodes: {{{nodes}}}")
    assert len(set(addresses(planned).values())) == 254


def test_an_address_of_the_file_is_kept_and_nobody_else_takes_it() -> None:
    text = """
nodes:
  node1:
  node2: {address: 192.168.56.11}
  node3: {address: 192.168.56.254}
"""
    assert addresses(plan(text)) == {
        "node1": "192.168.56.12",
        "node2": "192.168.56.11",
        "node3": "192.168.56.254",
        "outside": "192.168.56.253",
    }


def test_a_router_steps_aside_for_an_address_of_the_file() -> None:
    planned = plan(RACKS.replace("{segment: rack1}", "{segment: rack1, address: 10.1.0.1}"))
    assert str(planned.host("spine").uplink.address.ip) == "10.1.0.2"
    assert_whole(planned)


def test_the_same_file_gives_the_same_plan() -> None:
    assert plan(CHAIN) == plan(CHAIN)


def test_hardware_addresses_do_not_depend_on_the_lab() -> None:
    one = plan_underlay(parse_topology("name: one\nnodes: {node1: }", file="one.yaml"))
    other = plan_underlay(parse_topology("name: other\nnodes: {node1: , node2: }", file="other.yaml"))
    assert one.host("node1").uplink.mac == other.host("node1").uplink.mac


# --------------------------------------------------------------------------------------------------------------- names


def test_ports_bear_their_owners_names() -> None:
    assert [plug.port for plug in plan(RACKS).attachments] == [
        "node1",
        "node2",
        "spine_0",
        "spine_1",
        "spine_2",
        "outside",
    ]


def test_ports_get_numbers_where_an_owners_name_cannot_be_used() -> None:
    text = """
underlay:
  segments: {lan: {subnet: 10.1.0.0/24}, wan: {subnet: 10.2.0.0/24}}
  routers: {fifteen-letters: {segments: [lan, wan]}}
nodes: {lo: , br-lan: , default: , node1: }
"""
    planned = plan(text)
    assert [plug.port for plug in planned.attachments] == [
        "port_1",
        "port_2",
        "port_3",
        "node1",
        "port_4",
        "port_5",
        "outside",
    ]
    assert_whole(planned)


# -------------------------------------------------------------------------------------------------------------- routes


def test_in_one_segment_the_outside_host_is_the_default_gateway() -> None:
    planned = plan("nodes: {node1: }")
    (route,) = planned.host("node1").routes
    assert (str(route.destination), str(route.gateway), route.ifname) == ("0.0.0.0/0", "192.168.56.254", "eth0")
    assert planned.host("outside").routes == ()


def test_behind_a_router_the_router_is_the_default_gateway() -> None:
    (route,) = plan(RACKS).host("node2").routes
    assert (str(route.destination), str(route.gateway)) == ("0.0.0.0/0", "10.2.0.1")


def test_a_packet_takes_the_routers_of_the_chain_in_turn() -> None:
    planned = plan(CHAIN)
    target = planned.host("node4").uplink.address.ip
    assert way(planned, planned.host("node1"), target) == ["node1", "ab", "bc", "cd", "node4"]
    assert way(planned, planned.host("node4"), OUTSIDE_ADDRESS) == ["node4", "cd", "bc", "outside"]


def test_a_shorter_way_is_preferred() -> None:
    ring = CHAIN.replace("cd: {segments: [c, d]}", "cd: {segments: [c, d]}, da: {segments: [d, a]}")
    planned = plan(ring)
    target = planned.host("node4").uplink.address.ip
    assert way(planned, planned.host("node1"), target) == ["node1", "da", "node4"]
    assert_whole(planned)


def test_the_outside_host_knows_the_segments_and_never_the_pod_range() -> None:
    outside = plan(CHAIN).host("outside")
    pods = IPv4Network("10.32.0.0/12")
    assert [str(route.destination) for route in outside.routes] == ["10.1.0.0/24", "10.3.0.0/24", "10.4.0.0/24"]
    assert not any(route.destination.overlaps(pods) for route in outside.routes)
    assert [str(address) for address in outside.loopback] == ["198.51.100.1/32"]


def test_only_routers_forward() -> None:
    assert [host.name for host in plan(CHAIN).hosts if host.forwards] == ["ab", "bc", "cd"]


@pytest.mark.parametrize("text", [RACKS, CHAIN, "nodes: {node1: , node2: }"], ids=["racks", "chain", "one"])
def test_everybody_reaches_everybody(text: str) -> None:
    assert_whole(plan(text))


@pytest.mark.parametrize("seed", range(20))
def test_everybody_reaches_everybody_in_a_random_network(seed: int) -> None:
    rng = random.Random(seed)
    segments = [f"s{number}" for number in range(rng.randint(1, 8))]
    # A tree joins all segments; some further routers make rings.
    joins = [[segments[rng.randrange(number)], segments[number]] for number in range(1, len(segments))]
    joins += [
        rng.sample(segments, rng.randint(2, len(segments))) for _ in range(rng.randint(0, 3)) if len(segments) > 1
    ]
    rng.shuffle(joins)
    lines = ["underlay:", "  segments:"]
    lines += [f"    {name}: {{subnet: 10.{index}.0.0/{rng.randint(16, 27)}}}" for index, name in enumerate(segments)]
    lines += ["  routers:"] * bool(joins)
    lines += [f"    r{index}: {{segments: [{', '.join(join)}]}}" for index, join in enumerate(joins)]
    lines += [f"  outside: {{segment: {rng.choice(segments)}}}", "nodes:"]
    lines += [f"  n{index}: {{segment: {rng.choice(segments)}}}" for index in range(rng.randint(1, 12))]
    assert_whole(plan("\n".join(lines) + "\n"))
