"""Names and MACs of pods: what a learner reads in `ip link`, and what must never collide."""

from ipaddress import IPv4Address

from plugin.link import pods


def test_the_link_of_a_pod_is_named_after_its_container() -> None:
    assert pods.host_ifname("0123456789abcdef", "eth0") == "vethwepl0123456"


def test_a_second_interface_of_a_container_has_a_name_of_its_own() -> None:
    names = {pods.host_ifname("0123456789abcdef", ifname) for ifname in ("eth0", "eth1", "net1")}
    assert len(names) == 3
    assert all(len(name) <= 15 for name in names)


def test_a_container_of_similar_id_gets_another_name() -> None:
    taken = {"vethwepl0123456"}
    name = pods.free_host_ifname("0123456-other", "eth0", taken)
    assert name not in taken
    assert name.startswith("vethwepl")
    assert len(name) == 15
    assert name == pods.free_host_ifname("0123456-other", "eth0", taken)  # the same after a restart


def test_an_address_has_one_mac_and_a_mac_gives_its_address_back() -> None:
    address = IPv4Address("10.40.0.2")
    assert pods.mac_for(address) == "0a:58:0a:28:00:02"
    assert pods.address_of(pods.mac_for(address)) == address
    assert pods.address_of("02:00:00:00:00:01") is None
