"""The tables that `weave status` and its relatives print, from small values made by hand."""

from datetime import datetime
from typing import Any

import pytest

from plugin.agent.api import layouts

ONE_MAC, TWO_MAC = "02:00:00:00:00:11", "02:00:00:00:00:12"
PATH = {"state": "up", "reason": "", "mtu": 1450, "rtt_ms": 0.2}


def peer(**other: Any) -> dict[str, Any]:
    return {
        "name": "node2", "peer": TWO_MAC, "uid": "2" * 16, "address": "192.168.56.12", "state": "established",
        "reason": "", "via": "", "outbound": True, "control": "established", "path": PATH,
    } | other  # fmt: skip


def owner(name: str, mac: str, addresses: int, percent: float, **other: Any) -> dict[str, Any]:
    return {
        "uid": name, "name": name, "peer": mac, "addresses": addresses, "percent": percent, "self": False, "trouble": "",
    } | other  # fmt: skip


def status(*peers: dict[str, Any], **other: Any) -> dict[str, Any]:
    states: dict[str, int] = {}
    for one in peers:
        states[one["state"]] = states.get(one["state"], 0) + 1
    return {
        "version": "0.2.0", "name": "node1", "peer": ONE_MAC, "control_port": 6783, "password": False, "pods": 3, "rejected": {},
        "range": "10.32.0.0/12", "targets": ["192.168.56.12"], "peers": list(peers), "connections": states,
        "overlay": {"port": 6784, "mtu": 1450}, "bridge": {"name": "weave", "exposed": True, "address": "10.32.0.1"},
        "ipam": {"status": "ready", "range": "10.32.0.0/12", "held": 4, "owners": []},
        "problems": [], "repairs": [], "held": [],
        "guard": {"by": ["nft", "locked"], "exempt": 0, "members": 1, "refused": {}},
    } | other  # fmt: skip


def test_problems_come_first_and_repairs_last() -> None:
    then = "2026-01-02T03:04:05+00:00"
    problem = {"object": "uplink", "cause": "eth0 is down", "advice": "ip link set eth0 up", "since": then}
    repair = {"object": "nft table weave", "count": 2, "was": "gone", "last": then}
    held = {"object": "link", "reason": "exercise 3", "since": then}
    text = layouts.overview(status(problems=[problem], repairs=[repair], held=[held]))
    first, rest = text.split("        Version: ")
    assert first == (
        "        PROBLEM: uplink: eth0 is down (since 2026-01-02 03:04:05)\n                 ip link set eth0 up\n\n"
    )
    assert rest.endswith(
        "\n           Held: link (since 2026-01-02 03:04:05): exercise 3\n"
        "       Repaired: nft table weave (2x, last 2026-01-02 03:04:05: gone)\n"
    )


def test_of_many_repairs_the_latest_are_shown_and_the_rest_counted() -> None:
    now = datetime.now().astimezone().isoformat()
    repairs = [{"object": f"port {number}", "count": 1, "was": "", "last": now} for number in range(20)]
    text = layouts.overview(status(repairs=repairs))
    assert text.count("Repaired: port") == 8
    assert "12 more, see `weave report repairs`" in text
    assert f"last {now[11:19]}: changed" in text, "the time alone when it was today"


def test_the_overview_lists_the_services() -> None:
    assert (
        layouts.overview(status(peer()))
        == """\
        Version: 0.2.0

        Service: router
       Protocol: weavelab 3, UDP and TCP 6783, VXLAN on UDP 6784
           Name: 02:00:00:00:00:11(node1)
     Encryption: disabled
       Password: none
  PeerDiscovery: enabled
        Targets: 1
    Connections: 1 (1 established)
          Peers: 2 (with 1 of 1 established)
 TrustedSubnets: none

        Service: ipam
         Status: ready
          Range: 10.32.0.0/12
  DefaultSubnet: 10.32.0.0/12

        Service: plugin
     DriverName: weave-net
         Bridge: weave 10.32.0.1
           Pods: 3
          Guard: nft, locked
"""
    )


def test_the_overview_counts_connections_by_state_and_peers_that_have_a_name() -> None:
    text = layouts.overview(
        status(
            peer(),
            peer(address="192.168.56.13", state="failed"),
            peer(address="192.168.56.14", name="", peer="", state="connecting"),
        )
    )
    assert "    Connections: 3 (1 connecting, 1 established, 1 failed)\n" in text
    assert "          Peers: 3 (with 1 of 2 established)\n" in text


