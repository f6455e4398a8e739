"""The demo without a lab: its texts, its roles, how it folds lines, and how it ends."""

import io
import os
import string

import msgspec
import pytest
from click.testing import CliRunner
from rich.console import Console

from plugin.core.errors import InputError
from testbed.cli.demo import demo_command
from testbed.demo import stage as demo_stage
from testbed.demo import steps as demo_steps
from testbed.demo.cast import MARKERS, Cast, choose_cast
from testbed.demo.show import Show
from testbed.demo.stage import (
    COLUMNS,
    DemoError,
    EndedByUserError,
    Keyboard,
    Stage,
    Timer,
    fold_command,
    fold_output,
    keys_for,
    make_console,
)
from testbed.demo.texts import LESSONS
from testbed.topology.model import NodeSpec, PodSpec, Topology


def topology(pods: dict[str, str]) -> Topology:
    nodes = dict.fromkeys(["node1", "node2", *pods.values()])
    return Topology(
        name="t",
        nodes={name: NodeSpec() for name in nodes},
        pods={name: PodSpec(node=node) for name, node in pods.items()},
    )


def plain_stage(*, restaurant: bool = False) -> tuple[Stage, io.StringIO]:
    text = io.StringIO()
    return Stage(make_console(text), Timer(0.0), restaurant=restaurant), text


def show_for(name: str = "nosuchdemo") -> Show:
    from pathlib import Path

    stage, _ = plain_stage()
    cast = Cast(sender="red", node="node1", new="yellow", far="blue", far_node="node2")
    return Show(stage=stage, name=name, topology=topology({"red": "node1"}), topology_file=Path("t.yaml"), cast=cast)


# ------------------------------------------------------------------------------------------------------------- the texts


def test_every_step_has_its_texts_in_the_same_order() -> None:
    assert list(demo_steps.STEPS) == list(LESSONS)


@pytest.mark.parametrize("key", LESSONS)
def test_a_lesson_names_only_what_the_steps_know(key: str) -> None:
    lesson = LESSONS[key]
    known = set(show_for().names)
    for text in (lesson.title, lesson.restaurant):
        used = {name for _, name, _, _ in string.Formatter().parse(text) if name}
        assert used <= known


@pytest.mark.parametrize("key", LESSONS)
def test_a_lesson_fits_80_columns_with_all_its_answers(key: str) -> None:
    stage, text = plain_stage(restaurant=True)
    stage.lesson_end(LESSONS[key].question, LESSONS[key].answers, LESSONS[key].restaurant)
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= COLUMNS
    assert "In the exam:" in text.getvalue()
    assert "In the restaurant:" in text.getvalue()


def test_the_restaurant_is_told_only_when_asked_for() -> None:
    stage, text = plain_stage()
    stage.lesson_end("why?", ["because"], "a plate")
    assert "plate" not in text.getvalue()


def test_markers_are_what_ping_takes_and_people_read() -> None:
    for marker in MARKERS.values():
        assert len(marker) == 16
        assert marker.decode().isprintable()


# -------------------------------------------------------------------------------------------------------------- the cast


def test_the_default_topology_gives_every_role() -> None:
    cast = choose_cast(topology({"red": "node1", "green": "node1", "blue": "node2"}))
    assert cast == Cast(sender="red", node="node1", new="yellow", far="blue", far_node="node2")


def test_the_new_pod_never_takes_a_name_that_is_there() -> None:
    cast = choose_cast(topology({"yellow": "node1", "violet": "node2"}))
    assert (cast.sender, cast.new) == ("yellow", "orange")


@pytest.mark.parametrize("pods", [{}, {"red": "node1"}, {"red": "node1", "green": "node1"}])
def test_pods_on_one_node_only_are_refused_before_anything_is_made(pods: dict[str, str]) -> None:
    with pytest.raises(InputError, match="wanted pods on two nodes"):
        choose_cast(topology(pods))


def test_a_lab_whose_runtime_calls_the_plugin_unseen_is_no_stage() -> None:
    real = msgspec.structs.replace(topology({"red": "node1", "blue": "node2"}), kubelet="containerd")
    with pytest.raises(InputError, match="the containerd of topology t does that unseen"):
        choose_cast(real)


# ------------------------------------------------------------------------------------------------------------- the stage


