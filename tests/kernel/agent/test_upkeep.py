"""What somebody breaks under a running agent is as it was, is told once, and nothing else is touched."""

import contextlib
import json
import os
import random
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from plugin.link import rtnl
from testbed.machine.space import Space, call, run
from tests.support.cluster import Cluster, wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]

LIMITED = {"bandwidth": {"ingressRate": 800_000_000, "ingressBurst": 800_000, "egressRate": 400_000_000, "egressBurst": 400_000}}  # fmt: skip
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
PORT = "vethweplredpodr"
SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/bridge/bridge-nf-call-iptables",
    "net/ipv4/conf/weave/route_localnet",
    "net/ipv6/conf/weave/disable_ipv6",
    "net/ipv6/conf/weave/accept_ra",
    "net/ipv6/conf/vxlan-6784/disable_ipv6",
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two meshed nodes: the first with a pod that has a host port, and one whose bandwidth is limited; one elsewhere."""
    with ExitStack() as stack:
        cluster = Cluster(tmp_path_factory.mktemp("upkeep"), stack)
        cluster.mesh()
        pods = {"redpod": PORTS, "greenpod": LIMITED}
        for name, capabilities in pods.items():
            pod = cluster.space(name)
            status, text = cluster.cni(1, "ADD", pod, runtimeConfig=capabilities, capabilities={"portMappings": True, "bandwidth": True})  # fmt: skip
            assert status == 200, text
        _, blue = cluster.add(2, "bluepod")
        wait_for(lambda: cluster.knows(1, blue), "node 1 knows the pod of node 2")
        yield cluster


def shell(space: Space, command: str) -> str:
    done = run(space, ["sh", "-ec", command], timeout_s=20)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def state(cluster: Cluster, number: int = 1) -> dict[str, Any]:
    """All that a node's kernel holds, without what counts, ages or is numbered anew."""
    with cluster.netlink(cluster.nodes[number]) as netlink:
        links = netlink.links()
        names = {link.index: link.name for link in links}
        found: dict[str, Any] = {
            link.name: {
                "index": link.index if link.kind != "ifb" else 0, "mac": link.mac if link.kind != "ifb" else "", "mtu": link.mtu, "up": link.up, "kind": link.kind,
                "master": names.get(link.master, ""), "vni": link.vxlan_vni, "local": str(link.vxlan_local),
                "flags": {flag: link.port_flag(kind) for flag, kind in rtnl.PORT_FLAGS.items()},
                "forwards": link.forwards if link.up else None,
            }
            for link in links
        }  # fmt: skip
        found["addresses"] = sorted(f"{names[index]} {interface}" for index, interface in netlink.addresses())
        found["routes"] = sorted(str(route) for route in netlink.routes(every_table=True))
        found["fdb"] = sorted(
            f"{names[one.index]} {one.mac} {one.address} {one.master}"
            for one in netlink.fdb()
            if one.permanent and not one.mac.startswith(("01:00:5e", "33:33"))  # what links listen to, the kernel's own
        )
        found["neighbours"] = sorted(
            f"{names[one.index]} {one.mac} {one.address}" for one in netlink.neighbours()
            if one.permanent and one.address is not None and not one.address.is_multicast
        )  # fmt: skip
    node = cluster.nodes[number]
    found["rules"] = rules(node)
    found["sysctls"] = call(node, lambda: {name: sysctl(name) for name in SYSCTLS})
    limits = shell(node, "tc qdisc show; tc filter show dev vethweplgreenpo parent ffff: 2>/dev/null || true")
    found["limits"] = sorted(re.sub(r"(qdisc \S+ )\w+:|index \d+ ", r"\1", limits).splitlines())
    return found


def sysctl(name: str) -> str:
    path = Path("/proc/sys") / name
    return path.read_text().strip() if path.exists() else ""


def rules(space: Space) -> Any:
    try:
        listed = json.loads(shell(space, "nft -j list ruleset"))["nftables"]
    except ValueError:
        return "changed while nft read them"
    text = json.dumps([entry for entry in listed if "metainfo" not in entry])
    text = re.sub(r'"(handle|packets|bytes)": \d+', r'"\1": 0', text)
    found = json.loads(text)
    for entry in found:
        for one in entry.values():
            if "timeout" in one:
                one.pop("elem", None)  # packets put them there, and they end by themselves
            one.get("elem", []).sort(key=json.dumps)
    # A table that was written anew is the last one of the list; which stands first means nothing.
    return sorted(found, key=_table_of)