def test_the_overview_of_an_agent_alone_and_without_an_address_says_so() -> None:
    text = layouts.overview(
        status(bridge={"name": "weave", "exposed": True, "address": None}, targets=[], password=True)
    )
    assert "    Connections: 0\n" in text
    assert "        Targets: 0\n" in text
    assert "       Password: set\n" in text
    assert "         Bridge: weave without an address yet\n" in text


def test_the_overview_says_what_was_refused_only_when_something_was() -> None:
    refused = {"other password": 3, "replayed": 12}
    assert "        Refused: 3 other password, 12 replayed\n" in layouts.overview(status(rejected=refused))
    assert "Refused" not in layouts.overview(status())


def test_the_overview_tells_by_what_pods_are_guarded_who_is_exempt_and_what_was_refused() -> None:
    guard = {"by": ["nft", "locked"], "exempt": 2, "members": 1, "refused": {"stranger": 4, "mac": 17}}
    line = "          Guard: nft, locked; 2 pods exempt; refused: 17 mac, 4 stranger\n"
    assert line in layouts.overview(status(guard=guard))


def test_a_switch_whose_address_was_hidden_is_shown_so() -> None:
    text = layouts.overview(status(bridge={"name": "weave", "exposed": False, "address": "10.32.0.1"}))
    assert "         Bridge: weave without its address 10.32.0.1 (hidden)\n" in text


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (peer(), f"-> 192.168.56.12:6783   established fastdp {TWO_MAC}(node2) mtu=1450"),
        (peer(outbound=False), f"<- 192.168.56.12:6783   established fastdp {TWO_MAC}(node2) mtu=1450"),
        (peer(path=None), f"-> 192.168.56.12:6783   established fastdp {TWO_MAC}(node2) mtu=1450"),
        (
            peer(path=PATH | {"mtu": 1280, "reason": "only 1280 bytes pass"}),
            f"-> 192.168.56.12:6783   established fastdp {TWO_MAC}(node2) mtu=1280, only 1280 bytes pass",
        ),
        (
            peer(state="failed", reason="no direct way", via="node3"),
            f"-> 192.168.56.12:6783   failed      {TWO_MAC}(node2), no direct way, relayed by node3",
        ),
        (
            peer(state="failed", reason="nobody hears it"),
            f"-> 192.168.56.12:6783   failed      {TWO_MAC}(node2), nobody hears it",
        ),
        (
            peer(state="connecting", name="", peer="", reason="nothing heard yet", path=None),
            "-> 192.168.56.12:6783   connecting  nothing heard yet",
        ),
        (peer(state="pending", name="", peer="", path=None), "-> 192.168.56.12:6783   pending"),
    ],
    ids=["established", "inbound", "not probed", "small", "relayed", "failed", "connecting", "nothing to say"],
)
def test_a_connection_is_a_line_with_what_carries_it_or_why_nothing_does(shown: dict[str, Any], line: str) -> None:
    assert layouts.connections(status(shown)) == line + "\n"


def test_without_peers_there_are_no_connections() -> None:
    assert layouts.connections(status()) == ""


def member(name: str, number: int, state: str = "alive") -> dict[str, Any]:
    return {"name": name, "address": f"192.168.56.{number}", "state": state}


