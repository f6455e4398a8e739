"""Host ports of a real agent: who reaches them from where and as whom, and what is left of them after a DEL or a crash."""

import contextlib
import json
import os
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from plugin.link import netns
from testbed.machine.space import Space, call, run
from tests.support.cluster import Cluster, wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
NODE1, NODE2 = "192.168.56.11", "192.168.56.12"
TIMEOUT_S = 5.0
SEED = int(os.environ.get("WEAVELAB_SEED", "1"))
ROUNDS = 20 if os.environ.get("WEAVELAB_FUZZ", "") not in {"", "0"} else 3
TCP_80 = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
UDP_53 = {"hostPort": 5353, "containerPort": 53, "protocol": "udp"}


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def add(cluster: Cluster, number: int, name: str, *ports: dict[str, Any], **conf: Any) -> tuple[Space, str]:
    pod = cluster.space(name)
    status, text = cluster.cni(number, "ADD", pod, runtimeConfig={"portMappings": list(ports)}, **conf)
    assert status == 200, text
    return pod, json.loads(text)["ips"][0]["address"].partition("/")[0]


def listen(space: Space, port: int, sockets: ExitStack, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A server socket in the space, which outlives the thread that went there."""

    def opened() -> socket.socket:
        made = socket.socket(socket.AF_INET, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("0.0.0.0", port))
        return made

    server = sockets.enter_context(call(space, opened))
    server.settimeout(TIMEOUT_S)
    if kind == socket.SOCK_STREAM:
        server.listen()
    return server


def visit(space: Space, address: str, port: int, server: socket.socket) -> str:
    """Connect from the space; the address under which the server sees it. Bytes go both ways."""
    with call(space, lambda: socket.create_connection((address, port), timeout=TIMEOUT_S)) as client:
        connection, (seen, _) = server.accept()
        with connection:
            client.sendall(b"to the pod")
            assert connection.recv(100) == b"to the pod"
            connection.sendall(b"and back")
            assert client.recv(100) == b"and back"
            return str(seen)


def refused(space: Space, address: str, port: int) -> bool:
    try:
        call(space, lambda: socket.create_connection((address, port), timeout=TIMEOUT_S)).close()
    except ConnectionRefusedError:
        return True
    return False


def udp_client(space: Space, sockets: ExitStack) -> socket.socket:
    client = sockets.enter_context(call(space, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
    client.settimeout(TIMEOUT_S)
    return client


def table(cluster: Cluster, number: int) -> str:
    return run(cluster.nodes[number], ["nft", "list", "table", "ip", "weave"], timeout_s=10).stdout


def elements(cluster: Cluster, number: int = 1) -> str:
    """The entries of our maps alone."""
    return "".join(part.split("}")[0] for part in table(cluster, number).split("elements = {")[1:])


def gateway(cluster: Cluster, number: int) -> str:
    return str(json.loads(cluster.api(number, "/status")[1])["bridge"]["address"]).partition("/")[0]


def test_a_host_port_is_reached_from_everywhere_and_strangers_keep_their_addresses(
    cluster: Cluster, sockets: ExitStack
) -> None:
    cluster.mesh()
    web, _ = add(cluster, 1, "webpod", TCP_80)
    near, _ = cluster.add(1, "nearpod")
    far, _ = cluster.add(2, "farpod")
    server = listen(web, 80, sockets)
    node1, node2 = cluster.nodes[1], cluster.nodes[2]
    switch, other_switch = gateway(cluster, 1), gateway(cluster, 2)
    rows = [
        # who, at which address, seen by the pod as
        ("another node", node2, NODE1, NODE2),
        ("the node", node1, NODE1, NODE1),
        ("the node's loopback", node1, "127.0.0.1", switch),
        ("the node at its switch", node1, switch, switch),
        ("another pod of the node", near, NODE1, switch),
        ("another pod at the switch", near, switch, switch),
        ("a pod of another node", far, NODE1, NODE2),
        ("a pod of another node at the switch", far, switch, switch),
        ("the pod itself", web, NODE1, switch),
        ("the pod itself at the switch", web, switch, switch),
        ("another node at the switch", node2, switch, switch),
    ]
    wait_for(lambda: cluster.knows(2, switch) and cluster.knows(1, other_switch), "the switches know each other")
    seen = {who: visit(space, address, 8080, server) for who, space, address, _ in rows}
    assert seen == {who: wanted for who, _, _, wanted in rows}
    assert refused(node2, NODE2, 8080), "the other node has no such port"
    assert refused(node2, NODE1, 8081)
    assert cluster.cni(1, "CHECK", web) == (200, "")


def test_udp_is_led_to_the_pod_and_the_answer_comes_from_the_port_that_was_asked(
    cluster: Cluster, sockets: ExitStack
) -> None:
    cluster.start(1)
    dns, _ = add(cluster, 1, "dnspod", UDP_53)
    near, _ = cluster.add(1, "nearpod")
    server = listen(dns, 53, sockets, socket.SOCK_DGRAM)
    for space, address in [(cluster.nodes[2], NODE1), (cluster.nodes[1], "127.0.0.1"), (near, NODE1), (dns, NODE1)]:
        client = udp_client(space, sockets)
        client.sendto(b"question", (address, 5353))
        data, caller = server.recvfrom(100)
        server.sendto(b"answer to " + data, caller)
        assert client.recvfrom(100) == (b"answer to question", (address, 5353))


def crc32c(data: bytes) -> int:
    """The checksum of SCTP (RFC 9260, appendix A), without which connection tracking drops the packet."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def test_sctp_is_led_to_the_pod(cluster: Cluster, sockets: ExitStack) -> None:
    """By raw packets: not every kernel that forwards SCTP speaks it."""
    cluster.start(1)
    sctp = 132
    pod, address = add(cluster, 1, "sctppod", TCP_80 | {"protocol": "sctp"})

    def raw() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, sctp)

    server, client = (sockets.enter_context(call(space, raw)) for space in (pod, cluster.nodes[2]))
    server.settimeout(TIMEOUT_S)
    init = struct.pack(">BBHIIHHI", 1, 0, 20, 1, 1500, 1, 1, 1)  # chunk INIT, RFC 9260 section 3.3.2
    ports = struct.pack(">HHI", 40000, 8080, 0)
    checksum = struct.pack("<I", crc32c(ports + bytes(4) + init))
    client.sendto(ports + checksum + init, (NODE1, 0))
    packet, (source, _) = server.recvfrom(1000)
    assert source == NODE2
    assert socket.inet_ntoa(packet[16:20]) == address
    assert struct.unpack(">HH", packet[20:24]) == (40000, 80)


