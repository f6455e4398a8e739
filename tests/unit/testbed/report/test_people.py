"""The reports for people: the terminal and the HTML page, from tests/golden/report/sample.json."""

import io
import re
from html.parser import HTMLParser

import msgspec
import pytest
from rich.console import Console

from testbed.report.html import bars, html_report, matrix, times
from testbed.report.json_report import read_report
from testbed.report.picture import lab_picture
from testbed.report.terminal import TerminalListener, make_console, plain_line, print_summary, summary_line
from testbed.report.words import headline
from testbed.scenario.results import (
    Counts,
    IperfEvidence,
    LabView,
    MemberState,
    NodeView,
    Observation,
    PodView,
    Problem,
    RouterView,
    RunResult,
    SegmentView,
    Status,
)
from tests.support.project import GOLDEN

SAMPLE = GOLDEN / "report" / "sample.json"
VOID = {"meta", "br", "hr", "img", "input", "link"}


@pytest.fixture
def sample() -> RunResult:
    return read_report(SAMPLE.read_bytes())


# ------------------------------------------------------------------------------------------------------------ terminal


def in_a_pipe(sample: RunResult, *, kept: bool = False) -> str:
    stream = io.StringIO()
    print_summary(make_console(stream), sample, kept=kept)
    return stream.getvalue()


def test_a_step_in_a_pipe_is_one_plain_line(sample: RunResult) -> None:
    assert plain_line(sample.scenarios[0].steps[0]) == (
        "  PASS   ping red -> green  (0.4 s)  3 of 3 answered, 0.167 ms on average"
    )


def test_in_a_pipe_there_is_no_colour_no_box_and_no_padding(sample: RunResult) -> None:
    text = in_a_pipe(sample)
    assert "\x1b" not in text
    assert not any(character in text for character in "│╭━─")
    assert all(len(line) < 300 for line in text.splitlines())


def test_a_failure_says_what_was_expected_and_seen_the_state_and_what_to_type(sample: RunResult) -> None:
    text = in_a_pipe(sample)
    assert "FAIL  cross-node / ping red -> blue" in text
    assert "  expected      red → blue: 3 pings, all answered" in text
    assert "  attempts      4 in 10.0 s" in text
    assert "  look further  sudo .venv/bin/weavelab exec red -- ping -c 3 10.44.0.1" in text
    assert "bridge fdb show" not in text, "the whole states are in the other reports"
    assert "run again with --keep first" in text
    assert "run again with --keep first" not in in_a_pipe(sample, kept=True)


def test_the_last_line_counts(sample: RunResult) -> None:
    last = in_a_pipe(sample).splitlines()[-1]
    assert last == "10 steps: 5 passed, 3 failed, 1 could not be examined, 1 not run in 19.4 s"
    assert summary_line(Counts(steps=12, passed=12), 7.3).plain == "12 steps: 12 passed in 7.3 s"
    assert summary_line(Counts(steps=1, passed=1), 1).plain == "1 step: 1 passed in 1.0 s"
    assert summary_line(Counts(), 1.0, interrupted=True).plain == "0 steps: none run in 1.0 s (interrupted)"


def test_a_problem_beside_the_steps_is_shown_with_its_hint(sample: RunResult) -> None:
    text = in_a_pipe(
        msgspec.structs.replace(sample, problem=Problem(message="no room", hint="make some"), scenarios=())
    )
    assert "error: no room\nhint: make some\n" in text


def failing(sample: RunResult, *steps: dict[str, object]) -> RunResult:
    """The sample's failing ping, changed so or so, as one scenario."""
    step = next(one for scenario in sample.scenarios for one in scenario.steps if one.status is Status.FAIL)
    made = tuple(msgspec.structs.replace(step, **change) for change in steps)
    return msgspec.structs.replace(
        sample, scenarios=(msgspec.structs.replace(sample.scenarios[1], steps=made, name="s"),)
    )


def test_a_cause_stands_in_the_first_line_and_is_told_once(sample: RunResult) -> None:
    first = {"name": "a", "causes": ("node2 drops it; 3 of 3 came", "and b", "and c")}
    same = {"name": "b", "causes": ("node2 drops it; 1 of 3 came",), "seen": "0 of 3\nanswered"}
    other = {"name": "c", "causes": ("node3 is gone",)}
    text = in_a_pipe(failing(sample, first, same, other))
    lines = text.splitlines()
    assert "FAIL  s / a: node2 drops it; 3 of 3 came" in lines
    assert "  also          and b" in lines
    assert "                and c" in lines
    at = lines.index("FAIL  s / b: the same cause as of s / a")
    assert lines[at + 1] == "  seen          0 of 3 answered"
    assert "FAIL  s / c: node3 is gone" in lines
    assert text.count("run again with --keep first") == 1


