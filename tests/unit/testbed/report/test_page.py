"""The HTML page for everybody: small screens, keyboards, screen readers, eyes that tell no red from green, paper."""

import itertools
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

import msgspec
import pytest

from testbed.report.html import html_report, pictures
from testbed.report.json_report import read_report
from testbed.report.picture import SCALE_MIN, lab_picture
from testbed.report.words import tally
from testbed.scenario.results import (
    LabView,
    NodeView,
    PodView,
    RouterView,
    RunResult,
    SegmentView,
    Status,
    StepResult,
)
from tests.support.project import GOLDEN, ROOT

SAMPLE = GOLDEN / "report" / "sample.json"
CSS = (ROOT / "templates" / "report.css").read_text()
VOID = {"meta", "br", "hr", "img", "input", "link"}
PHONE_ROOM = 360 - 54
"""A phone of 360 px, less margins, paddings and borders."""


@pytest.fixture
def sample() -> RunResult:
    return read_report(SAMPLE.read_bytes())


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    parent: "Element | None"
    text: str = ""
    children: "list[Element]" = field(default_factory=list)

    @property
    def classes(self) -> set[str]:
        return set(self.attributes.get("class", "").split())

    def above(self) -> "list[Element]":
        return [] if self.parent is None else [self.parent, *self.parent.above()]

    def below(self) -> "list[Element]":
        return [found for child in self.children for found in (child, *child.below())]


class Document(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = self.here = Element("", {}, None)
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, self.here)
        self.here.children.append(element)
        if tag not in VOID:
            self.here = element

    def handle_endtag(self, tag: str) -> None:
        assert self.here.parent is not None
        self.here = self.here.parent

    def handle_data(self, data: str) -> None:
        for element in (self.here, *self.here.above()):
            element.text += data

    def all(self, tag: str = "", of_class: str = "") -> list[Element]:
        return [
            element
            for element in self.root.below()
            if (not tag or element.tag == tag) and (not of_class or of_class in element.classes)
        ]


@pytest.fixture
def page(sample: RunResult) -> Document:
    return Document(html_report(sample))


