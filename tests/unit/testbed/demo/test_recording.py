"""The recording: which pages are kept, and that the picture stands for itself."""

import io
import re
import xml.etree.ElementTree as ET

import pytest
from click.testing import CliRunner
from rich.text import Text

from testbed.cli.demo import demo_command
from testbed.demo.pager import Pager
from testbed.demo.paper import Block, Sheet
from testbed.demo.recording import SCENES, Recorder, Scene, recording
from testbed.demo.stage import DemoError
from testbed.demo.steps import STEPS
from testbed.machine import screen
from testbed.machine.checkout import PROJECT
from tests.support.project import ROOT

SVG = "{http://www.w3.org/2000/svg}"
BYTES_MAX = 200_000


def record(steps: dict[str, list[str]], answers: dict[str, str]) -> Recorder:
    """Play steps of these pages for a recorder."""
    recorder, names = Recorder(list(steps), io.StringIO()), iter(steps)

    def play() -> Sheet:
        name = next(names)
        number = list(steps).index(name) + 1
        sheet = Sheet(name=name, heading=f"{number} of {len(steps)}  {name}")
        for text in steps[name]:
            sheet.blocks.append(Block(Text(text + "\nx" * 15), opens=True, gap=True))
        sheet.answers = [Block(Text(answers.get(name, "")))]
        return sheet

    Pager(recorder, [(name, name) for name in steps], play).tour()
    return recorder


def pages_of_scenes() -> tuple[dict[str, list[str]], dict[str, str]]:
    steps = {name: ["nothing to see"] for name in STEPS}
    for scene in SCENES:
        if not scene.answer:
            steps[scene.step].append(scene.text)
    return steps, {scene.step: scene.text for scene in SCENES if scene.answer}


def test_every_scene_is_looked_for_and_kept_in_its_order() -> None:
    recorder = record(*pages_of_scenes())
    assert [scene for scene, _ in recorder.kept] == list(SCENES)
    for scene, lines in recorder.kept:
        assert len(lines) == 24
        assert scene.text in "\n".join(line.plain for line in lines)


def test_scenes_of_a_step_that_the_lab_does_not_have_are_left_out() -> None:
    steps, answers = pages_of_scenes()
    del steps["routers"]
    assert [scene for scene, _ in record(steps, answers).kept] == [each for each in SCENES if each.step != "routers"]


def test_a_page_that_is_not_there_any_more_is_an_error() -> None:
    steps, answers = pages_of_scenes()
    steps["pod"] = ["nothing to see"]
    with pytest.raises(DemoError, match="wanted a page of step pod with 'CNI_COMMAND=ADD'"):
        record(steps, answers)


def test_a_run_of_text_has_its_place_its_width_and_its_style() -> None:
    line = Text.assemble("a<b ", ("PASS", screen.GOOD), f" in {PROJECT}/x")
    svg = recording([(Scene("pod", "", 1), [Text("1 of 1  t"), line])], command="weavelab demo")
    root = ET.fromstring(svg)
    found = {element.text: element for element in root.iter(f"{SVG}text")}
    assert {"a<b ", "PASS", " in x"} <= set(found)
    assert found["PASS"].get("class") == "b"
    assert found["PASS"].get("style") == "fill:#0087ff"
    widths = {text: float(found[text].get("textLength", 0)) for text in ("a<b ", "PASS", " in x")}
    assert widths["PASS"] / 4 == pytest.approx(widths[" in x"] / 5, abs=0.1)
    assert float(found["PASS"].get("x", 0)) == pytest.approx(float(found["a<b "].get("x", 0)) + widths["a<b "])
    assert str(PROJECT) not in svg


def check_picture(svg: str) -> None:
    """A picture that GitHub shows: it loads nothing, executes nothing, and is no burden."""
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert len(svg) < BYTES_MAX
    known = {"svg", "title", "desc", "style", "rect", "path", "text", "g"}
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= known
    assert not any(name.startswith("on") or "href" in name for element in root.iter() for name in element.attrib)
    assert re.findall(r"url\(|@import|@font-face", svg) == []
    assert re.findall(r"https?://\S+?(?=[\"'\s])", svg) == ["http://www.w3.org/2000/svg"]
    assert "prefers-reduced-motion" in svg
    pages = list(root.iter(f"{SVG}g"))
    assert len({element.get("id") for element in pages}) == len(pages)
    assert sum("still" in (element.get("class") or "") for element in pages) == 1


def test_what_is_recorded_is_a_picture_for_itself() -> None:
    check_picture(recording(record(*pages_of_scenes()).kept, command="weavelab demo"))


def test_the_recording_of_the_documentation_shows_the_demo_as_it_is_now() -> None:
    """`make recording` makes it anew."""
    svg = (ROOT / "docs/demo.svg").read_text()
    check_picture(svg)
    told = ["".join(element.itertext()) for element in ET.fromstring(svg).iter(f"{SVG}g")]
    assert len(told) == len(SCENES)
    for scene, page in zip(SCENES, told, strict=True):
        assert scene.text in page, "the recording is older than the demo: make recording"
        assert f"{list(STEPS).index(scene.step) + 1} of {len(STEPS)}" in page
    assert re.findall(r"/(?:work|tmp|root|home)/\S*", svg) == []


def test_a_recording_leads_itself() -> None:
    done = CliRunner().invoke(demo_command, ["--record", "x.svg", "--auto"])
    assert done.exit_code == 2
    assert "without --auto" in done.output
