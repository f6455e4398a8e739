"""The overlay device and its forwarding entries, written by our rtnetlink, read back by pyroute2 and by `bridge`."""

import errno
import json
import os
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from plugin.core.errors import InputError
from plugin.core.forwarding.forward import Changes, Forwarding, changes
from plugin.link import overlay, rtnl
from plugin.link.netlink import Link, Netlink, NetlinkError
from tests.support.node import LOCAL, MAC, OTHER, THIRD, bridge, device
from tests.support.witness import Witness

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
ADDRESS = IPv4Address("10.40.0.2")
PERMANENT, STATIC = 0x80, 0x40  # NUD_PERMANENT, NUD_NOARP: linux/neighbour.h
NAME = "vxlan-6784"


def bridge_tool(name: str) -> list[dict[str, object]]:
    return json.loads(subprocess.check_output(["bridge", "-json", "fdb", "show", "dev", name]))


def write(netlink: Netlink, weave: Link, vxlan: Link, wanted: Forwarding) -> None:
    found = overlay.observe_forwarding(netlink, bridge=weave, overlay=vxlan)
    overlay.apply_forwarding(netlink, changes(found, wanted), bridge=weave, overlay=vxlan)


def test_the_bridge_forwards_at_once_and_keeps_its_mac_when_ports_come(netlink: Netlink) -> None:
    weave = bridge(netlink)
    low = rtnl.VethEnd(name="low", mac="02:00:00:00:00:00", mtu=1450, master=weave.index, up=True)
    netlink.request(rtnl.veth_add(low, rtnl.VethEnd(name="far")))
    link, values = Witness().link("weave"), Witness().kind_values("weave")
    assert Witness().kind("weave") == "bridge"
    assert link.get_attr("IFLA_ADDRESS") == "02:00:00:00:00:01"
    assert (values["IFLA_BR_FORWARD_DELAY"], values["IFLA_BR_STP_STATE"]) == (0, 0)
    assert link["flags"] & 1, "it is up"


@pytest.mark.parametrize("restarts", [0, 1])
def test_one_pod_with_a_small_mtu_does_not_shrink_the_bridge_for_all(netlink: Netlink, restarts: int) -> None:
    for _ in range(1 + restarts):
        weave = bridge(netlink)
    small = rtnl.VethEnd(name="small", mtu=1000, master=weave.index, up=True)
    netlink.request(rtnl.veth_add(small, rtnl.VethEnd(name="far")))
    assert Witness().link("weave").get_attr("IFLA_MTU") == 1450


def test_the_device_is_what_was_asked_for(netlink: Netlink) -> None:
    weave = bridge(netlink)
    device(netlink, vni=77)
    values, link = Witness().kind_values(NAME), Witness().link(NAME)
    assert Witness().kind(NAME) == "vxlan"
    assert (values["IFLA_VXLAN_ID"], values["IFLA_VXLAN_PORT"], values["IFLA_VXLAN_LOCAL"]) == (77, 6784, str(LOCAL))
    assert (values["IFLA_VXLAN_LEARNING"], values["IFLA_VXLAN_UDP_CSUM"], values["IFLA_VXLAN_TTL"]) == (0, 1, 64)
    assert values["IFLA_VXLAN_COLLECT_METADATA"] == 0
    assert (link.get_attr("IFLA_MTU"), link.get_attr("IFLA_MASTER"), link["flags"] & 1) == (1450, weave.index, 1)


def test_the_overlays_port_learns_nothing_and_answers_arp_itself(netlink: Netlink) -> None:
    device(netlink)
    flags = Witness().port_flags(NAME)
    assert (flags["LEARNING"], flags["NEIGH_SUPPRESS"], flags["MODE"]) == (0, 1, 0)


def test_the_devices_speak_no_ipv6(netlink: Netlink) -> None:
    device(netlink)
    for name in ("weave", NAME):
        assert Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").read_text().strip() == "1"
        assert Path(f"/proc/sys/net/ipv6/conf/{name}/accept_ra").read_text().strip() == "0"


@pytest.mark.parametrize("change", [{"vni": 2}, {"vni": 2, "local": THIRD}])
def test_a_device_with_other_values_is_replaced(netlink: Netlink, change: dict[str, object]) -> None:
    first = device(netlink)
    assert device(netlink).index == first.index, "the same values: the same device"
    second = device(netlink, **change)
    assert second.index != first.index
    values = Witness().kind_values(NAME)
    assert (values["IFLA_VXLAN_ID"], values["IFLA_VXLAN_LOCAL"]) == (second.vxlan_vni, str(second.vxlan_local))


def test_a_plain_device_of_that_name_is_replaced(netlink: Netlink) -> None:
    netlink.request(rtnl.veth_add(rtnl.VethEnd(name=NAME), rtnl.VethEnd(name="far")))
    device(netlink)
    assert Witness().kind(NAME) == "vxlan"


def test_a_lost_port_and_mtu_are_set_right_again(netlink: Netlink) -> None:
    vxlan = device(netlink)
    netlink.request(rtnl.link_set(vxlan.index, up=False, mtu=1200, master=0))
    assert device(netlink).index == vxlan.index
    link = Witness().link(NAME)
    assert (link.get_attr("IFLA_MTU"), link.get_attr("IFLA_MASTER"), link["flags"] & 1) == (
        1450, Witness().link("weave")["index"], 1,
    )  # fmt: skip
    assert Witness().port_flags(NAME)["NEIGH_SUPPRESS"] == 1


