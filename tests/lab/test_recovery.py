"""Two of three nodes are gone for good, with real agents and the commands that users type: the way out, and who returns."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.project import ROOT

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: labs are made of network namespaces"),
]

NAME = f"lost{os.getpid() % 10000}"
TOPOLOGY = f"""
name: {NAME}
network: {{range: 10.32.0.0/24}}
nodes: {{node1: , node2: , node3: }}
pods: {{red: {{node: node1}}, blue: {{node: node2}}}}
"""
WITHOUT = ("recover", "--without", "node2", "node3")


def weavelab(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "testbed", *words], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )  # fmt: skip


def ok(*words: str) -> str:
    done = weavelab(*words)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def weave(node: str, *words: str) -> "subprocess.CompletedProcess[str]":
    return weavelab("exec", "--lab", NAME, node, "--", "weave", *words)


def ipam(node: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(weave(node, "report", "ipam").stdout)
    return found


def seats(node: str) -> set[str]:
    return {seat["name"] for seat in ipam(node)["seats"]}


def wait_for(holds: Callable[[], Any], what: str, deadline_s: float = 30) -> None:
    end_s = time.monotonic() + deadline_s
    while not holds():
        if time.monotonic() > end_s:
            shown = weave("node1", "status", "ipam").stdout + weave("node1", "status", "connections").stdout
            raise AssertionError(f"{what} did not come true within {deadline_s:g} s\n{shown}")
        time.sleep(0.2)


def refused(node: str, address: str) -> str:
    """Why a node calls another one refused; empty when it does not."""
    lines = weave(node, "status", "connections").stdout.splitlines()
    return next((line for line in lines if address in line and " refused " in line), "")


@pytest.fixture
def _lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    path = tmp_path_factory.mktemp("lost") / "lost.yaml"
    path.write_text(TOPOLOGY)
    ok("up", str(path))
    yield
    ok("down", NAME)


@pytest.mark.usefixtures("_lab")
def test_one_of_three_goes_on_by_one_command_and_who_was_given_up_is_refused_until_it_is_reset() -> None:
    done = weave("node1", *WITHOUT)
    assert (done.returncode, done.stdout) == (1, "")
    assert "node2, node3 answers: only what is gone for good can be given up" in done.stderr
    for node in ("node2", "node3"):
        ok("agent", "kill", node, "--lab", NAME)
    wait_for(lambda: "unreachable" in weave("node1", "status", "ipam").stdout, "they are missed")
    wait_for(lambda: weave("node1", "status", "connections").stdout.count("failed") == 2, "both are failed")
    missed = "most seats of the ring do not answer (node2, node3)"
    wait_for(lambda: missed in weave("node1", "status").stdout, "it is a problem of node1")
    assert weave("node1", "status").returncode == 1
    done = weave("node1", "rmpeer", "--force", "node2")
    assert done.returncode == 1
    assert "weave recover" in done.stderr

    # A new machine in the place of node3: it waits, and would do so for ever.
    ok("agent", "start", "node3", "--lose-disk", "--lab", NAME)
    wait_for(lambda: "awaiting a seat" in weave("node3", "status", "ipam").stdout, "the new machine waits for a seat")
    done = weave("node1", *WITHOUT)
    assert done.returncode == 0, done.stderr
    for line in ("IPs to node1, AND ITS NODE", "IPs to node3\n", "ANSWERS THROUGH THE OVERLAY", "What it risks:", "Nothing has changed.",
                 "  weave recover --force --without node2 node3"):  # fmt: skip
        assert line in done.stdout
    assert seats("node1") == {"node1", "node2", "node3"}
    assert weave("node1", "recover", "--force").returncode == 2
    assert weave("node1", "recover", "--without", "node9").returncode == 2
    assert weave("node3", *WITHOUT).returncode == 1, "it has no seat"

    before = ipam("node1")
    done = weave("node1", "recover", "--force", "--without", "node2", "node3")
    assert done.returncode == 0, done.stderr
    assert "IPs taken over from node2, node3" in done.stdout
    wait_for(lambda: seats("node3") == {"node1", "node3"}, "the new machine has its seat at once", 10)
    after = ipam("node1")
    assert (after["ring"] != before["ring"], after["epoch"]) == (True, before["epoch"] + 1)
    assert sum(owner["addresses"] for owner in after["owners"]) == 256
    assert {owner["name"] for owner in after["owners"]} == {"node1", "node3"}
    assert set(before["owned"]) <= set(after["owned"]) or after["capacity"] > before["capacity"]
    assert "recovered: ring" in weave("node1", "recover", "--force", "--without", "node2").stdout, "twice is once"

    # What was believed dead returns, with its disk and its pod.
    ok("agent", "start", "node2", "--lab", NAME)
    wait_for(lambda: "it was removed" in refused("node2", "192.168.56.11"), "node2 is told why")
    wait_for(lambda: "it was removed" in refused("node1", "192.168.56.12"), "node1 shows it")
    assert "weave reset" in weave("node2", "status", "ipam").stdout
    assert seats("node1") == {"node1", "node3"}
    assert ipam("node2")["owned"] == [], "it gives nothing out"
    assert weave("node2", "reset", "--force").returncode == 0
    ok("agent", "start", "node2", "--lab", NAME)
    wait_for(lambda: seats("node1") == {"node1", "node2", "node3"}, "a new member like any other")
    assert len({ipam(node)["ring"] for node in ("node1", "node2", "node3")}) == 1
    assert "every seat of the ring answers" in weave("node1", "recover").stderr
