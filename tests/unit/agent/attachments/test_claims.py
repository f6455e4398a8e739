"""A pod's MAC and addresses are its alone: what is refused and in whose name, what a loser is told, what ends silently."""

import asyncio
import json
import logging
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from plugin.core.cni.types import CHECK_FAILED, INVALID_CONFIG, NO_ADDRESS, PORT_TAKEN
from plugin.core.forwarding.endpoints import Table
from plugin.core.membership.switches import bridge_mac
from plugin.core.messages.values import Endpoint, Member
from plugin.link import pods
from tests.support.fake_node import FIRST, Agent, Kernel, fake_kernel, restarted

TWO = IPv4Address("192.168.56.12")
SECOND, THIRD, FOURTH = FIRST + 1, FIRST + 2, FIRST + 3
MAC = "02:aa:00:00:00:05"
LINK = "vethweplredredr"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return fake_kernel(monkeypatch)


@pytest.fixture
def agent(kernel: Kernel, tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path, kernel)
    made.node.members.learn(Member("node2", "2" * 16, TWO, 1))
    yield made
    made.store.close()


def mac(value: str) -> dict[str, object]:
    return {"runtimeConfig": {"mac": value}}


def tell(agent: Agent, version: int, *endpoints: Endpoint) -> None:
    """Node2 tells its table."""
    agent.node.directory.replace(TWO, Table(1, version, frozenset(endpoints)))
    agent.attachments.review_claims()


# --- what is refused -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("asked", "holder"),
    [
        (MAC, "pod shop/blue of node2"),
        (bridge_mac("c", "node2"), "the switch of node2"),
        (bridge_mac("c", "n"), "the switch of n"),
        ("02:00:00:00:00:09", "the interface vethwepl of n"),
        (pods.mac_for(FIRST), "pod greengreengr of n"),
        ("0a:5a:0a:09:00:02", "the switch's own"),
    ],
    ids=["pod elsewhere", "switch elsewhere", "own switch", "own port", "pod here", "mark"],
)
def test_a_mac_that_somebody_has_is_refused_by_the_holders_name(agent: Agent, asked: str, holder: str) -> None:
    agent.call("ADD", "green")
    tell(agent, 1, Endpoint(FOURTH, MAC, 1, "shop/blue"))
    before = agent.state
    error = agent.fails("ADD", **mac(asked))
    assert (error.code, holder in error.message) == (INVALID_CONFIG, True), error.message
    assert agent.state == before


def test_an_address_of_another_nodes_pod_is_refused_by_its_name(agent: Agent) -> None:
    tell(agent, 1, Endpoint(FOURTH, MAC, 1, "shop/blue"))
    error = agent.fails("ADD", runtimeConfig={"ips": [str(FOURTH)]})
    assert (error.code, error.message) == (NO_ADDRESS, f"{FOURTH} is taken by pod shop/blue of node2")


def test_an_address_that_another_plugin_gives_is_refused_likewise(agent: Agent) -> None:
    tell(agent, 1, Endpoint(FOURTH, MAC, 1, "shop/blue"))
    ipam = {"ipam": {"type": "host-local"}}
    agent.call("ADD", **ipam)
    printed = json.dumps({"cniVersion": "1.1.0", "ips": [{"address": f"{FOURTH}/29"}]}).encode()
    error = agent.fails("ADD", printed=printed, **ipam)
    assert error.code == NO_ADDRESS
    assert f"the IPAM plugin host-local gave {FOURTH}: it is taken by pod shop/blue of node2" in error.message


def test_a_pod_that_asks_for_no_mac_never_gets_one_that_somebody_asked_for(agent: Agent) -> None:
    tell(agent, 1, Endpoint(FOURTH, pods.mac_for(FIRST), 1, "shop/thief"))
    result = json.loads(agent.call("ADD"))
    assert result["interfaces"][2]["mac"] == pods.mac_for_attachment(("weave", "red" * 4, "eth0"))


def test_a_mac_that_is_taken_between_the_two_halves_of_an_add_is_refused_in_the_second(agent: Agent) -> None:
    conf = {"ipam": {"type": "host-local"}} | mac(MAC)
    agent.call("ADD", **conf)
    tell(agent, 1, Endpoint(FOURTH, MAC, 1, "shop/blue"))
    printed = json.dumps({"cniVersion": "1.1.0", "ips": [{"address": f"{FIRST}/29"}]}).encode()
    assert "shop/blue" in agent.fails("ADD", printed=printed, **conf).message