def test_a_long_command_is_folded_as_a_shell_accepts_it() -> None:
    lines = fold_command("sudo .venv/bin/weavelab exec red -- " + "word " * 20 + "end", 60)
    assert len(lines) > 1
    assert all(len(line) <= 60 and line.endswith(" \\") for line in lines[:-1])
    assert (
        " ".join(line.removesuffix(" \\") for line in lines).split()
        == ("sudo .venv/bin/weavelab exec red -- " + "word " * 20 + "end").split()
    )


def test_a_short_line_of_output_stays_as_it_is() -> None:
    assert fold_output("    link/ether 0a:58:0a:20:00:02", 76) == ["    link/ether 0a:58:0a:20:00:02"]


def test_a_very_long_line_is_cut_and_says_so() -> None:
    rows = fold_output("    bridge " + "stp_state 0 " * 50, 76)
    assert len(rows) == demo_stage.ROWS_PER_LINE_MAX + 1
    assert all(len(row) <= 76 for row in rows)
    assert rows[-1].strip().startswith("... and ")


def test_in_a_pipe_there_is_no_escape_sequence_and_no_line_beyond_80_columns() -> None:
    stage, text = plain_stage()
    stage.heading(1, 7, "Title")
    stage.say("word " * 60)
    stage.command("sudo .venv/bin/weavelab exec red -- ping -c 3 -p 64656d6f3a2073616d65206e6f646521 10.32.0.4")
    stage.output("x" * 500, mark=("x",))
    assert "\x1b" not in text.getvalue()
    assert max(map(len, text.getvalue().splitlines())) <= COLUMNS


def test_a_command_that_fails_ends_the_demo_with_its_output_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_stage, "run_weavelab", lambda _arguments: (1, "no such thing\n"))
    stage, text = plain_stage()
    with pytest.raises(DemoError, match="exit code 1"):
        stage.weavelab("exec", "red", "--", "false")
    assert "$ sudo .venv/bin/weavelab exec red -- false\n  no such thing" in text.getvalue()


# -------------------------------------------------------------------------------------------------------------- the keys


@pytest.mark.parametrize("typed", [b"\n", b" ", b"x\x1b[C\r"])
def test_enter_and_space_go_on_and_other_keys_do_nothing(typed: bytes) -> None:
    assert press(typed) is None


@pytest.mark.parametrize("typed", [b"q", b"Q", b"x\x04"])
def test_q_ends(typed: bytes) -> None:
    with pytest.raises(EndedByUserError):
        press(typed)


def press(typed: bytes) -> None:
    """Wait on a terminal of our own on which something is typed once the prompt is there."""
    master, slave = os.openpty()

    class Prompted(io.StringIO):
        def flush(self) -> None:
            if "Enter:" in self.getvalue() and not self.typed:
                type(self).typed = True
                import threading

                threading.Timer(0.05, lambda: os.write(master, typed)).start()

        typed = False

    try:
        with os.fdopen(slave) as stream:
            Keyboard(stream).wait(Console(file=Prompted()))
    finally:
        import time

        time.sleep(0.06)
        os.close(master)


def test_without_a_terminal_nobody_is_waited_for() -> None:
    assert isinstance(keys_for(io.StringIO(), io.StringIO(), auto=False, pause_s=0.0), Timer)


# --------------------------------------------------------------------------------------------------------------- the end


def test_q_is_a_good_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_steps, "play", _raise(EndedByUserError()))
    assert demo_steps.perform(show_for()) == 0


def test_ctrl_c_exits_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo_steps, "play", _raise(KeyboardInterrupt()))
    assert demo_steps.perform(show_for()) == 130
    assert "interrupted" in capsys.readouterr().err


def test_what_does_not_hold_is_an_error_with_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_steps, "play", _raise(DemoError("wanted 0 frames, found 2")))
    with pytest.raises(DemoError) as error:
        demo_steps.perform(show_for())
    assert error.value.exit_code == 1


def test_pause_without_auto_is_wrong_usage() -> None:
    done = CliRunner().invoke(demo_command, ["--pause", "3"])
    assert done.exit_code == 2
    assert "--auto" in done.output


def _raise(error: BaseException):
    def raising(_show: Show) -> None:
        raise error

    return raising
