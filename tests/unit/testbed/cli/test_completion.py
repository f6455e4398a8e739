"""What a shell is told when somebody presses TAB: names that exist, quickly, without root and without a word of trouble."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from testbed.cli import main as cli
from testbed.lab import paths, state
from testbed.topology.load import load_topology
from tests.support.project import ROOT

TOPOLOGY = """
name: small
nodes: {node1: , node2: }
pods: {red: {node: node1}, green: {node: node2}}
scenarios:
  - name: first-one
    steps:
      - ping: {from: red, to: green}
  - name: second
    steps:
      - ping: {from: green, to: red}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of labs with one, `small`, that is up as far as its state says."""
    folder = tmp_path / "run"
    monkeypatch.setattr(paths, "RUN", folder)
    lab = paths.LabPaths("small")
    lab.directory.mkdir(parents=True)
    file = tmp_path / "small.yaml"
    file.write_text(TOPOLOGY)
    made = state.new_state(lab, load_topology(file), topology_file=str(file), members=())
    pods = {
        name: state.PodRecord(
            node="node1", container_id=name, address="10.32.0.2", mac="02:00:00:00:00:01", host_ifname="x"
        )
        for name in ("red", "green")
    }
    state.write(lab, msgspec.structs.replace(made, phase="ready", pods=pods))
    return folder


@pytest.fixture
def answers(run: Path) -> Callable[..., list[str]]:
    """What bash is told at the end of a line."""

    def ask(*words: str, folder: Path = run) -> list[str]:
        environment = {
            **os.environ,
            "WEAVELAB_RUN": str(folder),
            "COMP_WORDS": " ".join(["weavelab", *words]),
            "COMP_CWORD": str(len(words)),
            "_WEAVELAB_COMPLETE": "bash_complete",
        }
        done = subprocess.run(
            [sys.executable, "-m", "testbed"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    return ask


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["ex"], ["exec"]),
        (["status", ""], ["small"]),
        (["down", "s"], ["small"]),
        (["exec", "r"], ["red"]),
        (["exec", "--lab", ""], ["small"]),
        (["exec", "--lab", "small", "no"], ["node1", "node2"]),
        (["exec", "out"], ["outside"]),
        (["exec", "red", "--", "ping", "gr"], ["green"]),
        (["agent", "re"], ["restart"]),
        (["agent", "kill", ""], ["node1", "node2"]),
        (["run", "--lab", "small", ""], ["first-one", "second"]),
        (["run", "--lab", "small", "second", ""], ["first-one"]),
        (["run", "cross"], ["cross-node"]),
        (["up", "--kubelet", ""], ["emulated", "containerd"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
    ],
    ids=" ".join,
)
def test_what_may_follow_is_known(words: list[str], wanted: list[str], answers: Callable[..., list[str]]) -> None:
    assert [word for word in answers(*words) if not Path(ROOT, word).exists()] == wanted


def test_options_and_files_are_clicks(answers: Callable[..., list[str]]) -> None:
    assert "--keep-on-failure" in answers("up", "--ke")
    assert answers("up", "topologies/tw") == ["topologies/tw"]


@pytest.mark.parametrize(
    "words",
    [["nope", ""], ["exec", "--lab", "none", ""], ["exec", "'r"], ["run", "--topology", "/none.yaml", ""]],
    ids=" ".join,
)
def test_what_is_not_known_is_not_offered_and_not_told(words: list[str], answers: Callable[..., list[str]]) -> None:
    answers(*words)


def test_without_a_lab_there_is_nothing_to_name(answers: Callable[..., list[str]], tmp_path: Path) -> None:
    assert answers("exec", "", folder=tmp_path / "none") == []
    assert answers("status", "", folder=tmp_path / "none") == []


def test_a_shell_that_we_do_not_know_is_told_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_WEAVELAB_COMPLETE", "tcsh_complete")
    assert cli.main([]) == 0
    assert capsys.readouterr() == ("", "")


COMPLETE = {
    "bash": (
        'source "$1"; COMP_WORDS=(weavelab exec r); COMP_CWORD=2; _weavelab_completion weavelab r exec; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    ),
    "fish": "source $argv[1]; complete -C 'weavelab exec r'; true",
}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_its_shell_takes(shell: str, run: Path, tmp_path: Path) -> None:
    program = shutil.which(shell) or pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    command = tmp_path / "bin" / "weavelab"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m testbed "$@"\n')
    command.chmod(0o755)
    script.write_text(subprocess.run([command, "completion", shell], capture_output=True, text=True, check=True).stdout)
    assert f"made by `weavelab completion {shell}`" in script.read_text()
    subprocess.run([program, "-n", script], check=True)
    if shell not in COMPLETE:
        return
    environment = {**os.environ, "WEAVELAB_RUN": str(run), "PATH": f"{command.parent}:{os.environ['PATH']}"}
    before = ["--"] if shell == "fish" else ["complete"]
    done = subprocess.run(
        [program, "-c", COMPLETE[shell], *before, script], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["red"], "")