def test_a_host_address_limits_a_port_to_it(cluster: Cluster, sockets: ExitStack) -> None:
    cluster.start(1)
    node = cluster.nodes[1]
    local, _ = add(cluster, 1, "localpod", TCP_80 | {"hostIP": "127.0.0.1"})
    public, _ = add(cluster, 1, "publicpod", TCP_80 | {"hostIP": NODE1})
    at_local, at_public = listen(local, 80, sockets), listen(public, 80, sockets)
    assert visit(node, "127.0.0.1", 8080, at_local) == gateway(cluster, 1)
    assert visit(node, NODE1, 8080, at_public) == NODE1
    assert visit(cluster.nodes[2], NODE1, 8080, at_public) == NODE2
    assert refused(node, gateway(cluster, 1), 8080)


def test_what_listens_on_the_nodes_loopback_stays_out_of_reach_of_pods(cluster: Cluster, sockets: ExitStack) -> None:
    cluster.start(1)
    near, _ = add(cluster, 1, "nearpod", TCP_80)
    switch = gateway(cluster, 1)
    server = listen(cluster.nodes[1], 7777, sockets, socket.SOCK_DGRAM)
    knocking = udp_client(near, sockets)
    with cluster.netlink(cluster.nodes[1]) as node:
        mac = next(link.mac for link in node.links() if link.name == "weave")
    # What an attacker in the pod does: a frame for the switch, with a packet for 127.0.0.1 in it.
    for command in (
        ["ip", "link", "set", "lo", "down"],
        ["ip", "route", "del", "table", "local", "127.0.0.0/8", "dev", "lo"],
        ["ip", "route", "add", "127.0.0.1/32", "via", switch, "dev", "eth0"],
        ["ip", "neigh", "replace", switch, "lladdr", mac, "dev", "eth0"],
    ):
        run(near, command, timeout_s=10)
    call(near, lambda: netns.write_sysctl("net/ipv4/conf/eth0/route_localnet", "1"))

    def dropped() -> int:
        rule = next(line for line in table(cluster, 1).splitlines() if "ip daddr 127.0.0.0/8" in line)
        return int(rule.split("packets ")[1].split()[0])

    before = dropped()
    with contextlib.suppress(OSError):
        knocking.sendto(b"let me in", ("127.0.0.1", 7777))
    wait_for(lambda: dropped() > before, "the packet came and was dropped")
    server.settimeout(0.2)
    with pytest.raises(TimeoutError):
        server.recvfrom(100)


