"""Attaching and detaching pods, read back by pyroute2 inside the pod, and what is left when it fails: nothing."""

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from plugin.core.cni.types import Route
from plugin.core.errors import MissingError
from plugin.link import netns, pods, rtnl, sysctls
from plugin.link.netlink import Link, Netlink, NetlinkError
from tests.support.node import POD, bridge, device, pod_link
from tests.support.witness import Witness

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
GATEWAY = IPv4Address("10.32.0.1")
ROUTES = (
    Route(IPv4Network("0.0.0.0/0"), GATEWAY),
    Route(IPv4Network("172.16.0.0/16"), IPv4Address("10.32.0.9")),
)
FEATURES = ("tcp-segmentation-offload", "tx-checksumming", "rx-checksumming", "generic-segmentation-offload")


@pytest.fixture
def sandbox() -> Iterator[int]:
    """A pod's namespace as the runtime hands it over."""
    with netns.new_netns() as fd:
        yield fd


def names() -> set[str]:
    return set(Witness().links())


def attach(netlink: Netlink, sandbox: int, wanted: pods.PodLink) -> Link:
    return pods.attach(netlink, bridge(netlink), sandbox, wanted)


def test_the_pods_end_has_its_mac_mtu_address_and_routes(netlink: Netlink, sandbox: int) -> None:
    attach(netlink, sandbox, pod_link(mtu_bytes=1400, routes=ROUTES))
    pod = Witness(sandbox)
    link = pod.link("eth0")
    assert (link.get_attr("IFLA_ADDRESS"), link.get_attr("IFLA_MTU"), link["flags"] & 1) == (
        "0a:58:0a:20:00:02",
        1400,
        1,
    )
    assert [link.get_attr(f"IFLA_NUM_{way}_QUEUES") for way in ("TX", "RX")] == [1, 1]
    assert pod.addresses("eth0") == ["10.32.0.2/12"]
    assert pod.broadcast(IPv4Interface("10.32.0.2/12")) == "10.47.255.255"
    assert pod.routes() == {
        IPv4Network("0.0.0.0/0"): (str(GATEWAY), link["index"]),
        IPv4Network("172.16.0.0/16"): ("10.32.0.9", link["index"]),
        IPv4Network("10.32.0.0/12"): (None, link["index"]),
    }


def test_the_nodes_end_is_an_ordinary_port_of_the_bridge(netlink: Netlink, sandbox: int) -> None:
    outer = attach(netlink, sandbox, pod_link(mtu_bytes=1400))
    link, inner = Witness().link("vethweplabc"), Witness(sandbox).link("eth0")
    assert link["index"] == outer.index
    assert link.get_attr("IFLA_ADDRESS") == outer.mac
    assert (link.get_attr("IFLA_MTU"), link["flags"] & 1) == (1400, 1)
    assert link.get_attr("IFLA_MASTER") == Witness().link("weave")["index"]
    assert (link.get_attr("IFLA_LINK"), inner.get_attr("IFLA_LINK")) == (inner["index"], link["index"])
    flags = Witness().port_flags("vethweplabc")
    assert (flags["LEARNING"], flags["LOCKED"], flags["NEIGH_SUPPRESS"], flags["STATE"]) == (0, 1, 0, 3)


def test_a_pod_with_several_macs_has_a_port_that_learns_them(netlink: Netlink, sandbox: int) -> None:
    attach(netlink, sandbox, pod_link(locked=False))
    flags = Witness().port_flags("vethweplabc")
    assert (flags["LEARNING"], flags["LOCKED"]) == (1, 0)


def test_the_pod_is_admitted_before_its_port_goes_up(netlink: Netlink, sandbox: int) -> None:
    seen = []

    def admit(outer: Link) -> None:
        link = Witness().link("vethweplabc")
        seen.append((outer.index, link["index"], link["flags"] & 1))

    outer = pods.attach(netlink, bridge(netlink), sandbox, pod_link(), admit=admit)
    assert seen == [(outer.index, outer.index, 0)]


def test_a_pod_that_is_not_admitted_is_not_attached(netlink: Netlink, sandbox: int) -> None:
    def admit(_outer: Link) -> None:
        raise NetlinkError(errno.ENOENT, "No such file or directory")

    weave = bridge(netlink)
    before = names()
    with pytest.raises(pods.AttachError, match="the kernel refused: No such file"):
        pods.attach(netlink, weave, sandbox, pod_link(), admit=admit)
    assert names() == before


@pytest.mark.parametrize("hairpin", [False, True])
def test_hairpin_is_set_as_asked(netlink: Netlink, sandbox: int, hairpin: bool) -> None:  # noqa: FBT001
    attach(netlink, sandbox, pod_link(hairpin=hairpin))
    assert Witness().port_flags("vethweplabc")["MODE"] == hairpin


