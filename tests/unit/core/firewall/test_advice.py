"""What people are told when a firewall stops packets."""

from ipaddress import IPv4Address, IPv4Network

from plugin.core.firewall.advice import troubles
from plugin.core.firewall.judge import BaseChain, Refusal
from plugin.core.firewall.samples import Site, samples

SITE = Site(
    bridge="weave", uplink="eth0", pods=IPv4Network("10.32.0.0/12"), node=IPv4Address("192.168.56.11"),
    control_port=6783, vxlan_port=6784, tracked=True,
)  # fmt: skip
ALL = samples(SITE)


def test_every_hook_has_a_packet_that_must_pass() -> None:
    assert {packet.hook for packet in ALL} == {"forward", "input", "output"}


def test_frames_between_pods_matter_only_where_they_pass_the_rules() -> None:
    untracked = Site(
        bridge="weave", uplink="eth0", pods=SITE.pods, node=SITE.node, control_port=6783, vxlan_port=6784, tracked=False
    )
    assert [one.what for one in ALL if one not in samples(untracked)] == ["what pods of this node send each other"]


def test_one_trouble_a_hook_names_the_chain_and_all_that_it_stops() -> None:
    base = BaseChain("inet", "filter", "in", "input", "drop")
    found = [(packet, base, Refusal("in", "drops", by_policy=True)) for packet in ALL if packet.hook == "input"]
    (one,) = troubles(found, SITE)
    assert one.name == "input policy"
    assert one.cause == (
        "the chain in of the nftables table inet filter drops what other nodes send to UDP 6783; what other nodes send to "
        "TCP 6783; what other nodes send to UDP 6784; echo requests of pods and other switches to this switch by its policy"
    )
    assert "nft 'insert rule inet filter in iifname \"weave\" ip protocol icmp accept'" in one.advice


def test_firewalld_is_spoken_to_by_its_own_command() -> None:
    verdict = Refusal("filter_FWD_public", "rejects", by_policy=False)
    for hook, command in (
        ("forward", "firewall-cmd --permanent --zone=trusted --add-interface=weave; firewall-cmd --reload"),
        ("input", "--add-port=6783/udp --add-port=6783/tcp --add-port=6784/udp; firewall-cmd --reload"),
    ):
        base = BaseChain("inet", "firewalld", f"filter_{hook.upper()}", hook, "accept")
        packet = next(packet for packet in ALL if packet.hook == hook)
        (one,) = troubles([(packet, base, verdict)], SITE)
        assert one.advice.endswith(command)
        assert one.cause.startswith("the chain filter_FWD_public of the nftables table inet firewalld rejects what ")


def test_every_hook_has_advice() -> None:
    for packet in ALL:
        base = BaseChain("ip", "mine", "chain", packet.hook, "drop")
        (one,) = troubles([(packet, base, Refusal("chain", "drops", by_policy=True))], SITE)
        assert "nft 'insert rule ip mine chain " in one.advice