def test_a_taken_port_is_refused_with_the_name_of_its_pod_and_free_after_its_del(
    cluster: Cluster, sockets: ExitStack
) -> None:
    cluster.mesh()
    first, _ = add(cluster, 1, "firstpod", TCP_80)
    before = elements(cluster)
    second = cluster.space("secondpod")
    links = cluster.pod_links(1)
    for rival in (TCP_80, TCP_80 | {"hostIP": NODE1, "containerPort": 81}):
        status, text = cluster.cni(1, "ADD", second, runtimeConfig={"portMappings": [rival]})
        assert (status, json.loads(text)["code"]) == (400, 110), text
        assert "host port" in text
        assert "pod firstpodfirs" in text
    assert (cluster.pod_links(1), elements(cluster)) == (links, before), "nothing was made"
    assert len(cluster.held(1)) == 1
    other, _ = add(cluster, 2, "otherpod", TCP_80)  # another node has ports of its own
    assert visit(cluster.nodes[1], NODE2, 8080, listen(other, 80, sockets)) == NODE1
    add(cluster, 1, "udppod", TCP_80 | {"protocol": "udp"})  # and so has another protocol
    assert cluster.cni(1, "DEL", first) == (200, "")
    again, _ = add(cluster, 1, "thirdpod", TCP_80)
    assert visit(cluster.nodes[2], NODE1, 8080, listen(again, 80, sockets)) == NODE2


@pytest.mark.parametrize(
    "port", [{"hostPort": 6783}, {"hostPort": 6783, "protocol": "udp"}, {"hostPort": 6784, "protocol": "udp"}], ids=str
)
def test_the_ports_of_the_agent_are_not_given_away(cluster: Cluster, port: dict[str, Any]) -> None:
    cluster.start(1)
    pod = cluster.space("webpod")
    status, text = cluster.cni(1, "ADD", pod, runtimeConfig={"portMappings": [{"containerPort": 1} | port]})
    assert (status, json.loads(text)["code"]) == (400, 110)
    assert "taken on this node by the agent" in text


def test_a_flow_of_udp_follows_the_port_from_pod_to_pod(cluster: Cluster, sockets: ExitStack) -> None:
    """Connection tracking remembers where a flow went; one that never pauses would go there for ever."""
    cluster.start(1)
    client = udp_client(cluster.nodes[2], sockets)

    def ask(server: socket.socket) -> bytes:
        """Ask again until the answer comes, as a client of UDP does; always the same flow."""
        server.settimeout(0.5)
        for _ in range(10):
            client.sendto(b"who", (NODE1, 5353))
            with contextlib.suppress(TimeoutError):
                return server.recvfrom(100)[0]
        raise AssertionError("the flow does not come here")

    before = listen(cluster.nodes[1], 5353, sockets, socket.SOCK_DGRAM)
    assert ask(before) == b"who"
    for name in ("firstpod", "secondpod"):
        pod, _ = add(cluster, 1, name, UDP_53)
        assert ask(listen(pod, 53, sockets, socket.SOCK_DGRAM)) == b"who"
        assert cluster.cni(1, "DEL", pod) == (200, "")
        assert ask(before) == b"who", "without a pod the port is the node's own again"