def test_the_switch_knows_the_pod_before_its_first_frame(netlink: Netlink, sandbox: int) -> None:
    attach(netlink, sandbox, pod_link())
    (entry,) = [entry for entry in Witness().fdb("vethweplabc") if entry["mac"] == pods.mac_for(POD)]
    assert entry["master"] == Witness().link("weave")["index"]
    assert entry["state"] == 0x40, "static: it does not age"
    assert entry["flags"] & 0x40, "sticky: no frame moves it"


def test_a_pod_speaks_no_ipv6(netlink: Netlink, sandbox: int) -> None:
    attach(netlink, sandbox, pod_link())
    for fd, name in ((None, "vethweplabc"), (sandbox, "eth0")):
        assert Witness(fd).addresses(name, family=10) == []
    with netns.entered(sandbox):
        assert Path("/proc/sys/net/ipv6/conf/eth0/disable_ipv6").read_text().strip() == "1"
    assert Path("/proc/sys/net/ipv6/conf/vethweplabc/accept_ra").read_text().strip() == "0"


def test_offloads_of_pod_and_node_stay_as_the_kernel_made_them(netlink: Netlink, sandbox: int) -> None:
    if shutil.which("ethtool") is None:
        pytest.skip("ethtool is not installed")
    netlink.request(rtnl.veth_add(rtnl.VethEnd(name="plain"), rtnl.VethEnd(name="other")))

    def features(name: str) -> dict[str, str]:
        text = subprocess.check_output(["ethtool", "-k", name], text=True)
        return dict(re.findall(r"^([a-z-]+): (\w+)", text, re.MULTILINE))

    untouched = {key: features("plain")[key] for key in FEATURES}
    attach(netlink, sandbox, pod_link())
    assert {key: features("vethweplabc")[key] for key in FEATURES} == untouched
    assert {key: features("plain")[key] for key in FEATURES} == untouched
    with netns.entered(sandbox):
        assert {key: features("eth0")[key] for key in FEATURES} == untouched
    assert set(untouched.values()) == {"on"}


def test_an_interface_of_that_name_in_the_pod_is_not_touched(netlink: Netlink, sandbox: int) -> None:
    bridge(netlink)
    with Netlink(sandbox) as inside:
        inside.request(rtnl.veth_add(rtnl.VethEnd(name="eth0", mac="02:00:00:00:00:07"), rtnl.VethEnd(name="far")))
    before = names()
    with pytest.raises(pods.AlreadyAttachedError, match="already has an interface eth0") as raised:
        attach(netlink, sandbox, pod_link())
    assert "DEL" in raised.value.hint
    assert names() == before
    assert Witness(sandbox).link("eth0").get_attr("IFLA_ADDRESS") == "02:00:00:00:00:07"


def test_a_name_that_is_taken_on_the_node_is_refused_and_the_other_one_stays(netlink: Netlink, sandbox: int) -> None:
    bridge(netlink)
    netlink.request(rtnl.veth_add(rtnl.VethEnd(name="vethweplabc"), rtnl.VethEnd(name="far")))
    before = {name: link["index"] for name, link in Witness().links().items()}
    with pytest.raises(pods.AttachError, match="create vethweplabc: File exists"):
        attach(netlink, sandbox, pod_link())
    assert {name: link["index"] for name, link in Witness().links().items()} == before
    assert "eth0" not in Witness(sandbox).links()


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        # The gateway is not reachable from the pod's address: the link, the address and half of the routes are there.
        ({"routes": (*ROUTES, Route(IPv4Network("10.99.0.0/16"), IPv4Address("203.0.113.1")))}, "set up eth0"),
        ({"interfaces": [IPv4Interface((POD, 12))] * 2}, "File exists"),
        ({"mac": "01:00:5e:00:00:01"}, "create vethweplabc"),
        ({"mtu_bytes": 70_000}, "create vethweplabc"),
        ({"host_ifname": "v" * 16}, "create v"),
    ],
)
def test_an_attach_that_fails_half_way_leaves_nothing(
    netlink: Netlink, sandbox: int, spoilt: dict[str, object], words: str
) -> None:
    bridge(netlink)
    before = names()
    with pytest.raises(pods.AttachError, match=f"the kernel refused: .*{words}"):
        attach(netlink, sandbox, pod_link(**spoilt))
    assert names() == before
    assert set(Witness(sandbox).links()) == {"lo"}
    attach(netlink, sandbox, pod_link())  # and it works once nothing is wrong


def test_of_two_interfaces_with_the_same_route_the_first_one_has_it(netlink: Netlink, sandbox: int) -> None:
    attach(netlink, sandbox, pod_link(routes=ROUTES))
    attach(netlink, sandbox, pod_link(POD + 1, host_ifname="vethweplnet", ifname="net1", routes=ROUTES))
    first = Witness(sandbox).link("eth0")["index"]
    assert Witness(sandbox).routes()[ROUTES[0].destination] == (str(GATEWAY), first)


