"""Nothing in the terminal is told by a colour alone: with or without colours the words are the same.

And styles come from one module, whose colours are told apart by people with any of the usual colour blindnesses.
"""

import ast
import io
import re
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import msgspec
import pytest
from rich.ansi import AnsiDecoder
from rich.color import Color
from rich.errors import StyleSyntaxError
from rich.style import Style
from rich.text import Text

from plugin.core.packet.frame import dissect
from testbed.demo.paper import COLUMNS, Block, Sheet, heading_of, lines_of
from testbed.demo.show import make_table
from testbed.demo.stage import Stage
from testbed.demo.texts import LESSONS
from testbed.lab import progress
from testbed.lab.tables import print_tables
from testbed.machine import screen
from testbed.probes.packet_view import render, render_hex
from testbed.report.json_report import read_report
from testbed.report.terminal import TerminalListener, print_summary
from testbed.scenario.results import Problem
from tests.support.project import GOLDEN, ROOT

FRAMES_AND_SPINNERS = re.compile(r"[\u2500-\u259f\u2800-\u28ff]")
VERDICT = re.compile(
    r"PASS|FAIL|ERROR|SKIP|\d+ (passed|failed|could not be examined|not run)|none run| \(interrupted\)|error:"
    r"|ready|starting|not running|no answer|not whole|failed|pending"
)


