"""ADD, DEL, CHECK, GC, STATUS and the start, with a kernel that does as it is told: every failure leaves nothing."""

import asyncio
import errno
import json
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plugin.agent.attachments import attachments as module
from plugin.agent.attachments import looking
from plugin.agent.attachments.attachments import NotReadyError
from plugin.agent.attachments.capabilities import recorded_ports
from plugin.agent.attachments.leases import SpaceNeededError
from plugin.agent.store import Record
from plugin.core.cni.bandwidth import Bandwidth, Limit
from plugin.core.cni.exemption import Exemption
from plugin.core.cni.ipam import IpamCall, IpamPlan
from plugin.core.cni.request import queue_name
from plugin.core.cni.types import (
    ALREADY_ATTACHED,
    ATTACH_FAILED,
    CHECK_FAILED,
    INVALID_CONFIG,
    INVALID_NETNS,
    IO_FAILURE,
    IPAM_FAILED,
    LIMITED_CONNECTIVITY,
    NO_ADDRESS,
    NOT_AVAILABLE,
    PORT_TAKEN,
    TRY_AGAIN_LATER,
    UNKNOWN_CONTAINER,
    UNSUPPORTED_FIELD,
    CniError,
)
from plugin.core.errors import MissingError
from plugin.core.ipam.council import Wish
from plugin.core.ipam.shares import Share
from plugin.link import netns, pods
from plugin.link.netlink import Link, NetlinkError
from tests.support.fake_node import (
    BRIDGE,
    CONF,
    FD,
    FIRST,
    GATEWAY,
    NETWORK,
    RESERVED,
    Agent,
    Kernel,
    fake_kernel,
    restarted,
)

NOTHING = (set(), set(), set())
RED = ({"red" * 4}, {FIRST}, {FIRST})


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return fake_kernel(monkeypatch)


@pytest.fixture
def agent(kernel: Kernel, tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path, kernel)
    yield made
    made.store.close()


def refused() -> NetlinkError:
    return NetlinkError(errno.EBUSY, "Device or resource busy")


def test_an_add_is_remembered_held_and_announced_and_a_del_takes_it_all_back(agent: Agent, kernel: Kernel) -> None:
    result = json.loads(agent.call("ADD"))
    assert result["ips"] == [{"address": f"{FIRST}/29", "gateway": str(GATEWAY), "interface": 2}]
    assert (agent.state, kernel.links) == (RED, {"vethweplredredr": FIRST})
    for _ in range(2):
        assert agent.call("DEL", fd=None) == ""
        assert (agent.state, kernel.links) == (NOTHING, {})


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (pods.AttachError("the kernel refused: no"), ATTACH_FAILED),
        (pods.AlreadyAttachedError("eth0 is there"), ALREADY_ATTACHED),
        (MissingError("sysctl could not be set", hint="root"), ATTACH_FAILED),
    ],
)
def test_an_add_that_the_kernel_refuses_leaves_nothing(
    agent: Agent, kernel: Kernel, refusal: Exception, code: int
) -> None:
    kernel.refusal = refusal
    assert agent.fails("ADD").code == code
    assert agent.state == NOTHING
    kernel.refusal = None
    agent.call("ADD")


def test_an_add_that_fails_unexpectedly_leaves_nothing_either(agent: Agent, kernel: Kernel) -> None:
    kernel.refusal = ZeroDivisionError("a defect")
    with pytest.raises(ZeroDivisionError):
        agent.call("ADD")
    assert agent.state == NOTHING