def _table_of(entry: dict[str, dict[str, Any]]) -> tuple[str, str]:
    (kind,) = entry
    return entry[kind]["family"], entry[kind]["name"] if kind == "table" else entry[kind]["table"]


def repairs(cluster: Cluster, number: int = 1) -> dict[str, int]:
    return {one["object"]: one["count"] for one in status(cluster, number)["repairs"]}


def status(cluster: Cluster, number: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.api(number, "/status")[1])
    return found


def post(cluster: Cluster, path: str, **body: str) -> tuple[int, dict[str, Any]]:
    code, text = cluster.api(1, path, json.dumps(body).encode())
    return code, json.loads(text)


def forget_fights(cluster: Cluster) -> None:
    """What a test has broken is not fought over in the next."""
    post(cluster, "/hold", object="everything", reason="between two tests")
    post(cluster, "/release", object="everything")


DAMAGE = {
    "nft-flush": ("nft flush ruleset", {"nft table weave", "nft table weave-guard"}),
    "guard-gone": ("nft delete table bridge weave-guard", {"nft table weave-guard"}),
    "guard-rule-added": ("nft insert rule bridge weave-guard prerouting accept", {"nft table weave-guard"}),
    "guard-elements": ("nft flush set bridge weave-guard sources", {"nft table weave-guard"}),
    "guard-members": ("nft flush set ip weave-guard members", {"nft table weave-guard"}),
    "nft-delete-chain": ("nft flush chain ip weave postrouting", {"nft table weave"}),
    "nft-rule-added": ("nft insert rule ip weave postrouting accept", {"nft table weave"}),
    "nft-dormant": ("nft 'add table ip weave { flags dormant; }'", {"nft table weave"}),
    "nft-elements": ("nft flush map ip weave ports", {"nft table weave"}),
    "ip-forward": ("echo 0 > /proc/sys/net/ipv4/ip_forward", {"sysctl net.ipv4.ip_forward"}),
    "route-localnet": (
        "echo 0 > /proc/sys/net/ipv4/conf/weave/route_localnet",
        {"sysctl net.ipv4.conf.weave.route_localnet"},
    ),
    "ipv6": ("echo 0 > /proc/sys/net/ipv6/conf/weave/disable_ipv6", {"sysctl net.ipv6.conf.weave.disable_ipv6"}),
    "bridge-down": ("ip link set weave down", {"link weave"}),
    "bridge-mtu": ("ip link set weave mtu 1200", {"link weave"}),
    "bridge-mac": ("ip link set weave address 02:00:00:00:00:99", {"link weave"}),
    "bridge-stp": ("ip link set weave type bridge stp_state 1", {"link weave"}),
    "bridge-vlans": ("ip link set weave type bridge vlan_filtering 1", {"link weave"}),
    "bridge-gone": ("ip link del weave", {"link weave", "link vxlan-6784", "address weave", f"port {PORT}"}),
    "bridge-renamed": ("ip link set weave down; ip link set weave name other", {"link weave"}),
    "overlay-renamed": ("ip link set vxlan-6784 down; ip link set vxlan-6784 name other", {"link vxlan-6784"}),
    "port-renamed": (f"ip link set {PORT} down; ip link set {PORT} name other", {f"port {PORT}"}),
    "address": ("ip addr flush dev weave", {"address weave"}),
    "overlay-gone": ("ip link del vxlan-6784", {"link vxlan-6784", "entries vxlan-6784"}),
    "overlay-down": ("ip link set vxlan-6784 down", {"link vxlan-6784"}),
    "overlay-mtu": ("ip link set vxlan-6784 mtu 1300", {"link vxlan-6784"}),
    "overlay-mac": ("ip link set vxlan-6784 address 02:00:00:00:00:97", {"link vxlan-6784"}),
    "overlay-out-of-the-bridge": ("ip link set vxlan-6784 nomaster", {"link vxlan-6784"}),
    "overlay-learns": ("ip link set vxlan-6784 type vxlan id 1 learning", {"link vxlan-6784"}),
    "overlay-local": ("ip link set vxlan-6784 type vxlan id 1 local 192.168.56.77", {"link vxlan-6784"}),
    "overlay-port-flags": (
        "bridge link set dev vxlan-6784 learning on neigh_suppress off flood off isolated on",
        {"link vxlan-6784"},
    ),
    "overlay-port-blocked": ("bridge link set dev vxlan-6784 state 0", {"link vxlan-6784"}),
    "forwarding-entries": (
        (
            "bridge fdb show dev vxlan-6784 | awk '/dst/ {print $1}' | sort -u | "
            "while read mac; do bridge fdb del $mac dev vxlan-6784 self; done"
        ),
        {"entries vxlan-6784"},
    ),
    "bridge-entries": (
        (
            "bridge fdb show dev vxlan-6784 | awk '/master weave/ && !/permanent/ {print $1}' | "
            "while read mac; do bridge fdb del $mac dev vxlan-6784 master; done"
        ),
        {"entries vxlan-6784"},
    ),
    "neighbours": ("ip neigh flush dev weave nud permanent", {"entries vxlan-6784"}),
    "neighbour-changed": (
        (
            "ip neigh show dev weave nud permanent | awk '$1 !~ /:/ {print $1; exit}' | "
            "while read one; do ip neigh replace $one lladdr 02:00:00:00:00:98 dev weave nud permanent; done"
        ),
        {"entries vxlan-6784"},
    ),
    "port-down": (f"ip link set {PORT} down", {f"port {PORT}"}),
    "port-out-of-the-bridge": (f"ip link set {PORT} nomaster", {f"port {PORT}"}),
    "port-mtu": (f"ip link set {PORT} mtu 900", {f"port {PORT}"}),
    "port-flags": (f"bridge link set dev {PORT} hairpin on isolated on", {f"port {PORT}"}),
    "port-learns": (f"bridge link set dev {PORT} learning on", {f"port {PORT}"}),
    "port-blocked": (f"bridge link set dev {PORT} state 0", {f"port {PORT}"}),
    "port-entry": (
        (
            f"bridge fdb show dev {PORT} | awk '/static/ {{print $1}}' | "
            f"while read mac; do bridge fdb del $mac dev {PORT} master; done"
        ),
        {f"port {PORT}"},
    ),
    "limit-root": ("tc qdisc del dev vethweplgreenpo root", {"limit vethweplgreenpo"}),
    "limit-ingress": ("tc qdisc del dev vethweplgreenpo ingress", {"limit vethweplgreenpo"}),
    "limit-ifb": ("ip link del ifbweplgreenpo", {"limit vethweplgreenpo"}),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_broken_is_as_it_was_and_nothing_else_is_touched(node: Cluster, what: str) -> None:
    command, names = DAMAGE[what]
    forget_fights(node)
    wait_for(lambda: not status(node)["problems"], "no problem beforehand")
    before, counted = state(node), repairs(node)
    done = run(node.nodes[1], ["sh", "-ec", command], timeout_s=20)
    if "not supported" in done.stderr:
        pytest.skip(f"this kernel has no such thing to break: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    wait_for(lambda: names <= repaired(node, counted), f"{names} repaired", deadline_s=8)
    wait_until_equal(lambda: differing(before, state(node)), [], what)
    assert status(node)["problems"] == []
    told = {repairs(node)[name] - counted.get(name, 0) for name in names}
    in_parts = ";" in command or "neigh flush" in command
    assert told == {1} or in_parts, "once; what is broken entry by entry may be mended in between"


def differing(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """What is another than before, with both; of lists only what the other has not."""
    found = []
    for key in before | after:
        was, now = before.get(key), after.get(key)
        if isinstance(was, list) and isinstance(now, list) and was != now:
            was, now = [one for one in was if one not in now], [one for one in now if one not in was]
        if was != now:
            found.append((key, was, now))
    return found


def repaired(cluster: Cluster, counted: dict[str, int]) -> set[str]:
    """What was mended since then."""
    return {name for name, count in repairs(cluster).items() if count > counted.get(name, 0)}


def test_the_log_says_what_was_wrong(node: Cluster) -> None:
    forget_fights(node)
    shell(node.nodes[1], "ip link set vxlan-6784 mtu 1280")
    wait_for(lambda: "mtu 1280 instead of 1450" in node.log(1), "a log line")
    lines = [json.loads(line) for line in node.log(1).splitlines() if "1280" in line]
    assert [(line["event"], line["object"]) for line in lines] == [("repaired", "link vxlan-6784")]


def test_what_the_agent_has_not_made_it_does_not_touch(node: Cluster) -> None:
    foreign = (
        "ip link add other type bridge; ip addr add 172.31.7.1/24 dev other; ip addr add 172.31.8.1/24 dev weave; "
        "nft 'add table ip theirs; add chain ip theirs c { type filter hook forward priority 5; policy accept; }'; "
        "bridge fdb add 02:00:00:00:aa:aa dev vxlan-6784 self dst 192.168.56.99"
    )
    undo = (
        "ip link del other; ip addr del 172.31.8.1/24 dev weave; nft delete table ip theirs; "
        "bridge fdb del 02:00:00:00:aa:aa dev vxlan-6784 self"
    )
    before = state(node)
    shell(node.nodes[1], foreign)
    with_foreign = state(node)
    forget_fights(node)
    counted = repairs(node)
    shell(node.nodes[1], "ip link set weave down; ip addr flush dev weave scope global to 10.32.0.0/12")
    wait_for(lambda: "address weave" in repaired(node, counted), "repaired", deadline_s=8)
    assert state(node) == with_foreign
    shell(node.nodes[1], undo)
    assert state(node) == before


def test_a_held_object_stays_broken_is_shown_and_hides_nothing_else(node: Cluster) -> None:
    forget_fights(node)
    before = state(node)
    code, answer = post(node, "/hold", object="link vxlan-6784", reason="exercise 3")
    assert (code, answer) == (200, {"held": ["link vxlan-6784"]})
    counted = repairs(node)
    shell(node.nodes[1], "ip link set vxlan-6784 down; nft flush ruleset")
    wait_for(lambda: "nft table weave" in repaired(node, counted), "the other damage is mended")
    wait_for(lambda: status(node)["problems"], "the held damage is told")
    (problem,) = status(node)["problems"]
    assert problem["object"] == "link vxlan-6784"
    assert problem["cause"] == "not up; held: exercise 3"
    assert 'weave release "link vxlan-6784"' in problem["advice"]
    assert [one["object"] for one in status(node)["held"]] == ["link vxlan-6784"]
    assert "link vxlan-6784" not in repaired(node, counted)
    text = text_status(node)
    assert text.startswith("        PROBLEM: link vxlan-6784: not up; held: exercise 3 (since ")
    assert post(node, "/release", object="link vxlan-6784") == (200, {"held": []})
    wait_for(lambda: not status(node)["problems"], "mended after its release")
    wait_for(lambda: state(node) == before, "as before")


def test_a_held_port_of_a_pod_is_shown_as_well(node: Cluster) -> None:
    forget_fights(node)
    assert post(node, "/hold", object=f"port {PORT}", reason="exercise 4")[0] == 200
    shell(node.nodes[1], f"ip link set {PORT} down")
    wait_for(lambda: [one["object"] for one in status(node)["problems"]] == [f"port {PORT}"], "the port is told")
    assert post(node, "/release", object=f"port {PORT}")[0] == 200
    wait_for(lambda: not status(node)["problems"], "mended after its release")


def text_status(cluster: Cluster) -> str:
    path = cluster.tmp / "d1" / "weave.sock"
    done = run(
        cluster.nodes[1],
        ["curl", "-s", "-H", "Accept: text/plain", "--unix-socket", str(path), "http://w/status"],
        timeout_s=10,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("body", "word"),
    [({"object": "link nope"}, "wanted an object of this node"), ({}, "wanted an object"), ({"object": "link", "reason": "x" * 300}, "200")],
)  # fmt: skip
def test_a_wrong_hold_is_refused_with_what_there_is(node: Cluster, body: dict[str, str], word: str) -> None:
    code, answer = post(node, "/hold", **body)
    assert code == 400
    assert word in answer["error"]
    assert answer["hint"]


def test_what_is_fought_over_is_mended_less_often_and_named(node: Cluster) -> None:
    forget_fights(node)

    def break_again() -> bool:
        shell(node.nodes[1], "echo 0 > /proc/sys/net/ipv4/ip_forward")
        return any("again and again" in one["cause"] for one in status(node)["problems"])

    wait_for(break_again, "shown as a problem", deadline_s=30)
    (problem,) = [one for one in status(node)["problems"] if one["object"] == "sysctl net.ipv4.ip_forward"]
    assert "find the program" in problem["advice"]
    forget_fights(node)
    wait_for(lambda: not status(node)["problems"], "whole, and no problem any more")


def test_a_pod_whose_end_is_down_is_a_problem_with_its_name(node: Cluster) -> None:
    pod = Space("redpod", node.tmp / "redpod", None, None)
    shell(pod, "ip link set eth0 down")
    wait_for(lambda: status(node)["problems"], "told")
    (problem,) = status(node)["problems"]
    assert problem["object"].startswith("pod redpod")
    assert problem["cause"] == "eth0 is down inside the pod"
    code, text = node.cni(1, "CHECK", pod)
    assert code == 400
    assert "eth0" in text
    shell(pod, "ip link set eth0 up; ip route add default via 10.32.0.1 || true")
    wait_for(lambda: not status(node)["problems"], "well again")


def test_an_agent_that_is_told_not_to_repair_only_tells(cluster: Cluster) -> None:
    cluster.start(1, repair=False)
    shell(cluster.nodes[1], "ip link del vxlan-6784; echo 0 > /proc/sys/net/ipv4/ip_forward")
    told = {"link vxlan-6784", "sysctl net.ipv4.ip_forward"}
    wait_for(lambda: {one["object"] for one in status(cluster)["problems"]} >= told, "told")
    assert status(cluster)["repairs"] == []
    assert "repair is false" in status(cluster)["problems"][0]["cause"]


GENTLE = ("nft-flush", "ip-forward", "route-localnet", "ipv6", "port-down", "port-mtu", "limit-root", "overlay-gone")
"""Damage that is not on the way between two pods of the node that it does not name."""


def test_traffic_between_untouched_pods_does_not_notice(node: Cluster) -> None:
    forget_fights(node)
    pod, address = node.add(1, "tealpod")
    _, target = node.add(1, "pinkpod")
    argv = ["ping", "-n", "-q", "-i", "0.01", "-c", "400", "-W", "2", target]
    with ThreadPoolExecutor(1) as threads:
        pinging = threads.submit(run, pod, argv, timeout_s=60)
        for what in GENTLE:
            counted = repairs(node)
            command, names = DAMAGE[what]
            shell(node.nodes[1], command)
            wait_for(lambda names=names, counted=counted: names <= repaired(node, counted), f"{names} repaired")
        said = pinging.result().stdout
    assert " 0% packet loss" in said, said
    assert address in node.held(1)
    for name in ("tealpod", "pinkpod"):
        assert node.cni(1, "DEL", Space(name, node.tmp / name, None, None)) == (200, "")


def test_an_add_that_comes_upon_a_broken_node_has_it_mended_first(node: Cluster) -> None:
    forget_fights(node)
    counted = repairs(node)
    agent = node.agents[1]
    agent.send_signal(signal.SIGSTOP)  # so that it hears of the damage and of the ADD in the same moment
    try:
        shell(node.nodes[1], "ip link del weave")
        pod = node.space("tanpod")
        with ThreadPoolExecutor(1) as threads:
            adding = threads.submit(node.cni, 1, "ADD", pod)
            agent.send_signal(signal.SIGCONT)
            code, text = adding.result()
    finally:
        agent.send_signal(signal.SIGCONT)
    assert code == 200, text
    assert "link weave" in repaired(node, counted)
    assert node.cni(1, "DEL", pod) == (200, "")


def test_random_damage_and_churn_converges(node: Cluster) -> None:
    """UPKEEP_ROUNDS makes it longer: 120 take some two minutes."""
    seed = int(os.environ.get("UPKEEP_SEED", random.SystemRandom().randrange(10_000)))
    chance = random.Random(seed)
    forget_fights(node)
    before = state(node)
    done = []
    with ExitStack() as stack:
        for number in range(int(os.environ.get("UPKEEP_ROUNDS", "12"))):
            names = chance.sample(sorted(DAMAGE), 2)
            done.append(names)
            for name in names:
                run(node.nodes[1], ["sh", "-c", DAMAGE[name][0]], timeout_s=20)
            pod = node.space(f"churn{number}x{seed}")
            code, text = node.cni(1, "ADD", pod)
            assert code == 200, (seed, done, text)
            stack.callback(node.cni, 1, "DEL", pod)
            forget_fights(node)
    wait_until_equal(lambda: state(node), before, f"UPKEEP_SEED={seed}: {done}")
    assert status(node)["problems"] == []


def wait_until_equal(read: Callable[[], Any], wanted: Any, what: str) -> None:
    """Wait, and show the difference when it does not come true."""
    with contextlib.suppress(AssertionError):
        wait_for(lambda: read() == wanted, what, deadline_s=15)
    assert read() == wanted, what
