"""The demo without a lab: its texts, its roles, how it folds lines, and how it ends."""

import io
import string
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from plugin.core.errors import InputError
from testbed.cli.demo import demo_command
from testbed.demo import play as demo_play
from testbed.demo import stage as demo_stage
from testbed.demo import steps as demo_steps
from testbed.demo.cast import MARKERS, Cast, choose_cast, routers_between
from testbed.demo.paper import COLUMNS, Sheet
from testbed.demo.play import Player, perform, place_of, player_for, straight
from testbed.demo.show import Show
from testbed.demo.stage import DemoError, Stage, fold_command, fold_output
from testbed.demo.texts import LESSONS
from testbed.machine import screen
from testbed.topology.load import load_topology
from testbed.topology.model import NodeSpec, Outside, PodSpec, Router, Segment, Topology, Underlay
from testbed.topology.underlay import plan_underlay
from tests.support.project import ROOT


def topology(pods: dict[str, str]) -> Topology:
    nodes = dict.fromkeys(["node1", "node2", *pods.values()])
    return Topology(
        name="t",
        nodes={name: NodeSpec() for name in nodes},
        pods={name: PodSpec(node=node) for name, node in pods.items()},
    )


def show_for(name: str = "nosuchdemo", *, routers: tuple[str, ...] = ()) -> Show:
    cast = Cast(sender="red", node="node1", new="yellow", far="blue", far_node="node2", routers=routers)
    pods = topology({"red": "node1"})
    return Show(stage=Stage(restaurant=False), name=name, topology=pods, topology_file=Path("t.yaml"), cast=cast)


def printed(speak: Callable[[Stage], None], *, restaurant: bool = False, answers: bool = True) -> str:
    """What a pipe shows of what is said on a stage."""
    text = io.StringIO()
    console = screen.make_console(text, width=COLUMNS)
    stage, sheet = Stage(restaurant=restaurant), Sheet(name="", heading="")
    stage.begin(sheet)
    speak(stage)
    for lines in sheet.groups(console, columns=COLUMNS, answers=answers):
        for line in lines:
            console.print(line)
    return text.getvalue()


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


def speak_lesson(key: str) -> Callable[[Stage], None]:
    lesson = LESSONS[key]
    return lambda stage: stage.lesson_end(lesson.question, lesson.answers, lesson.restaurant)


@pytest.mark.parametrize("key", LESSONS)
def test_an_answer_is_one_line_of_80_columns(key: str) -> None:
    lines = printed(speak_lesson(key), restaurant=True).splitlines()
    assert max(map(len, lines)) <= COLUMNS
    assert [line for line in lines if line.startswith("  ")] == [f"  {answer}" for answer in LESSONS[key].answers]
    assert any(line.startswith("In the exam:") for line in lines)
    assert any(line.startswith("In the restaurant:") for line in lines)


def test_the_restaurant_is_told_only_when_asked_for() -> None:
    assert "plate" not in printed(lambda stage: stage.lesson_end("why?", ["because"], "a plate"))


def test_an_answer_is_kept_behind_the_question() -> None:
    assert "because" not in printed(lambda stage: stage.lesson_end("why?", ["because"], "a plate"), answers=False)


def test_markers_are_what_ping_takes_and_people_read() -> None:
    for marker in MARKERS.values():
        assert len(marker) == 16
        assert marker.decode().isprintable()


# -------------------------------------------------------------------------------------------------------------- the cast


def test_the_default_topology_gives_every_role() -> None:
    cast = choose_cast(topology({"red": "node1", "green": "node1", "blue": "node2"}))
    assert cast == Cast(sender="red", node="node1", new="yellow", far="blue", far_node="node2", routers=())


def test_where_there_are_routers_the_far_pod_is_behind_them() -> None:
    cast = choose_cast(load_topology(ROOT / "topologies/racks.yaml"))
    assert (cast.sender, cast.far, cast.far_node, cast.routers) == ("red", "yellow", "node3", ("spine",))


def test_routers_are_named_in_the_order_of_the_way() -> None:
    segments = {name: Segment(subnet=f"10.9.{index}.0/24") for index, name in enumerate(["a", "b", "c", "d"])}
    underlay = Underlay(
        segments=segments,
        routers={
            "r2": Router(segments=("b", "c")),
            "r1": Router(segments=("a", "b")),
            "r3": Router(segments=("c", "d")),
        },
        outside=Outside(segment="a"),
    )
    chain = Topology(
        name="t", underlay=underlay, nodes={"near": NodeSpec(segment="a"), "far": NodeSpec(segment="d")}, pods={}
    )
    assert routers_between(plan_underlay(chain), "near", "far") == ("r1", "r2", "r3")
    assert routers_between(plan_underlay(chain), "far", "near") == ("r3", "r2", "r1")


@pytest.mark.parametrize("routers", [(), ("spine",)])
def test_only_a_lab_with_routers_on_the_way_has_the_step_about_them(routers: tuple[str, ...]) -> None:
    names = list(demo_steps.steps_of(show_for(routers=routers)))
    assert ("routers" in names) is bool(routers)
    assert [name for name in names if name != "routers"] == [name for name in LESSONS if name != "routers"]


