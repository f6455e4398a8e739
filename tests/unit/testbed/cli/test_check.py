"""`weavelab check`: a file is judged without root and without a lab; what the machine lacks are notes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plugin.core.errors import MissingError
from testbed.cli import main as cli
from testbed.life import lacks
from tests.support.project import ROOT

RIGHT = """
name: small
description: Two nodes and a router
underlay:
  segments: {one: {subnet: 10.1.0.0/24}, other: {subnet: 10.2.0.0/24}}
  routers: {spine: {segments: [one, other]}}
nodes: {node1: , node2: {segment: other}}
pods: {red: {node: node1}, blue: {node: node2}}
scenarios:
  - {name: pings, tags: [quick], steps: [ping: {from: red, to: blue}]}
"""
WRONG = "name: small\nnode: {node1: }\npods: {red: {node: 7}}\n"


@pytest.fixture
def right(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RIGHT)
    return path


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(WRONG)
    return path


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> list[MissingError]:
    """What the machine lacks, as the test wants it."""
    found: list[MissingError] = []
    monkeypatch.setattr(lacks, "lacks_of", lambda *_: tuple(found))
    return found


def test_what_the_file_has_is_shown(
    right: Path, missing: list[MissingError], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", str(right)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{right} is right: small, Two nodes and a router",
        "  nodes      2: node1, node2",
        "  pods       2: red on node1, blue on node2",
        "  segments   2: one 10.1.0.0/24, other 10.2.0.0/24",
        "  routers    1: spine",
        "  pod range  10.32.0.0/12, MTU 1450",
        "  kubelet    emulated",
        "  scenarios  1: pings",
        "  steps      1",
        "  tags       quick",
        "this machine has what it needs",
    ]


def test_what_the_machine_lacks_is_a_note_and_no_failure(
    right: Path, missing: list[MissingError], capsys: pytest.CaptureFixture[str]
) -> None:
    missing += [MissingError("needs root", hint="sudo"), MissingError("no ping")]
    assert cli.main(["check", str(right)]) == 0
    assert capsys.readouterr().out.endswith("note: needs root\n      sudo\nnote: no ping\n")
    assert cli.main(["check", "--topology", str(right), "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["valid"] is True
    assert told["lacks"] == [{"message": "needs root", "hint": "sudo"}, {"message": "no ping", "hint": ""}]
    assert told["pods"] == {"red": "node1", "blue": "node2"}
    assert told["scenarios"] == [{"name": "pings", "steps": 1, "tags": ["quick"], "description": ""}]


def test_every_mistake_is_told_as_up_tells_it(wrong: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(wrong)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert f"{wrong}:2:1: unknown key 'node' in the topology (did you mean 'nodes'?)" in told.err
    assert f"{wrong}:3:20: " in told.err


def test_mistakes_are_there_for_programs_too(wrong: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(wrong), "--format", "json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["valid"] is False
    assert [(one["line"], one["column"]) for one in told["problems"]] == [(2, 1), (3, 20)]


def weavelab_check(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "testbed", "check", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        input=RIGHT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_machine_without_the_programs_is_told_so_and_nothing_is_made(tmp_path: Path) -> None:
    done = weavelab_check("-", PATH=str(tmp_path), WEAVELAB_RUN=str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("- is right: small")
    for program in ("nft", "ping"):
        assert f"note: wanted {program} on the PATH, found no such program" in done.stdout
    assert not (tmp_path / "run").exists()


def test_links_that_the_kernel_does_not_know_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from testbed.topology.load import parse_topology

    monkeypatch.setattr(lacks, "_LINKS", {"quantum": lacks._LINKS["bridge"].replace(b"bridge", b"tunnel")})
    said = [one.message for one in lacks.lacks_of(parse_topology(RIGHT, file="x"), ())]
    if os.geteuid() != 0 and not Path("/proc/self/ns/user").exists():
        pytest.skip("neither root nor user namespaces: nothing can be tried")
    assert "wanted a kernel that can make quantum links, found one that cannot" in said