def test_a_member_has_one_line_a_run(sample: RunResult) -> None:
    state = MemberState(
        name="node1",
        observations=(
            Observation(title="in short", text="agent ready"),
            Observation(title="ip route", text="long\n" * 99),
        ),
    )
    text = in_a_pipe(failing(sample, {"name": "a", "states": (state,)}, {"name": "b", "states": (state,)}))
    assert text.count("  node1         agent ready\n") == 1
    assert "long" not in text


EVIL = "\x1b[2J\x1b]0;title\x07\r\u202e"


@pytest.mark.parametrize("live", [True, False])
def test_text_that_would_command_the_terminal_is_shown_instead(sample: RunResult, live: bool) -> None:  # noqa: FBT001
    step = {key: f"{key}{EVIL}" for key in ("name", "seen", "expected", "next_command")}
    state = MemberState(name="red", observations=(Observation(title="in short", text=EVIL),))
    result = failing(sample, step | {"causes": (EVIL, EVIL), "states": (state,)})
    scenario = msgspec.structs.replace(result.scenarios[0], description=EVIL)
    result = msgspec.structs.replace(
        result, scenarios=(scenario,), problem=Problem(message=f"no {EVIL}", hint=f"yes {EVIL}")
    )
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=200, color_system=None) if live else make_console(stream)
    listener = TerminalListener(console)
    listener.step_ended(None, scenario.steps[0])  # type: ignore[arg-type]
    listener.scenario_ended(scenario)
    print_summary(console, result, kept=False)
    text = stream.getvalue()
    assert not any(character in text for character in EVIL if not character.isprintable())
    assert "\\x1b[2J\\x1b]0;title\\x07\\r\\u202e" in text


@pytest.mark.parametrize("width", [60, 80, 140])
def test_on_a_terminal_the_tables_fit_its_width(sample: RunResult, width: int) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, highlight=False, color_system=None)
    listener = TerminalListener(console)
    for scenario in sample.scenarios:
        listener.scenario_ended(scenario)
    print_summary(console, sample, kept=False)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "same-node" in stream.getvalue()
    assert "FAIL" in stream.getvalue()


def test_text_from_the_lab_is_no_markup(sample: RunResult) -> None:
    step = msgspec.structs.replace(
        sample.scenarios[1].steps[1], name="[red]x[/red] [/]", seen="[bold]", expected="[/x]"
    )
    scenario = msgspec.structs.replace(sample.scenarios[1], name="s", description="[/y]", steps=(step,))
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, color_system=None)
    TerminalListener(console).scenario_ended(scenario)
    print_summary(console, msgspec.structs.replace(sample, scenarios=(scenario,)), kept=False)
    assert "[red]x[/red] [/]" in stream.getvalue()


# ---------------------------------------------------------------------------------------------------------------- HTML


