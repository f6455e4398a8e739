"""The switch and the overlay on a real kernel, read back by our own dump and by `bridge` as the witness."""

import json
import os
import subprocess
from ipaddress import IPv4Address, IPv4Interface

import pytest

from plugin.core.errors import InputError
from plugin.core.forwarding.forward import Forwarding, changes
from plugin.link import netns, overlay, pods, rtnl
from plugin.link.netlink import Netlink
from tests.support.cluster import wait_for
from tests.support.node import MAC, OTHER, POD, bridge, device, pod_link

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]


def test_the_bridge_is_made_once_and_taken_over_afterwards(netlink: Netlink) -> None:
    assert bridge(netlink).index == bridge(netlink).index


def test_a_link_that_is_no_bridge_is_refused(netlink: Netlink) -> None:
    netlink.request(rtnl.veth_add(rtnl.VethEnd(name="weave"), rtnl.VethEnd(name="far")))
    with pytest.raises(InputError, match="not a bridge"):
        bridge(netlink)


def test_another_vni_replaces_the_overlay(netlink: Netlink) -> None:
    first = device(netlink)
    assert device(netlink).index == first.index
    assert device(netlink, vni=2).vxlan_vni == 2


def test_forwarding_entries_are_read_back_by_us_and_by_the_bridge_tool(netlink: Netlink) -> None:
    weave, vxlan = bridge(netlink), device(netlink)
    wanted = Forwarding(frozenset({OTHER}), {MAC: OTHER}, {IPv4Address("10.40.0.2"): MAC})
    for target in (wanted, wanted, Forwarding()):
        found = overlay.observe_forwarding(netlink, bridge=weave, overlay=vxlan)
        overlay.apply_forwarding(netlink, changes(found, target), bridge=weave, overlay=vxlan)
        assert overlay.observe_forwarding(netlink, bridge=weave, overlay=vxlan) == target
        shown = json.loads(subprocess.check_output(["bridge", "-json", "fdb", "show", "dev", vxlan.name]))
        assert any(entry.get("mac") == MAC and entry.get("dst") == str(OTHER) for entry in shown) == bool(target.remote)


def test_the_bridge_gets_its_own_entry_back_that_a_port_had_taken(netlink: Netlink) -> None:
    """It made a node whose switch's MAC a pod elsewhere had claimed lose its gateway for good."""
    weave, vxlan = bridge(netlink), device(netlink)

    def own() -> bool:
        shown = json.loads(subprocess.check_output(["bridge", "-json", "fdb", "show", "br", "weave"]))
        entries = [(one["ifname"], one["state"]) for one in shown if one["mac"] == weave.mac and "vlan" not in one]
        return entries == [("weave", "permanent")]

    assert own()
    netlink.request(rtnl.bridge_fdb_set(vxlan.index, weave.mac))
    netlink.request(rtnl.bridge_fdb_del(vxlan.index, weave.mac))
    assert not own()
    bridge(netlink)
    assert own()


def test_a_port_that_is_cut_off_passes_nothing_until_it_is_given_back(netlink: Netlink) -> None:
    weave, pod = bridge(netlink), pod_link()

    def answers(node: str) -> bool:
        return subprocess.run(["ping", "-c1", "-W1", node], capture_output=True, check=False).returncode == 0

    with netns.new_netns() as sandbox:
        pods.attach(netlink, weave, sandbox, pod)
        netlink.request(rtnl.address_add(weave.index, IPv4Interface("10.32.0.1/12")))
        assert answers(str(POD))
        for off in (True, True, False):
            pods.cut_off(netlink, pod.host_ifname, pod.mac, off=off)
            wait_for(lambda off=off: answers(str(POD)) is not off, f"off is {off}")
        pods.cut_off(netlink, "vethweplnone", pod.mac, off=True)  # it went in the same moment
        pods.detach(netlink, pod.host_ifname)


def test_attach_and_detach_and_a_failed_attach_leave_nothing(netlink: Netlink) -> None:
    weave = bridge(netlink)
    before = {link.name for link in netlink.links()}
    pod = pod_link()
    with netns.new_netns() as sandbox:
        pods.attach(netlink, weave, sandbox, pod)
        assert pods.leftovers(netlink, weave) == {"vethweplabc": pods.Leftover(pods.mac_for(POD), (POD,))}
        with pytest.raises(pods.AlreadyAttachedError):
            pods.attach(netlink, weave, sandbox, pod)
        assert pods.detach(netlink, "vethweplabc")
        assert not pods.detach(netlink, "vethweplabc")
    assert {link.name for link in netlink.links()} == before