def test_a_step_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert place_of(show_for(), None) == 0
    assert place_of(show_for(), "reply") == 5
    with pytest.raises(InputError, match="has no step routers"):
        place_of(show_for(), "routers")


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


def test_quoted_words_are_not_folded_because_a_backslash_within_quotes_is_one() -> None:
    lines = fold_command("sudo .venv/bin/weavelab exec node1 -- weave hold 'link vxlan-6784' 'for the demo'", 78)
    assert lines == ["sudo .venv/bin/weavelab exec node1 -- weave hold 'link vxlan-6784' \\", "'for the demo'"]


def test_in_a_pipe_there_is_no_escape_sequence_and_no_line_beyond_80_columns() -> None:
    def speak(stage: Stage) -> None:
        stage.say("word " * 60)
        stage.command("sudo .venv/bin/weavelab exec red -- ping -c 3 -p 64656d6f3a2073616d65206e6f646521 10.32.0.4")
        stage.output("x" * 500, mark=("x",))

    text = printed(speak)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= COLUMNS


def test_of_a_long_output_the_first_rows_are_shown_and_the_rest_is_counted() -> None:
    text = printed(lambda stage: stage.output("1\n2\n3\n4\n5\n", rows_max=3))
    assert text.split("\n")[:-1] == ["  1", "  2", "  3", "  ... 2 more lines"]


def run_answering(monkeypatch: pytest.MonkeyPatch, code: int, text: str) -> None:
    monkeypatch.setattr(demo_stage, "run_weavelab", lambda _arguments: (code, text))


def test_a_command_that_fails_ends_the_demo_with_its_output_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    run_answering(monkeypatch, 1, "no such thing\n")

    def speak(stage: Stage) -> None:
        with pytest.raises(DemoError, match="exit code 1"):
            stage.weavelab("exec", "red", "--", "false")

    assert "$ sudo .venv/bin/weavelab exec red -- false\n  no such thing\n  (exit code 1)\n" in printed(speak)


def test_a_command_that_should_fail_and_does_not_ends_the_demo_too(monkeypatch: pytest.MonkeyPatch) -> None:
    run_answering(monkeypatch, 0, "")
    stage = Stage(restaurant=False)
    with pytest.raises(DemoError, match="to end with exit code 1, found exit code 0"):
        stage.weavelab("exec", "red", "--", "true", code=1)


# --------------------------------------------------------------------------------------------------------------- the end


@pytest.mark.parametrize("typed", [io.StringIO(), None], ids=["a pipe", "closed"])
def test_without_a_terminal_nobody_is_waited_for(typed: io.StringIO | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_play, "steps_of", lambda _show: {"cluster": lambda show: show.stage.say("a lab")})
    shown = io.StringIO()
    show = show_for()
    assert perform(show, player_for(typed, shown, auto=False, pause_s=0.0)) == 0
    assert shown.getvalue().startswith("\n1 of 1  A cluster comes up ──")
    assert "\n\na lab\n\nIn the exam: Which network add-on" in shown.getvalue()
    assert "kubectl get daemonsets" in shown.getvalue(), "without keys the answers are there"


def test_steps_before_the_first_are_played_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    played = []
    monkeypatch.setattr(
        demo_play,
        "steps_of",
        lambda _show: {name: lambda _show, name=name: played.append(name) for name in ("cluster", "node", "pod")},
    )
    shown = io.StringIO()
    assert perform(show_for(), straight(shown, 0.0), first=1) == 0
    assert played == ["cluster", "node", "pod"]
    assert "1 of 3" not in shown.getvalue()
    assert "2 of 3" in shown.getvalue()


def test_what_fails_unseen_is_shown_after_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(show: Show) -> None:
        show.stage.say("this was tried")
        raise DemoError("it did not work")

    monkeypatch.setattr(demo_play, "steps_of", lambda _show: {"cluster": fail, "node": fail})
    shown = io.StringIO()
    with pytest.raises(DemoError):
        perform(show_for(), straight(shown, 0.0), first=1)
    assert "1 of 2  A cluster comes up" in shown.getvalue()
    assert "this was tried" in shown.getvalue()


def test_ctrl_c_exits_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert perform(show_for(), _raise(KeyboardInterrupt())) == 130
    assert "interrupted" in capsys.readouterr().err


def test_what_does_not_hold_is_an_error_with_exit_code_1() -> None:
    with pytest.raises(DemoError) as error:
        perform(show_for(), _raise(DemoError("wanted 0 frames, found 2")))
    assert error.value.exit_code == 1


def test_a_topology_twice_is_wrong_usage() -> None:
    done = CliRunner().invoke(demo_command, ["a.yaml", "--topology", "b.yaml"])
    assert done.exit_code == 2
    assert "the topology is given twice" in done.output


def test_pause_without_auto_is_wrong_usage() -> None:
    done = CliRunner().invoke(demo_command, ["--pause", "3"])
    assert done.exit_code == 2
    assert "--auto" in done.output


def _raise(error: BaseException) -> Player:
    def raising(_show: Show, _first: int) -> None:
        raise error

    return raising