def test_flows_of_others_to_the_same_port_are_not_forgotten(cluster: Cluster, sockets: ExitStack) -> None:
    cluster.start(1)
    node = cluster.nodes[1]
    client = udp_client(node, sockets)
    client.sendto(b"to somebody else", (NODE2, 5353))

    def tracked() -> list[str]:
        return [line for line in call(node, conntrack).splitlines() if f"dst={NODE2} " in line and "dport=5353" in line]

    assert len(tracked()) == 1
    pod, _ = add(cluster, 1, "dnspod", UDP_53)
    cluster.cni(1, "DEL", pod)
    assert len(tracked()) == 1


def conntrack() -> str:
    return Path("/proc/thread-self/net/nf_conntrack").read_text(encoding="ascii")


def test_a_connection_that_outlives_its_pod_is_refused_and_never_reaches_the_next_one(
    cluster: Cluster, sockets: ExitStack
) -> None:
    cluster.start(1)
    pod, address = add(cluster, 1, "webpod", TCP_80)
    server = listen(pod, 80, sockets)
    client = sockets.enter_context(
        call(cluster.nodes[2], lambda: socket.create_connection((NODE1, 8080), timeout=TIMEOUT_S))
    )
    sockets.enter_context(server.accept()[0])
    assert cluster.cni(1, "DEL", pod) == (200, "")
    following = cluster.space("nextpod")
    assert cluster.cni(1, "ADD", following, runtimeConfig={"ips": [address]})[0] == 200
    client.sendall(b"anybody?")
    with pytest.raises(ConnectionResetError):
        client.recv(100)


def test_a_del_removes_the_rules_of_its_pod_and_no_others(cluster: Cluster) -> None:
    cluster.start(1)
    empty = elements(cluster)
    assert empty == ""
    kept, _ = add(cluster, 1, "keptpod", TCP_80)
    before = elements(cluster)
    many = [UDP_53, {"hostPort": 1, "containerPort": 53, "protocol": "udp"}, UDP_53 | {"hostPort": 2, "hostIP": NODE1}]
    gone, _ = add(cluster, 1, "gonepod", *many, {"hostPort": 0, "containerPort": 9}, {"containerPort": 9})
    assert elements(cluster).count("udp") == 4, "three mappings and their one target"
    assert cluster.cni(1, "DEL", gone) == (200, "")
    assert cluster.cni(1, "DEL", gone) == (200, "")
    assert elements(cluster) == before
    assert cluster.cni(1, "DEL", kept) == (200, "")
    assert elements(cluster) == ""


def test_a_gc_frees_the_ports_of_what_is_not_valid_any_more(cluster: Cluster) -> None:
    cluster.start(1)
    kept, _ = add(cluster, 1, "keptpod", TCP_80)
    before = elements(cluster)
    add(cluster, 1, "gonepod", UDP_53)
    valid = [{"containerID": kept.name * 3, "ifname": "eth0"}]
    assert cluster.cni(1, "GC", kept, cniVersion="1.1.0", **{"cni.dev/valid-attachments": valid}) == (200, "")
    assert elements(cluster) == before
    add(cluster, 1, "newpod", UDP_53)


def test_an_add_that_the_kernel_refuses_half_way_leaves_nothing(cluster: Cluster) -> None:
    cluster.start(1)
    in_the_way = ["nft", "add", "element", "ip", "weave", "ports", "{ tcp . 8080 : 10.32.0.99 . 1 }"]
    run(cluster.nodes[1], in_the_way, timeout_s=10)
    pod = cluster.space("webpod")
    status, text = cluster.cni(1, "ADD", pod, runtimeConfig={"portMappings": [UDP_53, TCP_80]})
    assert (status, json.loads(text)["code"]) == (400, 102)
    assert "File exists" in text
    assert (cluster.pod_links(1), cluster.held(1)) == (set(), set())
    assert "udp" not in elements(cluster)
    assert cluster.cni(1, "ADD", pod, runtimeConfig={"portMappings": [UDP_53, TCP_80]})[0] == 200