def test_a_vni_that_another_device_has_is_refused_with_a_sentence(netlink: Netlink) -> None:
    netlink.request(rtnl.vxlan_add("foreign", vni=1, local=LOCAL, port=6784))
    with pytest.raises(InputError, match="VNI 1 on UDP port 6784 belongs to another device of this node") as raised:
        device(netlink)
    assert "choose another vni" in raised.value.hint
    assert Witness().kind_values("foreign")["IFLA_VXLAN_ID"] == 1
    assert NAME not in Witness().links()


def test_every_entry_is_what_two_witnesses_see(netlink: Netlink) -> None:
    weave, vxlan = bridge(netlink), device(netlink)
    write(netlink, weave, vxlan, Forwarding(frozenset({OTHER, THIRD}), {MAC: OTHER}, {ADDRESS: MAC}))
    entries = Witness().fdb(NAME)
    assert {entry["dst"] for entry in entries if entry["mac"] == rtnl.ZERO_MAC} == {str(OTHER), str(THIRD)}
    (to_node,) = [entry for entry in entries if entry["mac"] == MAC and entry["dst"]]
    (to_port,) = [entry for entry in entries if entry["mac"] == MAC and not entry["dst"]]
    assert to_node["dst"] == str(OTHER)
    assert (to_port["master"], to_port["state"]) == (weave.index, STATIC)
    assert Witness().neighbours("weave") == {ADDRESS: (MAC, PERMANENT)}
    tool = [entry for entry in bridge_tool(NAME) if entry["mac"] == MAC]
    assert sorted((entry.get("dst", ""), entry.get("master", ""), entry["state"]) for entry in tool) == [
        ("", "weave", "static"),
        (str(OTHER), "", "permanent"),
    ]


def test_a_pod_that_moved_is_pointed_elsewhere_and_only_there(netlink: Netlink) -> None:
    weave, vxlan = bridge(netlink), device(netlink)
    for node in (OTHER, THIRD):
        write(netlink, weave, vxlan, Forwarding(frozenset({OTHER, THIRD}), {MAC: node}, {ADDRESS: MAC}))
    assert [entry["dst"] for entry in Witness().fdb(NAME) if entry["mac"] == MAC and entry["dst"]] == [str(THIRD)]


def test_what_is_gone_is_gone_for_the_witnesses_too(netlink: Netlink) -> None:
    weave, vxlan = bridge(netlink), device(netlink)
    write(netlink, weave, vxlan, Forwarding(frozenset({OTHER}), {MAC: OTHER}, {ADDRESS: MAC}))
    write(netlink, weave, vxlan, Forwarding())
    assert not [entry for entry in Witness().fdb(NAME) if entry["dst"] or entry["mac"] == MAC]
    assert Witness().neighbours("weave") == {}


def test_writing_and_removing_twice_is_harmless(netlink: Netlink) -> None:
    weave, vxlan = bridge(netlink), device(netlink)
    there = changes(Forwarding(), Forwarding(frozenset({OTHER}), {MAC: OTHER}, {ADDRESS: MAC}))
    gone = changes(Forwarding(frozenset({OTHER}), {MAC: OTHER}, {ADDRESS: MAC}), Forwarding())
    for difference, expected in ((there, 2), (there, 2), (gone, 0), (gone, 0)):
        overlay.apply_forwarding(netlink, difference, bridge=weave, overlay=vxlan)
        assert len([entry for entry in Witness().fdb(NAME) if entry["dst"]]) == expected


def test_any_other_refusal_is_raised_in_the_kernels_words_and_the_rest_is_written(netlink: Netlink) -> None:
    weave, vxlan = bridge(netlink), device(netlink)
    nothing = Link(index=999, name="nothing", mac="", mtu=0, up=False, master=0, kind="vxlan")
    wanted = Changes(remote_set=(), neighbour_set=((ADDRESS, MAC),), neighbour_del=(), remote_del=(),
                     flood_add=(OTHER,), flood_del=())  # fmt: skip
    with pytest.raises(NetlinkError, match="write forwarding entries: No such device") as raised:
        overlay.apply_forwarding(netlink, wanted, bridge=weave, overlay=nothing)
    assert raised.value.errno == errno.ENODEV
    assert Witness().neighbours("weave") == {ADDRESS: (MAC, PERMANENT)}
    assert vxlan.name in Witness().links()


def test_entries_that_are_not_ours_are_not_taken_for_ours(netlink: Netlink) -> None:
    weave, vxlan = bridge(netlink), device(netlink)
    netlink.request(rtnl.vxlan_add("foreign", vni=9, local=LOCAL, port=6785))
    foreign = netlink.link("foreign")
    assert foreign is not None
    netlink.request(rtnl.vxlan_flood_append(foreign.index, OTHER), rtnl.vxlan_fdb_set(foreign.index, MAC, OTHER))
    assert overlay.observe_forwarding(netlink, bridge=weave, overlay=vxlan) == Forwarding()


def test_a_refusal_carries_the_kernels_own_words_and_its_place_in_the_batch(netlink: Netlink) -> None:
    weave = bridge(netlink)
    with pytest.raises(NetlinkError) as raised:
        netlink.request(
            rtnl.link_set(weave.index, up=True), rtnl.link_set(weave.index, mtu=10_000_000), what="grow the bridge"
        )
    assert raised.value.errno == errno.EINVAL
    text = str(raised.value)
    assert "grow the bridge: Invalid argument: mtu greater than device maximum (message 2 of 2)" in text
