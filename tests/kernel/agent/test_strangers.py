"""Who can reach port 6783 and is no member: nothing gets in, nothing that was recorded works again, no peer is lost."""

import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest

from plugin.core.messages import kinds, values, wire
from plugin.core.messages.exchange import GREETING, Calling
from plugin.core.messages.keys import Keys
from plugin.core.messages.kinds import Kind
from plugin.core.messages.values import Member
from plugin.link import netns, rtnl
from testbed.machine.space import Space, call, spawn
from tests.support.cluster import Cluster, wait_for
from tests.support.project import ROOT

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
PASSWORD = "ab" * 32
NODE = {1: "192.168.56.11", 2: "192.168.56.12"}
RANGE = "10.32.0.0/12"
ADDRESSES = [f"192.168.56.{66 + number}" for number in range(40)]
ETH_P_IP = 0x0800
HEADERS_BYTES = 14 + 20 + 8


def machine(cluster: Cluster) -> Space:
    """Another machine on the segment, with many addresses."""
    space = cluster.space("stranger")
    fd = netns.open_netns(space.net)
    with cluster.netlink(cluster.underlay) as link:
        near = rtnl.VethEnd(name="n9", master=10, up=True)
        link.request(rtnl.veth_add(near, rtnl.VethEnd(name="eth0", index=2, netns_fd=fd)))
    os.close(fd)
    with cluster.netlink(space) as inside:
        inside.request(rtnl.link_set(1, up=True), rtnl.link_set(2, up=True))
        for address in ADDRESSES:
            inside.request(rtnl.address_add(2, IPv4Interface(f"{address}/24")))
    return space


def joins(where: Space, evil: Member, source: str, password: str, target: str = NODE[1]) -> kinds.Message | None:
    """What a program that speaks our protocol is answered there; None: it cannot even connect."""
    keys = Keys("weave", IPv4Network(RANGE), "1/6784", password)

    def speak() -> kinds.Message | None:
        with closing(socket.socket()) as stream:
            stream.settimeout(3)
            try:
                stream.bind((source, 0))
                stream.connect((target, 6783))
                calling = Calling(keys, evil.session, 1, received(stream, GREETING.size))
                sync = kinds.Sync((evil,), (), (), (), (), values.RingState("", 0, (), (), ()), pods=False)
                data = calling.request(Kind.SYNC, wire.body_of(sync, evil))
                stream.sendall(wire.LENGTH.pack(len(data)) + data)
                (length,) = wire.LENGTH.unpack(received(stream, wire.LENGTH.size))
                answer = wire.parse(calling.open(received(stream, length)))
            except OSError:
                return None
        assert isinstance(answer, wire.Received)
        return answer.message

    return call(where, speak)


def received(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = stream.recv(count - len(data))
        if not piece:
            raise ConnectionError("it hung up")
        data += piece
    return data


def members(cluster: Cluster, number: int) -> set[str]:
    return {member["name"] for member in cluster.report(number)["members"]}


def refused(cluster: Cluster, number: int, address: str) -> dict[str, Any]:
    peers = json.loads(cluster.api(number, "/status")[1])["peers"]
    return next(peer for peer in peers if peer["address"] == address)


@pytest.mark.parametrize("password", ["", "cd" * 32], ids=["without a password", "with a guess"])
def test_a_machine_on_the_underlay_does_not_get_in_without_the_password(cluster: Cluster, password: str) -> None:
    cluster.mesh(password=PASSWORD)
    evil = Member("evil", "6" * 16, IPv4Address(ADDRESSES[0]), 1)
    answer = joins(machine(cluster), evil, ADDRESSES[0], password)
    assert isinstance(answer, kinds.Refuse)
    assert "password" in answer.reason
    assert members(cluster, 1) == {"node1", "node2"}
    shown = refused(cluster, 1, ADDRESSES[0])
    assert (shown["state"], "password" in shown["reason"]) == ("refused", True)
    assert json.loads(cluster.api(1, "/status")[1])["rejected"]["other password"] == 1


@pytest.mark.parametrize("password", ["", PASSWORD], ids=["no password", "the password"])
@pytest.mark.parametrize("target", [1, 2])
def test_a_pod_does_not_get_in_even_with_the_password(cluster: Cluster, password: str, target: int) -> None:
    cluster.mesh(password=password)
    pod, address = cluster.add(1, "redpod")
    evil = Member("evil", "6" * 16, IPv4Address(address), 1)
    answer = joins(pod, evil, address, password, NODE[target])
    if answer is not None:  # it could reach the port at all
        assert isinstance(answer, kinds.Refuse)
        assert "pod range" in answer.reason
    assert members(cluster, 1) == members(cluster, 2) == {"node1", "node2"}


# --- what was recorded --------------------------------------------------------------------------------------------------
def recorded(cluster: Cluster) -> list[bytes]:
    """Datagrams that node1's agent sends to node2's, as anybody on the segment sees them."""

    def listen() -> list[bytes]:
        found: list[bytes] = []
        with closing(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))) as raw:
            raw.settimeout(20)
            while len(found) < 5:
                frame = raw.recv(4096)
                if frame[23] == 17 and frame[26:30] == socket.inet_aton(NODE[1]) and frame[36:38] == b"\x1a\x7f":
                    found.append(frame[HEADERS_BYTES : 14 + int.from_bytes(frame[16:18], "big")])
        return found

    return call(cluster.nodes[2], listen)