def test_a_table_that_somebody_took_apart_is_put_in_order_by_the_next_add(cluster: Cluster, sockets: ExitStack) -> None:
    cluster.start(1)
    first, _ = add(cluster, 1, "firstpod", TCP_80)
    run(cluster.nodes[1], ["nft", "flush", "ruleset"], timeout_s=10)
    assert refused(cluster.nodes[2], NODE1, 8080)
    add(cluster, 1, "secondpod", UDP_53)
    assert '"rules restored"' in cluster.log(1)
    assert visit(cluster.nodes[2], NODE1, 8080, listen(first, 80, sockets)) == NODE2
    assert cluster.cni(1, "CHECK", first) == (200, "")


SABOTAGE = [
    ["nft", "delete", "element", "ip", "weave", "ports", "{ tcp . 8080 }"],
    ["nft", "delete", "element", "ip", "weave", "port-targets", "{ 10.32.0.2 . tcp . 80 }"],
    ["nft", "flush", "map", "ip", "weave", "ports"],
    ["nft", "delete", "table", "ip", "weave"],
    ["nft", "flush", "ruleset"],
]


@pytest.mark.parametrize("command", SABOTAGE, ids=" ".join)
def test_a_check_notices_a_missing_mapping_and_a_del_bears_it(cluster: Cluster, command: list[str]) -> None:
    cluster.start(1, repair=False)  # or it is mended before anybody can look
    pod, address = add(cluster, 1, "webpod", TCP_80)
    assert address == "10.32.0.2"
    assert cluster.cni(1, "CHECK", pod) == (200, "")
    done = run(cluster.nodes[1], command, timeout_s=10)
    assert done.returncode == 0, done.stderr
    status, text = cluster.cni(1, "CHECK", pod)
    assert (status, json.loads(text)["code"]) == (400, 103)
    assert "host port 0.0.0.0:8080->80/tcp does not lead to the pod" in text
    assert cluster.cni(1, "DEL", pod) == (200, "")
    assert cluster.cni(1, "STATUS", pod, cniVersion="1.1.0") == (200, "")
    add(cluster, 1, "nextpod", TCP_80)


@pytest.mark.parametrize(
    "command", [["nft", "delete", "table", "ip", "weave"], ["nft", "flush", "ruleset"]], ids=" ".join
)
def test_a_pod_that_goes_while_its_rules_are_mended_leaves_no_port_behind(cluster: Cluster, command: list[str]) -> None:
    cluster.start(1)
    for name in ("webpod", "nextpod", "lastpod"):
        pod, _ = add(cluster, 1, name, TCP_80)
        assert run(cluster.nodes[1], command, timeout_s=10).returncode == 0
        assert cluster.cni(1, "DEL", pod) == (200, "")


def test_pods_keep_their_ports_when_the_agent_is_killed_and_starts_again(cluster: Cluster, sockets: ExitStack) -> None:
    cluster.start(1)
    web, _ = add(cluster, 1, "webpod", TCP_80)
    gone, _ = add(cluster, 1, "gonepod", UDP_53)
    server = listen(web, 80, sockets)
    cluster.kill(1)
    assert visit(cluster.nodes[2], NODE1, 8080, server) == NODE2, "the data plane needs no agent"
    netns.umount(gone.net, netns.MNT_DETACH)
    wait_for(lambda: cluster.pod_links(1) == {"vethweplwebpodw"}, "the other pod's link went")
    before = elements(cluster)
    assert "udp" in before
    cluster.start(1)
    assert visit(cluster.nodes[2], NODE1, 8080, server) == NODE2
    assert cluster.cni(1, "CHECK", web) == (200, "")
    assert "udp" not in elements(cluster), "the port of a pod that ended meanwhile is free"
    add(cluster, 1, "dnspod", UDP_53)
    assert (
        json.loads(cluster.cni(1, "ADD", cluster.space("x"), runtimeConfig={"portMappings": [TCP_80]})[1])["code"]
        == 110
    )


def test_pods_keep_their_ports_when_the_journal_is_lost(cluster: Cluster, sockets: ExitStack) -> None:
    cluster.start(1)
    web, _ = add(cluster, 1, "webpod", TCP_80)
    server = listen(web, 80, sockets)
    cluster.kill(1)
    (cluster.tmp / "d1" / "state" / "attachments.journal").unlink()
    cluster.start(1)
    assert '"pod without a record kept"' in cluster.log(1)
    assert visit(cluster.nodes[2], NODE1, 8080, server) == NODE2
    assert cluster.cni(1, "DEL", web) == (200, "")
    assert elements(cluster) == ""