def test_a_sysctl_that_cannot_be_set_leaves_nothing(
    netlink: Netlink, sandbox: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_wanted: object) -> None:
        raise MissingError("sysctl could not be set", hint="")

    weave = bridge(netlink)
    before = names()
    monkeypatch.setattr(sysctls, "apply_sysctls", refuse)
    with pytest.raises(MissingError):
        pods.attach(netlink, weave, sandbox, pod_link())
    assert names() == before


@pytest.mark.parametrize("what", ["a mount namespace", "a file"])
def test_what_is_no_network_namespace_is_refused_in_words(netlink: Netlink, what: str) -> None:
    weave = bridge(netlink)
    before = names()
    fd = os.open("/proc/self/ns/mnt" if what == "a mount namespace" else "/dev/null", os.O_RDONLY)
    try:
        with pytest.raises(pods.AttachError, match=r"namespace cannot be entered: .*Invalid argument"):
            pods.attach(netlink, weave, fd, pod_link())
    finally:
        os.close(fd)
    assert names() == before


def test_the_node_goes_on_when_a_pods_namespace_is_deleted_under_it(netlink: Netlink) -> None:
    with netns.new_netns() as sandbox:
        attach(netlink, sandbox, pod_link())
    # The last descriptor is closed: the kernel takes the pair away when it gets round to it.
    for _ in range(2):
        pods.detach(netlink, "vethweplabc")
    assert "vethweplabc" not in names()
    with netns.new_netns() as sandbox:
        attach(netlink, sandbox, pod_link())
        assert Witness(sandbox).addresses("eth0") == ["10.32.0.2/12"]


def test_detaching_twice_says_whether_there_was_something(netlink: Netlink, sandbox: int) -> None:
    attach(netlink, sandbox, pod_link())
    assert pods.detach(netlink, "vethweplabc") is True
    assert pods.detach(netlink, "vethweplabc") is False
    assert set(Witness(sandbox).links()) == {"lo"}


def test_leftovers_are_pods_on_this_bridge_with_the_addresses_that_their_macs_or_marks_tell(
    netlink: Netlink, sandbox: int
) -> None:
    weave = bridge(netlink)
    device(netlink)
    attach(netlink, sandbox, pod_link())
    with netns.new_netns() as other:
        odd = pod_link(POD + 1, host_ifname="vethweplodd", mac="02:00:00:00:00:09")
        attach(netlink, other, odd)
        early = pod_link(host_ifname="vethweplnew", ifname="net1", mac="0a:59:00:00:00:07", interfaces=())
        attach(netlink, other, early)
        assert pods.leftovers(netlink, weave)["vethweplnew"] == pods.Leftover(early.mac, ())
        two = [IPv4Interface((POD + number, 24)) for number in (7, 8)]
        pods.configure(netlink, other, replace(early, interfaces=two))
        netlink.request(rtnl.veth_add(rtnl.VethEnd(name="vethweplnot"), rtnl.VethEnd(name="far")))
        foreign = rtnl.VethEnd(name="foreign0", master=weave.index)
        netlink.request(rtnl.veth_add(foreign, rtnl.VethEnd(name="far2")))
        assert pods.leftovers(netlink, weave) == {
            "vethweplabc": pods.Leftover(pods.mac_for(POD), (POD,)),
            "vethweplodd": pods.Leftover(odd.mac, (POD + 1,)),
            "vethweplnew": pods.Leftover(early.mac, (POD + 7, POD + 8)),
        }


def test_what_check_compares_is_what_the_witness_sees(netlink: Netlink, sandbox: int) -> None:
    weave = bridge(netlink)
    attach(netlink, sandbox, pod_link(routes=ROUTES[:1]))
    found = pods.observe(netlink, weave, sandbox, name="vethweplabc", ifname="eth0")
    assert found.container is not None
    assert found.host is not None
    assert found.container.mac == Witness(sandbox).link("eth0").get_attr("IFLA_ADDRESS")
    assert found.host.mac == Witness().link("vethweplabc").get_attr("IFLA_ADDRESS")
    assert (found.host_master, found.paired) == ("weave", True)
    assert [str(address) for address in found.addresses] == Witness(sandbox).addresses("eth0")
    assert {route.destination for route in found.routes} == set(Witness(sandbox).routes())


def test_a_link_moved_off_the_bridge_or_swapped_is_noticed(netlink: Netlink, sandbox: int) -> None:
    weave = bridge(netlink)
    outer = attach(netlink, sandbox, pod_link())
    netlink.request(rtnl.link_set(outer.index, master=0))
    assert pods.observe(netlink, weave, sandbox, name="vethweplabc", ifname="eth0").host_master == ""
    pods.detach(netlink, "vethweplabc")
    found = pods.observe(netlink, weave, sandbox, name="vethweplabc", ifname="eth0")
    assert (found.container, found.host, found.addresses) == (None, None, ())