class Page(HTMLParser):
    """Text, tags and attributes of a page, and whether its tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(sample: RunResult) -> None:
    text = html_report(sample)
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert [value for _, name, value in page.attributes if name == "src"] == []
    links = [value for _, name, value in page.attributes if name in {"href", "xlink:href"}]
    assert links
    assert all(link.startswith("#") and link[1:] in page.ids for link in links)
    assert "url(" not in text
    assert "@import" not in text


def test_every_step_its_expectation_and_what_was_seen_are_on_the_page(sample: RunResult) -> None:
    from html import unescape

    text = unescape(html_report(sample))
    for scenario in sample.scenarios:
        for step in scenario.steps:
            assert step.name in text
            assert step.expected in text
            assert step.seen in text


def test_a_captured_frame_is_taken_apart_with_byte_counts(sample: RunResult) -> None:
    text = html_report(sample)
    assert "148 bytes on the wire: 50 of envelope + 98 that the pod sent" in text
    assert "<b>VXLAN</b><span>8</span>" in text
    assert "0000  " in text  # the hexdump


def test_what_fails_is_open_and_what_holds_is_closed_but_for_the_first_packets(sample: RunResult) -> None:
    text = html_report(sample)
    assert len(re.findall(r'<details class="step (?:fail|error)" id="[\w-]+" open>', text)) == 4
    assert re.findall(r'<details class="step (?:fail|error)" id="[\w-]+">', text) == []
    assert len(re.findall(r'<details class="step pass" id="[\w-]+" open>', text)) == 1


def test_text_from_the_lab_is_escaped(sample: RunResult) -> None:
    evil = "<script>alert(1)</script>"
    view = LabView(
        pod_range=evil,
        vni=1,
        underlay_mtu=1500,
        overlay_mtu=1450,
        segments=(SegmentView(name="lan", subnet=evil),),
        nodes=(NodeView(name=evil, segment="lan", pods=(PodView(name=evil),)),),
        outside_segment="lan",
        outside_address=evil,
    )
    step = msgspec.structs.replace(sample.scenarios[2].steps[1], name=evil, seen=evil, expected=evil)
    scenario = msgspec.structs.replace(sample.scenarios[2], description=evil, steps=(step,))
    run = msgspec.structs.replace(
        sample,
        description=evil,
        view=view,
        environment={evil: evil},
        scenarios=(scenario,),
        problem=Problem(message=evil),
    )
    text = html_report(run)
    assert "<script" not in text
    Page(text)


def test_a_run_without_lab_and_scenarios_still_makes_a_page(sample: RunResult) -> None:
    run = msgspec.structs.replace(
        sample,
        view=None,
        scenarios=(),
        counts=Counts(),
        phases=(),
        problem=Problem(message="node1 did not start", hint="see the log"),
    )
    text = html_report(run)
    assert "The lab did not come up" in text
    assert "node1 did not start" in text


def test_the_headline_is_the_verdict(sample: RunResult) -> None:
    assert headline(sample) == "5 of 10 steps hold, 3 fail, 1 could not be examined, 1 not run"
    good = msgspec.structs.replace(sample, status=Status.PASS, counts=Counts(steps=3, passed=3))
    assert headline(good) == "All 3 steps hold"
    stopped = msgspec.structs.replace(sample, interrupted=True, counts=Counts(steps=3, passed=1, failed=1, skipped=1))
    assert headline(stopped) == "Interrupted: 1 of 3 steps hold, 1 fails, 1 not run"


def test_the_timeline_adds_up_to_a_hundred(sample: RunResult) -> None:
    parts = times(sample)
    assert [part["name"] for part in parts] == ["bring up", "same-node", "cross-node", "all-pods", "take down"]
    assert sum(part["share"] for part in parts) == pytest.approx(100, abs=0.1)


def test_many_pairs_become_a_matrix_and_few_do_not(sample: RunResult) -> None:
    table = matrix(sample.scenarios[2].steps[0])
    assert table is not None
    assert table["targets"] == ["red", "green", "blue"]
    assert [source for source, _ in table["rows"]] == ["red", "green", "blue"]
    assert table["rows"][0][1][0] is None
    assert not table["rows"][1][1][2].ok
    assert matrix(sample.scenarios[0].steps[0]) is None


def test_the_bar_of_the_faster_is_full(sample: RunResult) -> None:
    item = sample.scenarios[0].steps[2].evidence[0]
    assert isinstance(item, IperfEvidence)
    assert [bar["width"] for bar in bars(item)] == [100.0, 96.2]
    assert [bar["kind"] for bar in bars(item)] == ["overlay", "underlay"]


# ------------------------------------------------------------------------------------------------------------- picture


def big_view(nodes: int, pods: int, segments: int = 1) -> LabView:
    names = [f"lan{index}" for index in range(segments)]
    return LabView(
        pod_range="10.32.0.0/12",
        vni=1,
        underlay_mtu=1500,
        overlay_mtu=1450,
        segments=tuple(SegmentView(name=name, subnet="10.0.0.0/24") for name in names),
        routers=(RouterView(name="core", segments=tuple(names)),) if segments > 1 else (),
        nodes=tuple(
            NodeView(
                name=f"node{index}",
                segment=names[index % segments],
                pods=tuple(PodView(name=f"p{index}-{pod}", address="10.32.0.1") for pod in range(pods)),
            )
            for index in range(nodes)
        ),
        outside_segment=names[0],
        outside_address="198.51.100.1",
    )


@pytest.mark.parametrize(
    ("nodes", "pods", "segments"), [(1, 0, 1), (2, 2, 1), (5, 10, 1), (7, 3, 3), (100, 2, 1), (0, 0, 1)]
)
def test_every_lab_has_a_picture_in_which_nothing_lies_outside(nodes: int, pods: int, segments: int) -> None:
    import xml.etree.ElementTree as ET

    svg = ET.fromstring(lab_picture(big_view(nodes, pods, segments)))
    width, height = (float(svg.get(name, "0")) for name in ("width", "height"))
    for rect in svg.iter("{http://www.w3.org/2000/svg}rect"):
        x, y, w, h = (float(rect.get(name, "0")) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height


def test_what_is_too_much_for_a_picture_is_counted() -> None:
    text = lab_picture(big_view(nodes=100, pods=12))
    assert "and 76 more" in text
    assert "and 3 more pods" in text