def report(*members: dict[str, Any], broken: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    return status(peer()) | {"members": list(members), "broken_links": [list(ends) for ends in broken]}


def test_every_peer_is_listed_with_whom_it_reaches() -> None:
    text = layouts.peers(report(member("node2", 12), member("node1", 11)))
    assert text == (
        f"{ONE_MAC}(node1)\n"
        f"   -> 192.168.56.12:6783    {TWO_MAC}(node2)           established\n"
        f"{TWO_MAC}(node2)\n"
        f"   -> 192.168.56.11:6783    {ONE_MAC}(node1)           established\n"
    )


def test_a_broken_link_has_failed_on_both_of_its_ends() -> None:
    text = layouts.peers(report(member("node1", 11), member("node2", 12), broken=(("node2", "node1"),)))
    assert [line.split()[-1] for line in text.splitlines() if "->" in line] == ["failed", "failed"]


def test_a_peer_that_is_gone_reaches_nobody_and_one_that_is_only_suspected_does() -> None:
    text = layouts.peers(report(member("node1", 11), member("node2", 12, "failed")))
    assert text.splitlines() == [
        f"{ONE_MAC}(node1)",
        f"   -> 192.168.56.12:6783    {TWO_MAC}(node2)           failed",
        f"{TWO_MAC}(node2) - failed",
    ]
    text = layouts.peers(report(member("node1", 11), member("node2", 12, "suspect")))
    assert text.count("established") == 2


def test_ipam_lists_the_owners_the_own_part_with_what_is_in_use() -> None:
    found = status()["ipam"] | {
        "owners": [owner("node1", ONE_MAC, 524288, 50.0, self=True), owner("node2", TWO_MAC, 524288, 50.0)]
    }
    assert layouts.ipam(status(ipam=found)) == (
        f"{ONE_MAC}(node1)                524288 IPs (50.0% of total) (4 active)\n"
        f"{TWO_MAC}(node2)                524288 IPs (50.0% of total)\n"
    )


def test_ipam_names_an_owner_that_is_unreachable_and_what_is_awaited() -> None:
    trouble = "unreachable! comes back with node2; if it is gone for good: weave rmpeer node2"
    found = status()["ipam"] | {
        "status": "waiting for IP(s) to become available",
        "owners": [owner("node2", TWO_MAC, 4, 0.4, trouble=trouble)],
    }
    assert layouts.ipam(status(ipam=found)) == (
        f"{TWO_MAC}(node2)                     4 IPs (00.4% of total) - {trouble}\n"
        "waiting for IP(s) to become available\n"
    )


def test_ipam_without_a_ring_says_what_is_awaited() -> None:
    found = status()["ipam"] | {"status": "awaiting consensus (quorum 2, known 1)"}
    assert layouts.ipam(status(ipam=found)) == "awaiting consensus (quorum 2, known 1)\n"


def test_endpoints_are_a_table() -> None:
    listed = [
        {"address": "10.32.0.1", "mac": ONE_MAC, "node": "192.168.56.11", "local": True, "label": "node1/weave"},
        {"address": "10.40.0.12", "mac": TWO_MAC, "node": "192.168.56.12", "local": False, "label": "default/blue"},
    ]
    assert layouts.endpoints(listed) == (
        "ADDRESS     MAC                NODE                  NAME\n"
        f"10.32.0.1   {ONE_MAC}  192.168.56.11 (here)  node1/weave\n"
        f"10.40.0.12  {TWO_MAC}  192.168.56.12         default/blue\n"
    )


def test_endpoints_without_any_are_the_heading() -> None:
    assert layouts.endpoints([]) == "ADDRESS  MAC  NODE  NAME\n"


def test_attachments_are_the_start_of_the_id_the_mac_and_the_addresses() -> None:
    listed = [
        {"id": "weave:expose", "mac": ONE_MAC, "addresses": ["10.32.0.1/12"]},
        {"id": "c" * 64, "mac": TWO_MAC, "addresses": ["10.32.0.2/12"]},
    ]
    assert layouts.attachments(listed) == f"weave:expose {ONE_MAC} 10.32.0.1/12\n{'c' * 12} {TWO_MAC} 10.32.0.2/12\n"
    assert layouts.attachments([]) == ""


def test_attachments_end_in_the_ports_of_the_node_that_lead_to_them() -> None:
    ports = ["0.0.0.0:8080->80/tcp", "127.0.0.1:53->5353/udp"]
    listed = [{"id": "c" * 64, "mac": TWO_MAC, "addresses": ["10.32.0.2/12"], "ports": ports}]
    assert layouts.attachments(listed) == f"{'c' * 12} {TWO_MAC} 10.32.0.2/12 {' '.join(ports)}\n"


def test_targets_are_a_line_each() -> None:
    assert layouts.targets(status(targets=["192.168.56.12", "192.168.56.13"])) == "192.168.56.12\n192.168.56.13\n"
    assert layouts.targets(status(targets=[])) == ""


def test_a_pod_that_is_exempt_and_one_whose_frames_were_refused_are_shown() -> None:
    listed = [
        {"id": "c" * 64, "mac": TWO_MAC, "addresses": ["10.32.0.2/12"], "ports": [], "guard": "guard:macs=any"},
        {"id": "d" * 64, "mac": ONE_MAC, "addresses": ["10.32.0.3/12"], "guard": "", "refused": {"mac": 3, "arp": 1}},
    ]
    assert layouts.attachments(listed).splitlines() == [
        f"{'c' * 12} {TWO_MAC} 10.32.0.2/12 guard:macs=any",
        f"{'d' * 12} {ONE_MAC} 10.32.0.3/12 refused:mac=3 refused:arp=1",
    ]