# --- two at the same moment ------------------------------------------------------------------------------------------
def test_the_loser_is_off_the_network_and_told_until_the_winner_goes(
    agent: Agent, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    result = json.loads(agent.call("ADD", **mac(MAC)))
    tell(agent, 1, Endpoint(FOURTH, MAC, 99, "shop/blue"))
    (problem,) = agent.ledger.problems()
    assert (problem.name, kernel.off) == ("claim redredredred", {LINK})
    assert problem.cause == f"its MAC {MAC} is that of pod shop/blue of node2 as well, which has it everywhere"
    assert "delete one of the two" in problem.advice
    error = agent.fails("CHECK", prevResult=result, **mac(MAC))
    assert (error.code, problem.cause in error.details) == (CHECK_FAILED, True)
    tell(agent, 2, Endpoint(FOURTH, MAC, 99, "shop/blue"), Endpoint(THIRD, "02:aa:00:00:00:06", 100))
    logged = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert logged == ["pod displaced"], "once"
    tell(agent, 3)
    assert (agent.ledger.problems(), kernel.off) == ((), set())


def test_a_loser_that_is_deleted_is_no_trouble_any_more(agent: Agent, kernel: Kernel) -> None:
    agent.call("ADD", **mac(MAC))
    tell(agent, 1, Endpoint(FOURTH, MAC, 99, "shop/blue"))
    agent.call("DEL")
    agent.attachments.review_claims()
    assert (agent.ledger.problems(), kernel.links) == ((), {})


def test_a_claim_is_as_old_after_a_restart_as_before(agent: Agent, tmp_path: Path) -> None:
    tell(agent, 1, Endpoint(FOURTH, MAC, 40, "shop/blue"))
    agent.call("ADD")
    again = restarted(agent, tmp_path)
    assert [endpoint.stamp for endpoint in again.node.directory.own.endpoints] == [41]


def test_a_port_that_an_earlier_agent_has_taken_off_comes_back_when_nothing_is_wrong(
    agent: Agent, kernel: Kernel, tmp_path: Path
) -> None:
    agent.call("ADD")
    kernel.off = {LINK}
    restarted(agent, tmp_path).attachments.review_claims()
    assert kernel.off == set()


# --- ends that nobody announces --------------------------------------------------------------------------------------
PORT = {"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]}}


def gone(agent: Agent, *names: str) -> None:
    """The kernel says that links are gone; what follows from it is done."""

    async def hear() -> None:
        agent.kernel.heard = [*names]
        agent.attachments.removals.on_departures()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    for name in names:
        agent.kernel.links.pop(name, None)
    asyncio.run(hear())


def test_a_pod_whose_namespace_is_gone_is_given_back_at_once(
    agent: Agent, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    agent.call("ADD", **PORT)
    kernel.ended = True
    gone(agent, LINK)
    assert agent.state == (set(), set(), set())
    assert (agent.capabilities.given, agent.attachments.vanished) == ({}, 1)
    (told,) = [record for record in caplog.records if record.getMessage() == "pod ended without DEL"]
    assert (told.pod, told.address, told.interface) == ("redredredred", str(FIRST), LINK)
    assert agent.call("DEL", fd=None) == "", "a DEL that comes later finds nothing, and succeeds"
    assert kernel.links == {}


def test_a_link_that_was_deleted_while_its_namespace_lives_is_damage_and_frees_nothing(
    agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    agent.call("ADD", **PORT)
    before = agent.state
    gone(agent, LINK)
    assert (agent.state, agent.attachments.vanished) == (before, 0)
    asyncio.run(agent.attachments.retry())
    assert [record.getMessage() for record in caplog.records] == ["pod attached", "pod lost its interface"], "once"
    assert agent.call("DEL") == ""
    assert agent.state == (set(), set(), set())


def test_what_was_not_heard_of_is_found_by_looking(agent: Agent, kernel: Kernel) -> None:
    agent.call("ADD")
    kernel.links.clear()
    kernel.ended = True
    assert asyncio.run(agent.attachments.retry()) is True
    assert agent.state == (set(), set(), set())
    assert asyncio.run(agent.attachments.retry()) is False


def test_word_of_an_earlier_link_of_the_same_name_means_nothing(agent: Agent) -> None:
    agent.call("ADD")
    agent.kernel.heard = [LINK]
    asyncio.run(hearing(agent))
    assert agent.attachments.vanished == 0


async def hearing(agent: Agent) -> None:
    agent.attachments.removals.on_departures()


@pytest.mark.parametrize(
    "asked", [PORT, mac(MAC), {"runtimeConfig": {"ips": [str(FIRST)]}}], ids=["port", "mac", "address"]
)
def test_a_replacement_gets_what_a_pod_had_that_ended_a_moment_ago(
    agent: Agent, kernel: Kernel, asked: dict[str, object]
) -> None:
    agent.call("ADD", **asked)
    kernel.links.clear()
    kernel.ended = True  # and nobody has said so yet
    agent.call("ADD", "blue", **asked)
    assert agent.state[0] == {"blue" * 4}


def test_a_replacement_of_a_pod_that_lives_is_refused_as_ever(agent: Agent, kernel: Kernel) -> None:
    agent.call("ADD", **PORT)
    assert agent.fails("ADD", "blue", **PORT).code == PORT_TAKEN


def test_a_start_keeps_the_address_of_a_pod_that_lives_without_its_link(
    agent: Agent, kernel: Kernel, tmp_path: Path
) -> None:
    agent.call("ADD")
    kernel.links.clear()
    again = restarted(agent, tmp_path)
    assert again.state == ({"red" * 4}, {FIRST}, set()), "held, and not announced"