def test_what_a_crash_between_rule_and_record_left_is_gone_after_the_next_start(cluster: Cluster) -> None:
    cluster.start(1)
    pod, _ = add(cluster, 1, "webpod", TCP_80)
    cluster.kill(1)
    journal = cluster.tmp / "d1" / "state" / "attachments.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(line for line in lines if b"webpod" not in line or b'"added"' not in line))
    assert b'"ports"' in journal.read_bytes(), "what is left says `adding`"
    cluster.start(1)
    assert elements(cluster) == ""
    assert cluster.pod_links(1) == set()
    assert cluster.cni(1, "DEL", pod) == (200, "")
    assert cluster.cni(1, "ADD", pod, runtimeConfig={"portMappings": [TCP_80]})[0] == 200


def churn(cluster: Cluster, chance: random.Random, alive: set[str], wishes: dict[str, tuple[Space, Any]]) -> None:
    """ADD and DEL at random until the agent is gone; `alive` are the pods whose ADD was confirmed."""
    while True:
        name, (pod, wish) = chance.choice(list(wishes.items()))
        command = "DEL" if name in alive else "ADD"
        try:
            status, text = cluster.cni(1, command, pod, runtimeConfig=wish)
        except (OSError, IndexError):  # killed before it answered: the outcome is unknown, as a runtime sees it
            alive.discard(name)
            return
        assert status == 200, text
        (alive.add if command == "ADD" else alive.discard)(name)


@pytest.mark.parametrize("seed", [f"{SEED}-{number}" for number in range(ROUNDS)])
def test_killed_at_a_random_moment_nothing_is_left_that_no_pod_has(cluster: Cluster, seed: str) -> None:
    chance = random.Random(seed)  # the test's name holds it: WEAVELAB_SEED=<the first number> repeats it
    cluster.start(1)
    limits = {"ingressRate": 10_000_000, "egressRate": 10_000_000}
    wishes = {
        name: (cluster.space(name), {"bandwidth": limits, "portMappings": [TCP_80 | port, UDP_53 | port]})
        for name, port in [("podapod", {"hostPort": 1}), ("podbpod", {"hostPort": 2}), ("podcpod", {"hostPort": 3})]
    }
    alive: set[str] = set()
    runtime = threading.Thread(target=churn, args=(cluster, chance, alive, wishes))
    runtime.start()
    runtime.join(chance.uniform(0.05, 0.5))
    cluster.kill(1)
    runtime.join(20)
    assert not runtime.is_alive()
    cluster.start(1)
    for name, (pod, wish) in wishes.items():
        if name in alive:
            assert cluster.cni(1, "CHECK", pod) == (200, "")
        else:
            assert cluster.cni(1, "DEL", pod) == (200, ""), "a runtime cleans up after an ADD without an answer"
            assert cluster.cni(1, "ADD", pod, runtimeConfig=wish)[0] == 200, "its ports are free"
    for pod, _ in wishes.values():
        assert cluster.cni(1, "DEL", pod) == (200, "")
    with cluster.netlink(cluster.nodes[1]) as node:
        assert [link.name for link in node.links() if link.kind == "ifb"] == []
    assert (elements(cluster), cluster.pod_links(1), cluster.held(1)) == ("", set(), set())


def test_no_process_is_started_for_a_pod(cluster: Cluster) -> None:
    agent = cluster.start(1)

    def faults_of_children() -> int:
        """Of those that have ended (proc(5), cminflt): no process comes and goes without some."""
        return int(Path(f"/proc/{agent.pid}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()[8])

    before = faults_of_children()
    assert before > 0, "the nft of the start"
    limits = {"ingressRate": 10_000_000, "egressRate": 10_000_000}
    pod, _ = add(cluster, 1, "firstpod", TCP_80, UDP_53, **limits)
    assert cluster.cni(1, "CHECK", pod) == (200, "")
    assert cluster.cni(1, "DEL", pod) == (200, "")
    assert faults_of_children() == before
