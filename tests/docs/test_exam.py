"""The page on the exam has the demo's questions: one source for both, `testbed.demo.texts`."""

import os

from testbed.demo.steps import STEPS
from testbed.demo.texts import LESSONS
from tests.support.project import ROOT

PAGE = ROOT / "docs/exam.md"
HEADING = "## The questions of the demo\n"
NAMES = {"node": "a node", "routers": "the routers"}


def questions() -> str:
    """A question a step, its answer folded away."""
    parts = []
    for name in STEPS:
        lesson = LESSONS[name]
        answer = "\n".join(lesson.answers)
        parts.append(
            f"**{lesson.title.format_map(NAMES)}** (`weavelab demo --step {name}`)\n\n{lesson.question}\n\n"
            f"<details><summary>answer</summary>\n\n```\n{answer}\n```\n\n</details>\n"
        )
    return "\n".join(parts)


def test_the_page_on_the_exam_has_the_questions_of_the_demo_and_their_answers() -> None:
    before, heading, section = PAGE.read_text().partition(HEADING)
    assert heading
    begin = section.find("\n**")
    introduction = section[: begin + 1] if begin >= 0 else section
    page = before + heading + introduction + questions()
    if os.environ.get("UPDATE_GOLDENS"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page, "UPDATE_GOLDENS=1 .venv/bin/pytest tests/docs/test_exam.py writes it anew"
