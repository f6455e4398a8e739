"""The kernel's answers about the way to other nodes, and what the agent changes when they change: source, MTU of pods."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from plugin.core.forwarding.forward import Forwarding, changes
from plugin.core.forwarding.uplink import SeenRoute
from plugin.link import netns, overlay, podmtu, pods, rtnl, switch
from plugin.link.netlink import Netlink
from plugin.link.uplink import observe_uplink
from tests.support.node import LOCAL, OTHER, POD, THIRD, bridge, device, pod_link

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
FAR, NOWHERE = IPv4Address("172.20.0.9"), IPv4Address("172.21.0.9")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def uplinks(netlink: Netlink) -> Netlink:
    """eth0 and eth1 with an address and a carrier each, and a default route by eth0; the node address is on lo."""
    for index, (name, address) in enumerate((("eth0", "192.168.60.1/24"), ("eth1", "192.168.61.1/24")), start=10):
        netlink.request(
            rtnl.veth_add(rtnl.VethEnd(name=name, index=index), rtnl.VethEnd(name=f"far{index}", index=index + 10)),
            rtnl.link_set(index, up=True),
            rtnl.link_set(index + 10, up=True),
            rtnl.address_add(index, IPv4Interface(address)),
        )
    netlink.request(rtnl.route_add(IPv4Network("0.0.0.0/0"), gateway=IPv4Address("192.168.60.2")))
    return netlink


def test_routes_are_those_that_packets_take_with_their_own_mtu(uplinks: Netlink) -> None:
    ip("route", "add", "172.20.0.0/16", "via", "192.168.61.2", "mtu", "1320")
    ip("route", "add", "blackhole", "172.21.0.0/16")
    seen = observe_uplink(uplinks, (FAR, NOWHERE, IPv4Address("8.8.8.8")), source=LOCAL)
    assert seen.routes[FAR] == SeenRoute((11,), 1320)
    assert NOWHERE not in seen.routes
    assert seen.routes[IPv4Address("8.8.8.8")].links == (10,)
    assert seen.default is not None
    assert seen.default.links == (10,)
    assert seen.carrier_of(LOCAL) == seen.called("lo")
    assert {link.name for link in seen.links.values() if link.carrier} >= {"eth0", "eth1"}


def test_a_route_of_several_ways_has_all_their_links(uplinks: Netlink) -> None:
    ip("route", "add", "172.20.0.0/16", "nexthop", "via", "192.168.60.2", "nexthop", "via", "192.168.61.2")
    assert set(observe_uplink(uplinks, (FAR,)).routes[FAR].links) == {10, 11}


def test_rules_and_other_tables_count(uplinks: Netlink) -> None:
    ip("route", "add", "172.20.0.0/16", "via", "192.168.61.2", "table", "77")
    ip("rule", "add", "from", str(LOCAL), "lookup", "77")
    assert observe_uplink(uplinks, (FAR,), source=LOCAL).routes[FAR].links == (11,)
    assert observe_uplink(uplinks, (FAR,)).routes[FAR].links == (10,)


def test_without_a_default_route_there_is_none(uplinks: Netlink) -> None:
    ip("route", "del", "default")
    ip("route", "add", "203.0.113.0/24", "via", "192.168.60.2")
    seen = observe_uplink(uplinks, (FAR,))
    assert (seen.default, dict(seen.routes)) == (None, {})


# --- the overlay's source -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "change", [lambda netlink, made: overlay.set_local(netlink, made, THIRD), lambda netlink, _: device(netlink, local=THIRD)],
    ids=["while it runs", "at a start"],
)  # fmt: skip
def test_another_source_leaves_device_and_entries_as_they_are(netlink: Netlink, change: Callable[..., None]) -> None:
    made = device(netlink)
    wanted = Forwarding(frozenset({OTHER}), {"0a:58:0a:28:00:02": OTHER}, {})
    overlay.apply_forwarding(netlink, changes(Forwarding(), wanted), bridge=bridge(netlink), overlay=made)
    change(netlink, made)
    after = netlink.link("vxlan-6784")
    assert after is not None
    assert (after.index, after.vxlan_local, after.vxlan_vni, after.mtu, after.up) == (made.index, THIRD, 1, 1450, True)
    assert overlay.observe_forwarding(netlink, bridge=bridge(netlink), overlay=made) == wanted
    assert overlay.last_local(netlink, 6784) == THIRD


# --- the MTU of pods ----------------------------------------------------------------------------------------------------
@pytest.fixture
def pod(netlink: Netlink, tmp_path: Path) -> Iterator[Path]:
    """A pod whose namespace has a name; the path is handed over."""
    path = tmp_path / "pod"
    path.touch()
    with ExitStack() as stack:
        sandbox = stack.enter_context(netns.new_netns())
        netns.mount(f"/proc/self/fd/{sandbox}", path, flags=netns.MS_BIND)
        stack.callback(netns.umount, path, netns.MNT_DETACH)
        pods.attach(netlink, bridge(netlink), sandbox, pod_link(POD))
        yield path


def ends(netlink: Netlink) -> tuple[int, int]:
    cable = podmtu.observe_cable(netlink, "vethweplabc")
    assert cable is not None
    return cable.mtu_bytes, cable.inner_mtu_bytes


def resize(netlink: Netlink, mtu_bytes: int, hint: str) -> bool:
    cable = podmtu.observe_cable(netlink, "vethweplabc")
    assert cable is not None
    return podmtu.set_mtu(netlink, podmtu.Namespaces(netlink), cable, mtu_bytes, hint=hint)


def test_both_ends_of_a_pods_cable_are_resized_down_and_up(netlink: Netlink, pod: Path) -> None:
    assert ends(netlink) == (1450, 1450)
    for mtu_bytes in (1350, 1450, 8950):
        assert resize(netlink, mtu_bytes, str(pod))
        assert ends(netlink) == (mtu_bytes, mtu_bytes)
    fd = netns.open_netns(pod)
    try:
        with Netlink(fd) as inside:
            eth0 = inside.link("eth0")
    finally:
        os.close(fd)
    assert eth0 is not None
    assert eth0.mtu == 8950, "as the pod itself sees it"


def test_a_namespace_whose_path_means_nothing_here_is_found_by_a_process(netlink: Netlink, pod: Path) -> None:
    inside = subprocess.Popen(["nsenter", f"--net={pod}", "sleep", "60"])
    try:
        while Path(f"/proc/{inside.pid}/ns/net").stat().st_ino != pod.stat().st_ino:
            assert inside.poll() is None
        for hint in ("", "/proc/no/such", f"/proc/{os.getpid()}/ns/net"):
            mtu_bytes = 1350 if ends(netlink)[0] != 1350 else 1340
            assert resize(netlink, mtu_bytes, hint)
            assert ends(netlink) == (mtu_bytes, mtu_bytes)
    finally:
        inside.kill()
        inside.wait()


def test_where_nothing_leads_to_a_pod_neither_end_is_touched(netlink: Netlink) -> None:
    with netns.new_netns() as sandbox:  # this descriptor alone, in no process's ns/net, in no folder
        pods.attach(netlink, bridge(netlink), sandbox, pod_link(POD))
        with pytest.raises(
            podmtu.UnreachedError, match="cannot be entered from the agent: /nowhere does not lead there"
        ):
            resize(netlink, 1350, "/nowhere")
        assert ends(netlink) == (1450, 1450)


def test_a_pod_that_went_meanwhile_is_no_error(netlink: Netlink, pod: Path) -> None:
    cable = podmtu.observe_cable(netlink, "vethweplabc")
    assert cable is not None
    pods.detach(netlink, "vethweplabc")
    assert podmtu.observe_cable(netlink, "vethweplabc") is None
    assert not podmtu.set_mtu(netlink, podmtu.Namespaces(netlink), cable, 1350, hint=str(pod))


def test_the_switchs_mtu_is_its_own_whatever_its_ports_have(netlink: Netlink, pod: Path) -> None:
    for mtu_bytes in (1350, 1450, 1500):
        switch.set_mtu(netlink, bridge(netlink), mtu_bytes)
        resize(netlink, 1300, str(pod))
        found = netlink.link("weave")
        assert found is not None
        switch.set_mtu(netlink, found, mtu_bytes)
        after = netlink.link("weave")
        assert after is not None
        assert after.mtu == mtu_bytes