def view(nodes: int, pods: int, segments: int = 1) -> LabView:
    names = [f"lan{index}" for index in range(segments)]
    return LabView(
        pod_range="10.32.0.0/12",
        vni=1,
        underlay_mtu=1500,
        overlay_mtu=1450,
        segments=tuple(SegmentView(name=name, subnet="192.168.56.0/24") for name in names),
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


# ------------------------------------------------------------------------------------------------------------- screens


def narrowest(svg: str) -> int:
    found = re.search(r"min-width:(\d+)px", svg)
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("nodes", [1, 2, 5, 20])
@pytest.mark.parametrize("pods", [0, 1, 3, 9])
def test_the_picture_of_a_lab_of_one_segment_fits_every_screen(nodes: int, pods: int) -> None:
    for width, room in ((1240, 900 - 97), (660, 560 - 69), (330, PHONE_ROOM)):
        assert narrowest(lab_picture(view(nodes, pods), width_max=width)) <= room


def test_five_nodes_are_two_rows_of_about_one_length() -> None:
    svg = lab_picture(view(5, 2))
    tops = re.findall(r'<rect class="node" x="[\d.]+" y="([\d.]+)"', svg)
    assert [tops.count(top) for top in dict.fromkeys(tops)] == [3, 2]


def test_a_picture_that_is_wider_than_the_window_says_so_there_and_only_there(sample: RunResult) -> None:
    many = view(8, 3, segments=4)
    found = {kind: one for one in pictures(many) for kind in one["kinds"]}
    assert set(found) == {"wide", "middle", "narrow"}
    assert found["narrow"]["pan_below"] is None  # wider than any page
    few = pictures(view(2, 2, segments=2))
    assert {kind for one in few for kind in one["kinds"]} == {"wide", "middle", "narrow"}
    for one in few:
        assert one["pan_below"] == narrowest(one["svg"]) + (69 if one["kinds"][0] == "narrow" else 97)
    text = html_report(msgspec.structs.replace(sample, view=many))
    assert "}.picture.wide + .pan { display: block; }" in text.replace("\n", "")
    one = few[0]
    rule = f"@media (max-width: {one['pan_below']}px) {{ .picture.{one['kinds'][0]} + .pan {{ display: block; }} }}"
    assert rule in html_report(msgspec.structs.replace(sample, view=view(2, 2, segments=2)))
    assert "The picture is wider than this window: move it sideways." in text
    assert SCALE_MIN * 12 > 7  # the smallest text is still read


def test_each_screen_shows_one_of_the_pictures() -> None:
    for kind in ("wide", "middle", "narrow"):
        assert f".picture:not(.{kind})" in CSS


def test_no_table_has_columns_beside_a_small_screen(page: Document) -> None:
    tables = page.all("table")
    assert tables
    for table in tables:
        assert "cards" in table.classes or any("scroll" in above.classes for above in table.above())
    small = CSS[CSS.index("@media (max-width: 640px)") :]
    assert ".cards tr { display: block;" in small
    assert ".overview li { grid-template-columns: 1fr max-content;" in small
    for cell in page.all("td"):
        table = next(above for above in cell.above() if above.tag == "table")
        if "cards" in table.classes:  # there the head of the table is not seen
            assert cell.attributes.get("data-label") or cell.classes & {"mark", "what"}


# ------------------------------------------------------------------------------------------------- keyboard and reader


def test_what_opens_shows_a_mark(page: Document) -> None:
    steps = page.all("details", "step")
    assert len(steps) == 10
    for details in page.all("details"):
        assert details.children[0].tag == "summary"
    assert re.search(r"\.step > summary::before \{[^}]*border-left-color", CSS)
    assert ".step[open] > summary::before { transform: rotate(90deg); }" in CSS
    hidden = re.findall(r"([^{}]*)\{[^}]*list-style: none[^}]*\}", CSS)
    assert [one for one in hidden if "summary" in one and ".step > summary" not in one] == []


def test_what_scrolls_sideways_can_be_reached_by_keyboard_and_has_a_name(page: Document) -> None:
    regions = page.all(of_class="scroll")
    assert regions
    for region in regions:
        assert region.attributes["tabindex"] == "0"
        assert region.attributes["role"] == "region"
        assert region.attributes["aria-label"]
    assert all(pre.attributes.get("tabindex") == "0" for pre in page.all("pre"))


def test_every_section_and_picture_has_a_name_and_ids_are_unique(page: Document) -> None:
    ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
    assert len(set(ids)) == len(ids)
    for element in page.all("section") + page.all("nav"):
        assert element.attributes["aria-labelledby"] in ids
    for element in page.all():
        if element.attributes.get("role") == "img":
            assert element.attributes["aria-label"]


def test_headings_form_an_outline_without_gaps(page: Document) -> None:
    levels = [int(element.tag[1]) for element in page.all() if re.fullmatch("h[1-6]", element.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_the_lab_is_told_in_words_beside_its_picture(page: Document) -> None:
    (roster,) = page.all("details", "roster")
    assert "node1 on lan: uplink 192.168.56.11, switch " in roster.text
    assert "red 10.32.0.2" in roster.text


# -------------------------------------------------------------------------------------------------------------- colours


def test_no_verdict_is_told_by_colour_alone(page: Document) -> None:
    words = {"pass": "holds", "fail": "fails", "error": "not examined", "skip": "not run"}
    marks = {"pass": "✓", "fail": "✗", "error": "!", "skip": "–"}  # noqa: RUF001 - as on the page
    assert len(page.all(of_class="chip")) >= 13
    for chip in page.all(of_class="chip"):
        (verdict,) = chip.classes - {"chip"}
        assert chip.text == f"{marks[verdict]} {words[verdict]}"
    for dot in page.all(of_class="dot"):
        (verdict,) = dot.classes - {"dot"}
        assert dot.text == marks[verdict]
    for row in page.all("tr", "pass") + page.all("tr", "fail"):
        assert row.children[0].text in {"✓holds", "✗fails"}
    for cell in page.all("td", "fail"):
        assert cell.text.startswith("✗ ")


def _luminance(colour: str) -> float:
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _themes() -> list[dict[str, str]]:
    blocks = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    ]
    return [block for block in blocks if len(block) > 10]


@pytest.mark.parametrize("theme", _themes())
def test_text_stands_out_from_what_is_behind_it(theme: dict[str, str]) -> None:
    pairs = [(ink, ground) for ink in ("ink", "quiet") for ground in ("bg", "card", "sunk") if ground in theme]
    pairs += [(verdict, f"{verdict}-bg") for verdict in ("pass", "fail", "error", "skip")]
    pairs += [(verdict, "card") for verdict in ("pass", "fail", "error", "skip", "overlay", "underlay")]
    pairs += [("overlay", "overlay-bg"), ("underlay", "underlay-bg"), ("ink", "overlay-bg"), ("ink", "underlay-bg")]
    for front, behind in pairs:
        bright, dark = sorted((_luminance(theme[front]), _luminance(theme[behind])), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, f"--{front} on --{behind}"


# ------------------------------------------------------------------------------------------------- verdicts and causes


def test_a_scenario_that_failed_is_not_called_not_examined(page: Document) -> None:
    (overview,) = page.all("ol", "overview")
    row = overview.children[2]
    assert "✗ fails" in row.text
    assert "not examined" not in row.text
    assert "1 fails, 1 could not be examined, 1 was not run, 1 holds" in row.text


def test_a_tally_names_every_kind_of_verdict() -> None:
    def steps(**counts: int) -> list[StepResult]:
        return [
            StepResult(name="", kind="ping", status=Status(name.rstrip("_")))
            for name, count in counts.items()
            for _ in range(count)
        ]

    assert tally(steps(pass_=1)) == "1 holds"
    assert tally(steps(pass_=3, fail=2, error=1)) == "2 fail, 1 could not be examined, 3 hold"
    assert tally(steps(skip=2)) == "2 were not run"
    assert tally([]) == ""


def test_what_does_not_hold_is_listed_first_with_its_cause_and_a_link(page: Document, sample: RunResult) -> None:
    (listed,) = page.all("ul", "failures")
    assert len(listed.children) == 4
    assert sample.scenarios[1].steps[1].causes[0] in listed.children[0].text
    for entry in listed.children:
        (link,) = (element for element in entry.below() if element.tag == "a")
        (step,) = (one for one in page.all("details", "step") if one.attributes["id"] == link.attributes["href"][1:])
        assert "open" in step.attributes
    assert "step-2-2" in [one.attributes["id"] for one in page.all("details", "step")]


def test_causes_stand_at_the_top_of_a_failed_step(page: Document) -> None:
    (causes,) = page.all("div", "causes")
    body = causes.parent
    assert body is not None
    assert body.children[0] is causes
    assert "The causes, the most likely first" in causes.text


def test_a_chaos_step_names_its_seed_and_a_repetition_its_number(sample: RunResult) -> None:
    step = StepResult(name="chaos", kind="chaos", status=Status.PASS, seed=4711)
    scenario = msgspec.structs.replace(sample.scenarios[0], name="same-node#2", steps=(step,), repetition=2)
    text = html_report(msgspec.structs.replace(sample, scenarios=(sample.scenarios[0], scenario)))
    assert "<dt>seed</dt><dd>4711</dd>" in text
    assert ">same-node#2</a>" in text
    assert Document(text).all("section", "scenario")[1].attributes["id"] == "scenario-2"


def test_paper_gets_every_step_and_light_colours() -> None:
    printed = CSS[CSS.index("@media print") :]
    assert ".step::details-content { content-visibility: visible; display: block; }" in printed
    assert "white-space: pre-wrap" in printed
    assert "--card: #ffffff;" in printed


def test_the_page_forbids_itself_scripts_and_anything_from_elsewhere(page: Document) -> None:
    (policy,) = (one for one in page.all("meta") if one.attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.attributes["content"] == "default-src 'none'; style-src 'unsafe-inline'"