def play(cluster: Cluster, datagrams: list[bytes]) -> None:
    """Send them to node2 once more, from node1's address and port, where no agent runs any more."""

    def send() -> None:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as made:
            made.bind((NODE[1], 6783))
            for data in datagrams:
                made.sendto(data, (NODE[2], 6783))

    call(cluster.nodes[1], send)


def count_of(cluster: Cluster, reason: str) -> int:
    return int(cluster.report(2)["control"]["rejected"][reason])


@pytest.mark.parametrize(("restart", "reason"), [(False, "replayed"), (True, "other session")])
def test_what_was_recorded_brings_no_dead_member_back(cluster: Cluster, *, restart: bool, reason: str) -> None:
    cluster.mesh(password=PASSWORD)
    datagrams = recorded(cluster)
    cluster.kill(1)
    if restart:
        cluster.kill(2)
        cluster.start(2, password=PASSWORD)
    else:
        wait_for(lambda: cluster.peer(2)["state"] == "failed", "node1 is known to be gone")
    before = count_of(cluster, reason)
    play(cluster, datagrams)
    wait_for(lambda: count_of(cluster, reason) >= before + len(datagrams), "all of it was looked at")
    assert cluster.peer(2)["state"] != "established"


# --- floods -------------------------------------------------------------------------------------------------------------
def attack(stranger: Space, kind: str, *options: str) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-m", "bench.attacker", kind, NODE[1], "4", *options]
    return spawn(stranger, argv, stdout=subprocess.PIPE, cwd=ROOT)


def changes(cluster: Cluster, number: int, since: int) -> list[str]:
    """What the agent has said of the other node since it had written so many lines."""
    lines = [json.loads(line) for line in cluster.log(number).splitlines()[since:]]
    told = [line for line in lines if line["event"] == "peer changed" and line["peer"] in NODE.values()]
    return [f"{line['state']}: {line['reason']}" for line in told if line["state"] != "established"]


@pytest.mark.parametrize("kind", ["rubbish", "forged", "silent", "long", "short"])
def test_while_a_stranger_floods_an_agent_no_peer_is_lost_and_pods_come_and_are_known(
    cluster: Cluster, kind: str
) -> None:
    cluster.mesh(password=PASSWORD)
    stranger = machine(cluster)
    lines = {number: len(cluster.log(number).splitlines()) for number in NODE}
    attacker = attack(stranger, kind, "--from", *ADDRESSES)
    cluster.stack.callback(attacker.kill)
    control = {number: cluster.report(number)["control"] for number in NODE}
    pods = 0
    while attacker.poll() is None:
        pods += 1
        _, address = cluster.add(1, f"pod{pods}xx")
        wait_for(lambda address=address: cluster.knows(2, address), "node2 knows the pod")
    told, _ = attacker.communicate()
    assert int(told) > 100, "it was an attack"
    assert pods > 0
    assert {number: changes(cluster, number, lines[number]) for number in NODE} == {1: [], 2: []}
    now = cluster.report(1)["control"]
    assert sum(now["rejected"].values()) > sum(control[1]["rejected"].values()), "what was refused was counted"
    assert members(cluster, 1) == {"node1", "node2"}
    assert len(cluster.log(1).splitlines()) - lines[1] < 200 + 4 * pods, "and not written down line by line"