@pytest.mark.parametrize("writes", [0, 1])
def test_a_disk_that_fails_at_the_first_or_second_line_leaves_nothing(
    agent: Agent, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    real, left = agent.store.put, [writes]

    def put(record: Record) -> None:
        if not left[0]:
            raise MissingError("the agent's state cannot be written: No space left on device", hint="")
        left[0] -= 1
        real(record)

    monkeypatch.setattr(agent.store, "put", put)
    assert agent.fails("ADD").code == IO_FAILURE
    assert (agent.state, kernel.links) == (NOTHING, {})


def test_a_pod_is_admitted_with_what_it_is_and_forgotten_when_it_goes(agent: Agent, kernel: Kernel) -> None:
    agent.call("ADD")
    name = "vethweplredredr"
    assert agent.guard.admitted == {name: (pods.mac_for(FIRST), (FIRST,), None)}
    assert kernel.locked == {name: True}
    agent.call("DEL", fd=None)
    assert agent.guard.admitted == {}


def test_an_exemption_is_remembered_and_its_port_is_not_locked(agent: Agent, kernel: Kernel, tmp_path: Path) -> None:
    agent.call("ADD", guard={"macs": "any"})
    name = "vethweplredredr"
    assert agent.guard.admitted[name][2] == Exemption(any_mac=True)
    assert kernel.locked == {name: False}
    (record,) = restarted(agent, tmp_path).store.pods.values()
    assert record.guard == Exemption(any_mac=True)


@pytest.mark.parametrize(
    "refusal", [NetlinkError(errno.ENOSPC, "No space left on device"), MissingError("no nft", hint="")]
)
def test_a_pod_that_cannot_be_guarded_is_not_attached(agent: Agent, kernel: Kernel, refusal: Exception) -> None:
    def attach(*arguments: Any, admit: Callable[[Link], None]) -> Link:
        try:
            return real(*arguments, admit=admit)
        except OSError as error:  # as plugin/link/pods.py does
            raise pods.AttachError("the kernel refused") from error

    real, module.pods.attach = module.pods.attach, attach
    agent.guard.refusal = refusal
    assert agent.fails("ADD").code == ATTACH_FAILED
    assert (agent.state, kernel.links, agent.guard.admitted) == (NOTHING, {}, {})


@pytest.mark.parametrize("guard", [{"macs": [BRIDGE.mac]}, {"addresses": [str(GATEWAY)]}], ids=["MAC", "address"])
def test_nobody_is_exempted_from_not_being_the_gateway(agent: Agent, guard: dict[str, object]) -> None:
    assert agent.fails("ADD", guard=guard).code == INVALID_CONFIG
    assert agent.state == NOTHING


def test_a_pod_without_a_record_keeps_what_it_was_exempted_from(agent: Agent, kernel: Kernel, tmp_path: Path) -> None:
    kernel.links["vethwepllost"] = FIRST
    agent.store.close()
    again = Agent(tmp_path, kernel)
    agent.store = again.store
    again.guard.exemption = Exemption(promiscuous=True)
    asyncio.run(again.attachments.reconcile())
    (record,) = again.store.pods.values()
    assert (record.host_ifname, record.guard) == ("vethwepllost", Exemption(promiscuous=True))


def test_a_second_add_is_100_and_after_a_lost_connection_starts_anew(agent: Agent) -> None:
    agent.call("ADD")
    assert agent.fails("ADD").code == ALREADY_ATTACHED
    assert json.loads(agent.call("ADD", again=True))["ips"]
    assert len(agent.state[0]) == 1


@pytest.mark.parametrize(
    ("conf", "code"),
    [
        ({"mtu": 1451}, INVALID_CONFIG),
        ({"runtimeConfig": {"ips": ["10.9.0.1"]}}, NO_ADDRESS),
        ({"runtimeConfig": {"ips": ["10.9.0.7"]}}, NO_ADDRESS),
        ({"runtimeConfig": {"ips": ["192.0.2.1"]}}, NO_ADDRESS),
    ],
    ids=["mtu", "the gateway's", "the broadcast address", "outside"],
)
def test_a_wish_that_cannot_be_granted_is_named(agent: Agent, conf: dict[str, object], code: int) -> None:
    assert agent.fails("ADD", **conf).code == code
    assert agent.state == NOTHING


def test_a_namespace_that_is_none_is_refused(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    assert agent.fails("ADD", fd=None).code == INVALID_NETNS
    monkeypatch.setattr(netns, "same_namespace", lambda _one, _other: True)
    assert "own network namespace" in agent.fails("ADD").message
    assert agent.state == NOTHING


def test_a_del_that_the_kernel_refuses_succeeds_and_is_finished_later(agent: Agent, kernel: Kernel) -> None:
    agent.call("ADD")
    kernel.refusal = refused()
    assert agent.call("DEL") == ""
    asyncio.run(agent.attachments.retry())
    assert agent.state == ({"red" * 4}, {FIRST}, set()), "not announced any more, and not given away either"
    kernel.refusal = None
    asyncio.run(agent.attachments.retry())
    assert (agent.state, kernel.links) == (NOTHING, {})


def test_gc_removes_what_is_not_listed_and_nothing_without_a_list(agent: Agent, kernel: Kernel) -> None:
    for name in ("red", "blue"):
        agent.call("ADD", name)
    agent.call("GC")
    agent.call("GC", name="other", **{"cni.dev/valid-attachments": [{"containerID": "red" * 4, "ifname": "eth0"}]})
    assert set(kernel.links) == {"vethweplredredr"}


def test_status_is_51_when_every_address_is_held(agent: Agent) -> None:
    for name in ("p1", "p2", "p3", "p4"):
        agent.call("ADD", name)
    assert agent.call("STATUS") == ""
    agent.call("ADD", "p5")
    assert agent.fails("STATUS").code == LIMITED_CONNECTIVITY == 51
    assert agent.fails("ADD", "p6").code == NO_ADDRESS == 101


def test_check_of_a_pod_that_is_not_here_is_3(agent: Agent) -> None:
    previous = json.loads(agent.call("ADD", "blue"))
    assert agent.fails("CHECK", "red", prevResult=previous).code == UNKNOWN_CONTAINER


def test_a_start_keeps_the_living_and_frees_the_gone(agent: Agent, kernel: Kernel, tmp_path: Path) -> None:
    agent.call("ADD")
    agent.call("ADD", "blue")
    del kernel.links["vethweplblueblu"]
    kernel.ended = True
    again = restarted(agent, tmp_path)
    assert again.state == RED
    assert again.call("DEL") == ""
    assert kernel.links == {}


def test_a_link_without_a_record_keeps_its_address_and_one_without_an_address_goes(
    agent: Agent, kernel: Kernel, tmp_path: Path
) -> None:
    kernel.links = {"vethweplredredr": FIRST, "vethweplodd": None}
    again = restarted(agent, tmp_path)
    assert kernel.links == {"vethweplredredr": FIRST}
    assert again.state[1:] == ({FIRST}, {FIRST})
    assert again.call("DEL") == "", "its DEL finds it by the name of its link"
    assert (again.state, kernel.links) == (NOTHING, {})


def test_a_pod_that_holds_the_bridges_address_is_never_announced_with_it(
    agent: Agent, kernel: Kernel, tmp_path: Path
) -> None:
    kernel.links = {"vethweplredredr": GATEWAY}
    again = restarted(agent, tmp_path)
    assert GATEWAY not in again.node.located(), "the bridge has it; a second owner would draw its traffic away"


def test_the_queue_is_worked_off_and_what_is_no_call_is_set_aside(agent: Agent, tmp_path: Path) -> None:
    agent.call("ADD")
    queue = tmp_path / "queue"
    assert asyncio.run(agent.attachments.drain_queue()) == 0, "no directory, no queue"
    queue.mkdir()
    fields = ["DEL", "red" * 4, "", "eth0", "", "/opt/cni/bin"]
    (queue / "2").write_bytes("\0".join([*fields, json.dumps(CONF)]).encode())
    (queue / "1").write_bytes(b"rubbish")
    (queue / ".half").write_bytes(b"DEL")
    assert asyncio.run(agent.attachments.drain_queue()) == 1
    assert sorted(path.name for path in queue.iterdir()) == [".half", ".refused-1"], "kept, and not tried again"
    assert asyncio.run(agent.attachments.drain_queue()) == 0
    assert agent.state == NOTHING


@pytest.mark.parametrize(
    ("conf", "named"),
    [
        ({"bridge": "cni0"}, "cni0"),
        ({"runtimeConfig": {"ips": [f"10.9.0.{number}" for number in range(2, 20)]}}, "more than 16 addresses"),
    ],
    ids=["another bridge", "too many addresses"],
)
def test_what_this_node_cannot_do_is_refused_and_never_passed_over(
    agent: Agent, kernel: Kernel, conf: dict[str, Any], named: str
) -> None:
    error = agent.fails("ADD", **conf)
    assert error.code == UNSUPPORTED_FIELD
    assert named in error.message
    assert (agent.state, kernel.links) == (NOTHING, {})


def test_naming_what_is_there_anyway_is_no_error(agent: Agent) -> None:
    agent.call("ADD", bridge=BRIDGE.name, ipam={"subnet": str(NETWORK)})
    assert agent.state == RED


@pytest.mark.parametrize("subnet", ["10.8.0.0/29", "10.9.0.0/31", "10.0.0.0/8"], ids=["outside", "tiny", "larger"])
def test_a_subnet_that_is_no_part_of_the_range_is_refused(agent: Agent, subnet: str) -> None:
    error = agent.fails("ADD", ipam={"subnet": subnet})
    assert error.code == INVALID_CONFIG
    assert subnet in error.message
    assert agent.state == NOTHING


def test_a_pod_of_a_subnet_gets_an_address_of_it_and_the_prefix_of_the_range(agent: Agent) -> None:
    result = json.loads(agent.call("ADD", ipam={"subnet": "10.9.0.4/30"}))
    assert result["ips"][0]["address"] == "10.9.0.5/29", "neither the first nor the last of the subnet"


def test_what_is_missing_here_becomes_a_wish_that_others_can_fulfil(agent: Agent, kernel: Kernel) -> None:
    agent.allocator.own([Share(GATEWAY, FIRST)])
    agent.call("ADD", "blue")
    for conf, wish in [
        ({}, Wish()),
        ({"ipam": {"subnet": "10.9.0.4/30"}}, Wish(within=IPv4Network("10.9.0.4/30"))),
        ({"runtimeConfig": {"ips": ["10.9.0.5"]}}, Wish(exact=IPv4Address("10.9.0.5"))),
    ]:
        error = agent.fails("ADD", **conf)
        assert isinstance(error, SpaceNeededError)
        assert (error.wish, error.code) == (wish, NO_ADDRESS)
    assert agent.state[0] == {"blue" * 4}
    assert len(kernel.links) == 1


@pytest.mark.parametrize("address", ["10.9.0.1", "192.0.2.1"], ids=["held here", "outside the range"])
def test_what_nobody_else_can_give_is_no_wish(agent: Agent, address: str) -> None:
    assert not isinstance(agent.fails("ADD", runtimeConfig={"ips": [address]}), SpaceNeededError)


def test_without_an_address_of_the_switch_add_says_try_again_status_50_and_del_works(agent: Agent) -> None:
    agent.call("ADD", "blue")
    agent.gateway = None
    error = agent.fails("ADD")
    assert isinstance(error, NotReadyError)
    assert error.code == TRY_AGAIN_LATER == 11
    error = agent.fails("STATUS")
    assert not isinstance(error, NotReadyError), "it is not waited for"
    assert error.code == NOT_AVAILABLE == 50
    assert agent.call("DEL", "blue") == ""
    assert agent.state == NOTHING


def test_status_is_content_while_others_have_addresses(agent: Agent) -> None:
    agent.allocator.own([Share(GATEWAY, GATEWAY)])
    assert agent.fails("STATUS").code == LIMITED_CONNECTIVITY
    agent.others_have = True
    assert agent.call("STATUS") == ""


def test_a_living_pod_keeps_an_address_that_the_ring_does_not_give_this_node(
    agent: Agent, kernel: Kernel, tmp_path: Path
) -> None:
    agent.call("ADD")
    agent.store.close()
    again = Agent(tmp_path, agent.kernel)
    agent.store = again.store
    again.allocator.own([])
    asyncio.run(again.attachments.reconcile())
    assert (again.state, kernel.links) == (RED, {"vethweplredredr": FIRST})
    assert FIRST in again.allocator.strangers.values()


# ---- what a pod asks for beside its interface

WEB = {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}
LIMITED = {"bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 2**32 - 1}}


def test_ports_and_limits_are_granted_remembered_and_withdrawn(agent: Agent) -> None:
    agent.call("ADD", runtimeConfig=WEB | LIMITED)
    (record,) = agent.attachments.records.values()
    assert [str(mapping) for mapping in record.ports] == ["0.0.0.0:8080->80/tcp"]
    assert record.bandwidth == Bandwidth(Limit(1_000_000, 11_712))
    assert set(agent.capabilities.given) == {"red" * 4}
    agent.call("DEL")
    assert (agent.state, agent.capabilities.given) == (NOTHING, {})


@pytest.mark.parametrize("conf", [{}, {"runtimeConfig": {"portMappings": [], "bandwidth": {}}}], ids=["no", "empty"])
def test_a_pod_that_asks_for_nothing_has_nothing_of_it_in_its_record(agent: Agent, conf: dict[str, Any]) -> None:
    agent.call("ADD", **conf)
    (record,) = agent.attachments.records.values()
    assert (record.ports, record.bandwidth) == ((), None)
    assert agent.capabilities.given == {}


@pytest.mark.parametrize("refusal", [CniError(ATTACH_FAILED, "the kernel refused: no"), ZeroDivisionError("a bug")])
def test_a_grant_that_fails_half_way_leaves_nothing(agent: Agent, kernel: Kernel, refusal: Exception) -> None:
    agent.capabilities.refusal = refusal
    with pytest.raises(type(refusal)):
        agent.call("ADD", runtimeConfig=WEB | LIMITED)
    assert (agent.state, kernel.links, agent.capabilities.given) == (NOTHING, {}, {})


def test_a_host_port_is_given_once_and_again_after_the_del(agent: Agent, kernel: Kernel) -> None:
    agent.call("ADD", "red", runtimeConfig=WEB)
    error = agent.fails("ADD", "blue", runtimeConfig=WEB)
    assert error.code == PORT_TAKEN
    assert error.message == (
        "host port 0.0.0.0:8080/tcp is taken on this node by pod redredredred (0.0.0.0:8080->80/tcp)"
    )
    assert (agent.state, list(kernel.links)) == (RED, ["vethweplredredr"])
    agent.call("DEL", "red")
    agent.call("ADD", "blue", runtimeConfig=WEB)


def test_a_port_of_a_pod_whose_del_is_not_finished_stays_taken(agent: Agent) -> None:
    agent.call("ADD", "red", runtimeConfig=WEB)
    agent.capabilities.refusal = refused()
    assert agent.call("DEL", "red") == ""
    assert agent.fails("ADD", "blue", runtimeConfig=WEB).code == PORT_TAKEN
    asyncio.run(agent.attachments.retry())
    assert agent.capabilities.given == {}
    agent.call("ADD", "blue", runtimeConfig=WEB)


def test_the_agents_own_ports_are_taken(agent: Agent) -> None:
    port = {"hostPort": RESERVED.host_port, "containerPort": 1, "protocol": "udp", "hostIP": "192.168.56.11"}
    error = agent.fails("ADD", runtimeConfig={"portMappings": [port]})
    assert error.code == PORT_TAKEN
    assert "by the agent" in error.message
    assert agent.state == NOTHING


def test_a_check_tells_what_was_lost(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    result = json.loads(agent.call("ADD", runtimeConfig=WEB))
    monkeypatch.setattr(module.pods, "observe", lambda *_a, **_k: None)
    monkeypatch.setattr(looking, "dataclasses", SimpleNamespace(replace=lambda _found, **_changes: None))
    monkeypatch.setattr(looking, "check_differences", lambda _request, _found: [])
    assert agent.call("CHECK", prevResult=result) == ""
    agent.capabilities.lost = ["host port 0.0.0.0:8080->80/tcp does not lead to the pod"]
    error = agent.fails("CHECK", prevResult=result)
    assert error.code == CHECK_FAILED
    assert "0.0.0.0:8080->80/tcp" in error.message


def test_what_a_pod_had_that_ended_while_no_agent_ran_is_free_again(
    agent: Agent, kernel: Kernel, tmp_path: Path
) -> None:
    agent.call("ADD", "red", runtimeConfig=WEB)
    kernel.links.clear()
    kernel.ended = True
    again = restarted(agent, tmp_path)
    again.call("ADD", "blue", runtimeConfig=WEB)


def test_ports_of_living_pods_stay_taken_after_a_restart(agent: Agent, tmp_path: Path) -> None:
    agent.call("ADD", "red", runtimeConfig=WEB)
    again = restarted(agent, tmp_path)
    assert again.fails("ADD", "blue", runtimeConfig=WEB).code == PORT_TAKEN


def test_only_ports_of_complete_pods_are_written_at_the_start() -> None:
    fields: dict[str, Any] = {"network": "weave", "ifname": "eth0", "mac": "", "host_ifname": "", "ports": (RESERVED,)}
    half = Record(container_id="half", address="10.9.0.2", **fields)
    whole = Record(container_id="whole", address="10.9.0.3", state="added", **fields)
    records = {record.attachment: record for record in (half, whole)}
    assert recorded_ports(records) == [(IPv4Address("10.9.0.3"), RESERVED)]


def test_an_add_whose_caller_is_gone_is_not_carried_out(agent: Agent, kernel: Kernel) -> None:
    body = "\0".join(["ADD", "red" * 4, "/run/netns/red", "eth0", "", "/opt/cni/bin", json.dumps(CONF)]).encode()
    with pytest.raises(CniError) as raised:
        asyncio.run(agent.attachments.handle(body, FD, gone=lambda: True))
    assert raised.value.code == TRY_AGAIN_LATER
    assert (agent.state, kernel.links) == (NOTHING, {})
    asyncio.run(agent.attachments.handle(body, FD))
    asyncio.run(agent.attachments.handle(body.replace(b"ADD", b"DEL", 1), None, gone=lambda: True))
    assert (agent.state, kernel.links) == (NOTHING, {}), "a DEL is wanted whoever asked for it"


def test_a_kept_del_is_carried_out_before_a_new_add_of_the_same(agent: Agent, kernel: Kernel, tmp_path: Path) -> None:
    agent.call("ADD")
    (tmp_path / "queue").mkdir()
    body = "\0".join(["DEL", "red" * 4, "", "eth0", "", "/opt/cni/bin", json.dumps(CONF)]).encode()
    kept = tmp_path / "queue" / queue_name("weave", "red" * 4, "eth0")
    kept.write_bytes(body)
    result = json.loads(agent.call("ADD"))
    assert not kept.exists()
    assert result["ips"][0]["address"] != f"{FIRST}/29", "that one rests"
    assert asyncio.run(agent.attachments.drain_queue()) == 0
    assert len(kernel.links) == 1


# ---- another IPAM plugin

FAKE = {"ipam": {"type": "fake"}}
PRINTED = json.dumps({"ips": [{"address": f"{FIRST}/30", "gateway": "10.9.0.6"}]}).encode()
HALF = ({"red" * 4}, set(), set())
ADD, DEL = IpamPlan((IpamCall("fake", "ADD"),)), IpamPlan((IpamCall("fake", "DEL"),))


def test_an_add_in_two_halves_holds_nothing_before_the_plugin_has_answered(agent: Agent, kernel: Kernel) -> None:
    assert agent.call("ADD", **FAKE) == ADD
    assert (agent.state, kernel.links) == (HALF, {"vethweplredredr": None})
    result = json.loads(agent.call("ADD", printed=PRINTED, **FAKE))
    assert result["ips"] == [{"address": f"{FIRST}/30", "gateway": "10.9.0.6", "interface": 2}]
    assert (agent.state, agent.served) == (RED, [IPv4Address("10.9.0.6")])
    assert agent.fails("ADD", **FAKE).code == agent.fails("ADD", printed=PRINTED, **FAKE).code == ALREADY_ATTACHED
    assert agent.call("DEL", fd=None, **FAKE) == DEL
    assert (agent.state, kernel.links) == (NOTHING, {})


def test_half_an_add_is_removed_by_del_and_by_a_start(agent: Agent, kernel: Kernel, tmp_path: Path) -> None:
    agent.call("ADD", **FAKE)
    assert agent.call("DEL", fd=None, **FAKE) == DEL
    assert (agent.state, kernel.links) == (NOTHING, {})
    agent.call("ADD", **FAKE)
    again = restarted(agent, tmp_path)
    assert (again.state, kernel.links) == (NOTHING, {})
    assert json.loads(again.call("ADD", printed=PRINTED, **FAKE))["ips"], "the second half makes the first one too"
    assert again.state == RED


@pytest.mark.parametrize("printed", [b"", json.dumps({"ips": [{"address": "10.8.0.1/24"}]}).encode()])
def test_a_second_half_that_is_refused_holds_nothing(agent: Agent, printed: bytes) -> None:
    agent.call("ADD", **FAKE)
    assert agent.fails("ADD", printed=printed, **FAKE).code in {IPAM_FAILED, NO_ADDRESS}
    assert agent.state == HALF
    agent.call("DEL", fd=None, **FAKE)
    assert agent.state == NOTHING


def test_a_second_half_that_the_kernel_refuses_leaves_nothing(agent: Agent, kernel: Kernel) -> None:
    agent.call("ADD", **FAKE)
    kernel.refusal = pods.AttachError("the kernel refused: no")
    with pytest.raises(pods.AttachError):  # the fake kernel refuses to remove the link as well
        agent.call("ADD", printed=PRINTED, **FAKE)
    assert agent.state == NOTHING


def test_an_address_goes_back_by_the_record_and_else_by_the_configuration(agent: Agent) -> None:
    agent.call("ADD", **FAKE)
    agent.call("ADD", printed=PRINTED, **FAKE)
    assert agent.call("DEL", fd=None) == IpamPlan((IpamCall("fake", "DEL", None, {"type": "fake"}),))
    assert agent.call("DEL", fd=None) == "", "the configuration names nobody"
    agent.call("ADD")
    assert agent.call("DEL", fd=None, **FAKE) == "", "the agent itself gave that one"
    assert agent.call("DEL", fd=None, **FAKE) == DEL, "nobody knows"


def test_gc_gives_back_each_that_it_removes_and_status_asks_only_the_plugin(agent: Agent) -> None:
    agent.call("ADD", **FAKE)
    agent.call("ADD", printed=PRINTED, **FAKE)
    collect = IpamCall("fake", "GC")
    assert agent.call("GC", **FAKE) == IpamPlan((collect,))
    removed = IpamCall("fake", "DEL", ("red" * 4, "eth0"), {"type": "fake"})
    assert agent.call("GC", **FAKE, **{"cni.dev/valid-attachments": []}) == IpamPlan((removed, collect))
    agent.allocator.own([Share(GATEWAY, GATEWAY)])
    assert agent.call("STATUS", **FAKE) == IpamPlan((IpamCall("fake", "STATUS"),))


def test_several_addresses_are_held_announced_and_freed_together(agent: Agent, kernel: Kernel, tmp_path: Path) -> None:
    two = {"runtimeConfig": {"ips": [str(FIRST), str(FIRST + 2)]}}
    both = {FIRST, FIRST + 2}
    agent.call("ADD", **two)
    assert agent.state[1:] == (both, both)
    assert agent.fails("ADD", "blue", runtimeConfig={"ips": [str(FIRST + 1), str(FIRST + 2)]}).code == NO_ADDRESS
    assert agent.state[1:] == (both, both), "the first of the two was given back"
    again = restarted(agent, tmp_path)
    assert again.state[1:] == (both, both)
    again.call("DEL", fd=None)
    assert again.state == NOTHING
