"""How steps fill pages, and where keys lead: without a terminal and without a lab."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from testbed.demo.pager import Pager
from testbed.demo.paper import Block, Lines, Sheet, paginate
from testbed.machine import screen


def group(first: str, length: int, *, blank_at: int | None = None) -> Lines:
    return [Text("" if number == blank_at else f"{first}{number}") for number in range(length)]


def plain(pages: list[Lines]) -> list[list[str]]:
    return [[line.plain for line in page] for page in pages]


# ------------------------------------------------------------------------------------------------------------- the pages


def test_there_is_a_page_even_of_nothing() -> None:
    assert paginate([], 22) == [[]]


def test_what_fits_shares_a_page_with_a_line_between() -> None:
    assert plain(paginate([group("a", 2), group("b", 1)], 5)) == [["a0", "a1", "", "b0"]]


def test_a_group_that_does_not_fit_any_more_begins_the_next_page_whole() -> None:
    assert plain(paginate([group("a", 3), group("b", 3)], 5)) == [["a0", "a1", "a2"], ["b0", "b1", "b2"]]


def test_a_group_longer_than_a_page_is_cut_at_a_blank_line_of_its_second_half() -> None:
    pages = plain(paginate([group("a", 14, blank_at=7)], 10))
    assert pages == [[f"a{n}" for n in range(7)], [f"a{n}" for n in range(8, 14)]]


def test_a_title_is_not_left_alone_at_the_end_of_a_page() -> None:
    lines = [Text(text) for text in ("a", "b", "c", "d", "e", "", "title", "", "f", "g", "h", "i")]
    assert plain(paginate([lines], 9)) == [["a", "b", "c", "d", "e"], ["title", "", "f", "g", "h", "i"]]


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 22])
@pytest.mark.parametrize("lengths", [(1,), (50,), (5, 50, 1), (22, 22), (3, 3, 3, 3, 40, 3)])
def test_no_page_is_longer_than_the_screen_and_no_line_is_lost(rows: int, lengths: tuple[int, ...]) -> None:
    groups = [group(f"g{index}-", length) for index, length in enumerate(lengths)]
    pages = paginate(groups, rows)
    assert max(map(len, pages)) <= rows
    kept = [line for page in plain(pages) for line in page if line]
    assert kept == [line.plain for lines in groups for line in lines]


# -------------------------------------------------------------------------------------------------------------- the keys


class Scripted:
    """A display whose keys are known beforehand; what was painted is kept."""

    def __init__(self, keys: list[str], *, columns: int = 80, rows: int = 4) -> None:
        self.keys, self.columns, self.rows = keys, columns, rows
        self.console: Console = screen.make_console(io.StringIO(), width=columns)
        self.painted: list[tuple[str, str, str]] = []
        self.forgotten = 0

    def paint(self, heading: str, lines: Lines, prompt: str) -> None:
        self.painted.append((heading, "|".join(line.plain for line in lines), prompt))

    def busy(self, heading: str, text: str) -> None:
        raise AssertionError

    def forget(self) -> None:
        self.forgotten += 1

    def key(self) -> str:
        return self.keys.pop(0)


def tour(keys: list[str], *, pages: tuple[int, ...] = (2, 1, 1), first: int = 0) -> tuple[Scripted, list[int]]:
    """Three steps, of so many pages; what was painted, and which steps were played."""
    display, played = Scripted(keys), []

    def play() -> Sheet:
        number = len(played)
        played.append(number)
        sheet = Sheet(name=f"s{number}", heading=f"step {number + 1}")
        for page in range(pages[number]):
            sheet.blocks.append(Block(Text(f"{number + 1}.{page + 1}\nx"), opens=True, gap=True))
        sheet.answers = [Block(Text("the answer"))]
        return sheet

    Pager(display, [("s0", "one"), ("s1", "two"), ("s2", "three")], play).tour(first)
    assert display.keys == []
    return display, played


def seen(display: Scripted) -> list[str]:
    return [body.partition("|")[0] for _, body, _ in display.painted]


def test_forward_goes_through_pages_then_steps_and_ends_after_the_last() -> None:
    display, played = tour(["next"] * 4)
    assert seen(display) == ["1.1", "1.2", "2.1", "3.1"]
    assert played == [0, 1, 2]
    assert display.forgotten == 3, "what is typed while a step is played turns no page"
    assert display.painted[-1][2].startswith("space: end")


def test_back_leads_to_the_last_page_of_the_step_before_and_plays_nothing_again() -> None:
    display, played = tour(["next", "next", "back", "back", "back", "end"])
    assert seen(display) == ["1.1", "1.2", "2.1", "1.2", "1.1", "1.1"]
    assert played == [0, 1]


def test_a_number_plays_the_steps_before_it_unseen() -> None:
    display, played = tour(["3", "1", "end"])
    assert seen(display) == ["1.1", "3.1", "1.1"]
    assert played == [0, 1, 2]


def test_a_number_without_a_step_and_a_key_without_a_meaning_do_nothing() -> None:
    display, _ = tour(["9", "0", "x", "resized", "²", "end"])
    assert seen(display) == ["1.1"] * 6


def test_the_answer_comes_and_goes_on_the_page_of_the_question() -> None:
    display, _ = tour(["answer", "answer", "end"])
    assert "the answer" not in display.painted[0][1]
    assert display.painted[1][1].endswith("the answer")
    assert "a: hide" in display.painted[1][2]
    assert display.painted[2][1].endswith("(a: the answer)")


def test_the_help_names_keys_and_steps_and_leads_back() -> None:
    display, _ = tour(["next", "next", "help", "resized", "x", "end"])
    for _, body, prompt in display.painted[3:5]:
        assert prompt == "any key: back to the demo"
        assert "1  s0" in body
        assert body.count("you are here") == body.count("seen") == 1
    assert seen(display)[5] == "2.1"


def test_the_first_step_to_be_seen_may_be_a_later_one() -> None:
    display, played = tour(["end"], first=2)
    assert seen(display) == ["3.1"]
    assert played == [0, 1, 2]


@pytest.mark.parametrize("columns", [80, 60, 40, 24])
def test_the_prompt_fits_and_always_says_how_to_end_and_where_the_help_is(columns: int) -> None:
    display = Scripted(["end"], columns=columns)
    Pager(display, [("s", "one")] * 9, lambda: Sheet("s", "h", [Block(Text("x"))])).tour()
    (_, _, prompt) = display.painted[0]
    assert len(prompt) <= columns
    assert "?: help   q: end" in prompt
    assert prompt.endswith(("page 1 of 1", "1/1"))
