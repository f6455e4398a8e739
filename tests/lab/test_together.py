"""Commands that meet: runs that start at the same moment, and a `down` while somebody uses the lab."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.project import ROOT

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: labs are made of network namespaces"),
]

RUN = Path(f"/run/wlt-{os.getpid()}")
OTHER_RUN = Path(f"/run/wlo-{os.getpid()}")
LAB = f"m{os.getpid() % 1000000}"
NETNS = Path("/run/netns")
ENVIRONMENT = {**os.environ, "WEAVELAB_RUN": str(RUN)}
COMMAND = [sys.executable, "-m", "testbed"]

TEXT = f"""
name: {LAB}
nodes: {{node1: , node2: }}
pods: {{red: {{node: node1}}, blue: {{node: node2}}}}
scenarios:
  - {{name: quick, steps: [ping: {{from: red, to: blue, count: 1}}]}}
  - {{name: long, steps: [{{exec: {{on: red, command: sleep 60}}, within_s: 90}}]}}
"""


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text(TEXT)
    return path


def start(*words: str | Path, run: Path = RUN) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, *map(str, words)],
        cwd=ROOT,
        env={**ENVIRONMENT, "WEAVELAB_RUN": str(run)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def weavelab(*words: str | Path, run: Path = RUN) -> tuple[int, str]:
    process = start(*words, run=run)
    said, _ = process.communicate(timeout=90)
    return process.returncode, said


def eventually(holds: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 40
    while not holds():
        assert time.monotonic() < deadline_s, "it did not become true"
        time.sleep(0.01)


def traces() -> list[str]:
    found = [str(path) for path in (RUN, OTHER_RUN) if path.exists()]
    return found + ([entry.name for entry in NETNS.glob(f"{LAB}*")] if NETNS.is_dir() else [])


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    found = traces()
    for run in (RUN, OTHER_RUN):
        if run.exists():
            weavelab("down", "--all", "--force", run=run)
    assert found == []


@contextlib.contextmanager
def running(*words: str | Path, step: str = "sleep 60") -> "Iterator[subprocess.Popen[str]]":
    """A run that has come to its long step."""
    process = start("run", *words)
    try:
        eventually(lambda: process.poll() is not None or _somebody_does(step))
        assert process.poll() is None, process.communicate()[0]
        yield process
    finally:
        process.kill()
        process.communicate()


def _somebody_does(command: str) -> bool:
    """Whether a process of the lab runs this command (the lab's pods share no pid with others' labs)."""
    try:
        pins = {(pin.stat().st_dev, pin.stat().st_ino) for pin in (RUN / LAB / "fs/ns").glob("red.net")}
    except OSError:
        return False
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and command in (entry / "cmdline").read_text().replace("\0", " "):
                stat = (entry / "ns/net").stat()
                if (stat.st_dev, stat.st_ino) in pins:
                    return True
    return False


# --------------------------------------------------------------------------------------------------- runs side by side


@pytest.mark.parametrize("pause_s", [0.0, 0.05, 0.2, 0.3])
def test_the_second_run_takes_the_next_name(topology: Path, tmp_path: Path, pause_s: float) -> None:
    reports = [tmp_path / "one.json", tmp_path / "other.json"]
    first = start("run", topology, "quick", "--json", reports[0])
    time.sleep(pause_s)  # not a wait for anything: another moment to meet at
    second = start("run", topology, "quick", "--json", reports[1])
    for process in (first, second):
        said, _ = process.communicate(timeout=90)
        assert process.returncode == 0, said
    assert sorted(json.loads(path.read_text())["lab"] for path in reports) == [LAB, f"{LAB}-2"]


def test_four_runs_at_the_same_moment_never_meet(topology: Path, tmp_path: Path) -> None:
    reports = [tmp_path / f"{number}.json" for number in range(4)]
    runs = [RUN, RUN, OTHER_RUN, OTHER_RUN]  # names below /run/netns belong to all of the machine
    processes = [
        start("run", topology, "quick", "--json", path, run=run) for path, run in zip(reports, runs, strict=True)
    ]
    for process in processes:
        said, _ = process.communicate(timeout=90)
        assert process.returncode == 0, said
    labs = [json.loads(path.read_text())["lab"] for path in reports]
    assert len(set(labs)) == 4, labs


def test_who_insists_on_a_name_is_told_who_has_it(topology: Path) -> None:
    with running(topology, "long") as run:
        for words in (["run", topology, "quick", "--name", LAB], ["up", topology]):
            code, said = weavelab(*words)
            assert code == 2
            assert f"a lab named {LAB} is in use already: `weavelab run {topology} long` (pid {run.pid}, of " in said
        weavelab("down", LAB, "--force")


@pytest.mark.parametrize("pause_s", [0.0, 0.2])
def test_of_two_that_insist_on_one_name_one_gets_it(topology: Path, pause_s: float) -> None:
    first = start("up", topology)
    time.sleep(pause_s)  # not a wait for anything: another moment to meet at
    second = start("up", topology)
    said = [process.communicate(timeout=90)[0] for process in (first, second)]
    assert sorted([first.returncode, second.returncode]) == [0, 2], said
    assert f"a lab named {LAB} is " in "".join(said)
    assert weavelab("down", LAB)[0] == 0


# ---------------------------------------------------------------------------------------------------- down under a user


def test_down_says_who_uses_the_lab_and_leaves_it(topology: Path) -> None:
    with running(topology, "long") as run:
        for words in ([LAB], ["--all"], []):
            code, said = weavelab("down", *words)
            assert code == 2, said
            assert f"error: lab {LAB} is in use: `weavelab run {topology} long` (pid {run.pid}, of " in said
            assert f"hint: end it there; or `weavelab down {LAB} --force`" in said
        assert run.poll() is None
        assert weavelab("exec", "--lab", LAB, "red", "--", "true")[0] == 0
        run.send_signal(signal.SIGINT)
        said, _ = run.communicate(timeout=40)
        assert run.returncode == 130, said


def test_a_run_whose_lab_is_taken_down_ends_with_one_sentence(topology: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with running(topology, "long", "--json", report) as run:
        assert weavelab("down", LAB, "--force") == (0, f"lab {LAB} is down\n")
        said, _ = run.communicate(timeout=40)
    assert run.returncode == 1, said
    (error,) = [line for line in said.splitlines() if "error" in line]
    assert error.startswith(f"error: lab {LAB} was taken down by `weavelab down {LAB} --force` (pid ")
    written = json.loads(report.read_text())
    assert written["problem"]["message"] == error.removeprefix("error: ")
    assert (written["status"], written["interrupted"]) == ("error", True)
    assert traces() == []


def test_a_run_on_a_lab_that_stays_is_told_just_so(topology: Path) -> None:
    assert weavelab("up", topology)[0] == 0
    with running("--lab", LAB, "long") as run:
        assert weavelab("down", LAB)[0] == 2
        assert weavelab("down", "--all", "--force") == (0, f"lab {LAB} is down\n")
        said, _ = run.communicate(timeout=40)
    assert run.returncode == 1, said
    assert f"error: lab {LAB} was taken down by `weavelab down --all --force`" in said
    assert "is still up" not in said


def test_all_takes_the_others_down_and_names_what_is_used(topology: Path) -> None:
    assert weavelab("up", topology, "--name", f"{LAB}x")[0] == 0
    with running(topology, "long"):
        code, said = weavelab("down", "--all")
        assert code == 2
        assert said.startswith(f"lab {LAB}x is down\nerror: lab {LAB} is in use: ")
        assert weavelab("down", "--all", "--force")[0] == 0


def test_a_killed_run_is_no_user(topology: Path) -> None:
    with running(topology, "long") as run:
        run.kill()
        run.wait()
        assert weavelab("down", "--all") == (0, f"lab {LAB} is down\n")
    assert traces() == []


def test_a_lab_that_is_being_built_is_in_use(topology: Path) -> None:
    up = start("up", topology)
    eventually(lambda: list((RUN / LAB / "users").glob("*.json")) or up.poll() is not None)
    os.kill(up.pid, signal.SIGSTOP)
    code, said = weavelab("down", LAB)
    assert code == 2
    assert f"`weavelab up {topology}` (pid {up.pid}" in said
    assert weavelab("down", LAB, "--force") == (0, f"lab {LAB} is down\n")
    said, _ = up.communicate(timeout=40)
    assert up.returncode == 1
    assert f"error: lab {LAB} was taken down by " in said
    assert traces() == []


def test_after_up_nobody_uses_the_lab(topology: Path) -> None:
    assert weavelab("up", topology)[0] == 0
    assert weavelab("agent", "kill", "node1")[0] == 0
    assert weavelab("down", LAB) == (0, f"lab {LAB} is down\n")


@pytest.mark.parametrize("suspended", [False, True])
def test_a_prompt_holds_its_lab_until_force_is_said(topology: Path, suspended: bool) -> None:  # noqa: FBT001
    assert weavelab("up", topology)[0] == 0
    keys, terminal = pty.openpty()
    prompt = subprocess.Popen(
        [*COMMAND, "cli", LAB], cwd=ROOT, env=ENVIRONMENT, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    try:
        seen = b""
        while b"weavelab> " not in seen:
            seen += os.read(keys, 1024)
        if suspended:
            prompt.send_signal(signal.SIGSTOP)
        code, said = weavelab("down", LAB)
        assert code == 2
        assert f"`weavelab cli {LAB}` (pid {prompt.pid}" in said
        assert "--force" in said
        assert weavelab("down", LAB, "--force") == (0, f"lab {LAB} is down\n")
        assert prompt.wait(timeout=20) == 1
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while more := os.read(keys, 1024):
                seen += more
        assert f"error: lab {LAB} was taken down by `weavelab down {LAB} --force`".encode() in seen
    finally:
        prompt.kill()
        prompt.wait()
        os.close(keys)


def test_several_labs_go_down_and_a_wrong_name_does_not_keep_the_others_up(topology: Path) -> None:
    for name in (LAB, f"{LAB}x"):
        assert weavelab("up", topology, "--name", name)[0] == 0
    code, said = weavelab("down", LAB, LAB.upper(), f"{LAB}x", "../etc")
    assert code == 2
    assert said.startswith(f"lab {LAB} is down\nlab {LAB}x is down\nerror: not every lab is down:\n")
    assert f"no lab named {LAB.upper()} is up" in said
    assert "no lab named ../etc is up" in said
    assert traces() == []


# ------------------------------------------------------------------------------------------------------------- the rest


def test_a_run_that_takes_too_long_leaves_nothing_but_its_report(topology: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    code, said = weavelab("run", topology, "--timeout", "6", "--json", report)
    assert code == 1, said
    assert "error: the run was to end within 6 s (--timeout)" in said
    written = json.loads(report.read_text())
    last = written["scenarios"][-1]["steps"][-1]
    assert (last["status"], last["seen"]) == ("skip", "not run: the time of the run was over")
    assert traces() == []


def test_rounds_are_in_the_report_by_number(topology: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    code, said = weavelab("run", topology, "qui*", "--repeat", "3", "--json", report)
    assert code == 0, said
    assert [one["name"] for one in json.loads(report.read_text())["scenarios"]] == ["quick#1", "quick#2", "quick#3"]


def test_options_of_exec_may_stand_behind_the_target(topology: Path) -> None:
    assert weavelab("up", topology)[0] == 0
    assert weavelab("exec", "red", "--lab", LAB, "--", "echo", "--lab", "x") == (0, "--lab x\n")
    assert weavelab("exec", "red", f"--lab={LAB}", "echo", "-n", "hello") == (0, "hello")
    assert weavelab("exec", "--lab", LAB, "red", "printf", "--", "--help") == (0, "--help")
    assert weavelab("exec", "red", "--help")[1].startswith("Usage: weavelab exec ")
    code, said = weavelab("exec", "Red", "true")
    assert (code, "did you mean 'red'?" in said) == (2, True)
    code, said = weavelab("agent", "kill", "Node1")
    assert (code, "did you mean 'node1'?" in said) == (2, True)
    code, said = weavelab("status", LAB.upper())
    assert (code, f"did you mean '{LAB}'?" in said) == (2, True)
    assert weavelab("down")[0] == 0