class Tty(io.StringIO):
    """A terminal of 100 columns, as far as a program asks."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError


# ------------------------------------------------------------------------------------------- everything that is coloured


def run_report(stream: Tty) -> None:
    sample = read_report((GOLDEN / "report" / "sample.json").read_bytes())
    sample = msgspec.structs.replace(sample, problem=Problem(message="no room", hint="make some"), interrupted=True)
    listener = TerminalListener(screen.make_console(stream))
    for scenario in sample.scenarios:
        listener.scenario_ended(scenario)
    print_summary(listener.console, sample, kept=False)


NODE = {
    "name": "node1", "others": 3, "endpoints": 4, "log": "", "uplink_address": "192.168.56.11", "bridge_address": "10.32.0.1", "ready": True,
    "agent": {"alive": True, "answers": True}, "ipam": {"owners": None, "status": "ready"}, "pods": 1, "mtu": 1450,
    "problems": [
        {"object": "link vxlan-6784", "cause": "not up", "since": "2026-01-02T03:04:05Z", "advice": "release it"}
    ],
    "repairs": [], "held": [], "peers": [], "digest": "",
}  # fmt: skip


def status_tables(stream: Tty, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        NODE,
        NODE | {"name": "node2", "ready": False},
        NODE | {"name": "node3", "ready": False, "agent": {"alive": False, "answers": False}},
        NODE | {"name": "node4", "ready": False, "agent": {"alive": True, "answers": False}},
    ]
    trouble = [
        {"from": "node1", "to": "node2", "state": state, "reason": "nobody hears it"} for state in ("failed", "pending")
    ]
    lab = {
        "name": "lab", "phase": "ready", "step": "", "problem": "", "created": "2026-01-02T03:04:05Z",
        "range": "10.32.0.0/12", "topology": "t", "topology_file": "", "nodes": nodes, "pods": [],
        "pairs_in_trouble": trouble, "views": [], "pods_unfinished": [],
    }  # fmt: skip
    monkeypatch.setattr(sys, "stdout", stream)
    print_tables([lab])


def demo_sheet() -> Sheet:
    frame = dissect(bytes.fromhex("".join(re.findall(r"^[^#\n]+", FRAME.read_text(), re.MULTILINE)).replace(" ", "")))
    stage, sheet = Stage(restaurant=True), Sheet(name="cross-node", heading="5 of 8  Other node")
    stage.begin(sheet)
    stage.say("A sentence.")
    stage.command("sudo .venv/bin/weavelab exec red -- ping 10.40.0.2")
    stage.output("1 received", mark=("1 received",))
    stage.label("environment:")
    table = make_table("captured meanwhile", "frames")
    table.add_row("pod red", Text("6", style=screen.MARK))
    stage.show(table)
    stage.show(render(frame, explain=True, fields=True))
    stage.show(render_hex(frame))
    lesson = LESSONS["cross-node"]
    stage.lesson_end(lesson.question, lesson.answers, lesson.restaurant)
    return sheet


FRAME = next(iter(sorted((GOLDEN / "packets").glob("*vxlan*.hex"))))


def demo(stream: Tty) -> None:
    console, sheet = screen.make_console(stream, width=COLUMNS), demo_sheet()
    for block in (Block(heading_of(sheet.heading)), *sheet.blocks, *sheet.answers):
        for line in lines_of(console, block.what, COLUMNS):
            console.print(line, soft_wrap=True)


def bar(stream: Tty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.for_terminal() as shown:
        for title, total in (("nodes", 4), ("agents", 2), ("endpoints", 0)):
            shown.phase(title, total)
            shown.advance_to(total)
        shown.note("node2 was slow")


OUTPUTS: dict[str, Callable[[Tty, pytest.MonkeyPatch], None]] = {
    "run": lambda stream, _monkeypatch: run_report(stream),
    "status": status_tables,
    "demo": lambda stream, _monkeypatch: demo(stream),
    "progress": bar,
}


def shown(name: str, monkeypatch: pytest.MonkeyPatch, **env: str) -> str:
    """What a terminal gets to see in that environment, escape sequences with it."""
    for variable in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "WEAVELAB_PLAIN"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in {"TERM": "xterm-256color", "COLUMNS": "100", **env}.items():
        monkeypatch.setenv(variable, value)
    stream = Tty()
    OUTPUTS[name](stream, monkeypatch)
    monkeypatch.undo()
    return stream.getvalue()


def words(text: str) -> list[str]:
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return FRAMES_AND_SPINNERS.sub(" ", re.sub(r"\d:\d\d:\d\d", "", text)).split()


COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9]+)*m")


@pytest.mark.parametrize("name", OUTPUTS)
def test_without_colours_the_words_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    coloured, bare = shown(name, monkeypatch), shown(name, monkeypatch, NO_COLOR="1")
    assert COLOUR.search(coloured), "there is something to leave out"
    assert COLOUR.search(bare) is None
    assert words(bare) == words(coloured)


@pytest.mark.parametrize("env", [{"WEAVELAB_PLAIN": "1"}, {"TERM": "dumb"}], ids=["WEAVELAB_PLAIN", "TERM=dumb"])
@pytest.mark.parametrize("name", OUTPUTS)
def test_plain_lines_have_neither_escape_sequences_nor_frames_nor_spinners(
    name: str, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = shown(name, monkeypatch, **env)
    assert plain.strip()
    assert "\x1b" not in plain
    assert FRAMES_AND_SPINNERS.search(plain) is None
    verdicts = {word for word in words(shown(name, monkeypatch)) if VERDICT.fullmatch(word)}
    assert verdicts <= set(words(plain)) | {"PASS", "SKIP"}, "those two are told as the run goes"


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_is_coloured_as_a_verdict_is_the_verdicts_word(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = {Style.parse(style) for style in (screen.GOOD, screen.BAD, screen.BROKEN)}
    seen = []
    for line in AnsiDecoder().decode(shown(name, monkeypatch)):
        for span in line.spans:
            text = FRAMES_AND_SPINNERS.sub("", line.plain[span.start : span.end]).strip("╭╮╰╯ ")
            if text and isinstance(span.style, Style) and with_names(span.style) in verdicts:
                seen.append((text, line.plain))
    verdict_words = [text for text, _ in seen if VERDICT.fullmatch(text)]
    assert bool(verdict_words) is (name in {"run", "status"})
    for text, line_of_it in seen:  # a command, or the heading of a failure, which begins with its verdict
        assert VERDICT.fullmatch(text) or text.startswith("$ ") or re.match(r"╭─ (FAIL|ERROR)  ", line_of_it), text


def with_names(style: Style) -> Style:
    """A decoded style with colours as `screen` writes them."""
    if style.color is None or style.color.number is None:
        return style
    names = {Color.parse(name).number: name for name in colours()}
    return style + Style(color=names.get(style.color.number, style.color))


# ------------------------------------------------------------------------------------------------------------ the palette


def styles() -> dict[str, str]:
    return {
        name: value
        for name, value in vars(screen).items()
        if name.isupper() and isinstance(value, str) and name[0] != "_"
    }


def colours() -> set[str]:
    parsed = [Style.parse(style) for style in styles().values()]
    return {style.color.name for style in parsed if style.color is not None}


def test_there_are_two_hues_and_every_style_can_be_parsed() -> None:
    assert len(colours()) == 2


def luminance(name: str) -> float:
    parts = [value / 255 for value in Color.parse(name).get_truecolor()]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("name", sorted(colours()))
def test_a_colour_can_be_read_on_white_and_on_black(name: str) -> None:
    on_white, on_black = 1.05 / (luminance(name) + 0.05), (luminance(name) + 0.05) / 0.05
    assert min(on_white, on_black) >= 3  # WCAG 2.2, 1.4.11: what is more than text; every word is there without it


# Viénot, Brettel, Mollon (1999): what somebody without red or green cones sees, in linear RGB.
BLINDNESS = {
    "protanopia": ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0)),
    "deuteranopia": ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0)),
}


@pytest.mark.parametrize("kind", BLINDNESS)
def test_the_two_hues_stay_two_for_who_is_colour_blind(kind: str) -> None:
    def seen(name: str) -> list[float]:
        linear = [(value / 255) ** 2.2 for value in Color.parse(name).get_truecolor()]
        return [sum(part * weight for part, weight in zip(linear, row, strict=True)) for row in BLINDNESS[kind]]

    for one, other in combinations(sorted(colours()), 2):
        assert sum((a - b) ** 2 for a, b in zip(seen(one), seen(other), strict=True)) ** 0.5 > 0.5
    assert sum((a - b) ** 2 for a, b in zip(seen("green"), seen("red"), strict=True)) ** 0.5 < 0.5, "as these do not"


# ------------------------------------------------------------------------------------------------- one source of styles


def is_style(text: str) -> bool:
    """Whether rich would take the text for a style that changes something; one letter or two are rarely meant so."""
    try:
        return len(text) > 2 and bool(Style.parse(text)) and text not in {"none", "default"}
    except StyleSyntaxError:
        return False


def own_styles(path: Path) -> list[str]:
    """Styles that a file has of its own: as an argument, beside a text, or as markup."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            found += [
                each.value for each in node.keywords if each.arg is not None and each.arg.endswith(("style", "fg"))
            ]
        elif isinstance(node, ast.Tuple) and len(node.elts) == 2:
            found.append(node.elts[1])
        elif isinstance(node, ast.Dict):
            found += node.values
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += [ast.Constant(tag) for tag in re.findall(r"(?<!\\)\[([a-z][a-z0-9_ ]*)\]", node.value)]
    return [
        each.value
        for each in found
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and is_style(each.value)
    ]


DRAWN = {"report/picture.py", "report/html.py", "report/graph.py", "demo/recording.py"}
"""Pictures, which have colours of their own."""


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "testbed").rglob("*.py")),
    ids=lambda path: str(path.relative_to(ROOT / "testbed")),
)
def test_no_file_has_styles_of_its_own(path: Path) -> None:
    if str(path.relative_to(ROOT / "testbed")) not in DRAWN | {"machine/screen.py"}:
        assert own_styles(path) == [], "take those of testbed.machine.screen"


def test_a_style_of_its_own_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text('a(style="bold red")\nb = Text.assemble(("x", "green"))\nc = {1: "dim"}\nd = f"[red]{a}[/red]"\n')
    assert sorted(own_styles(path)) == ["bold red", "dim", "green", "red"]
