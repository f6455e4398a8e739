"""What a terminal would obey is shown to it instead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.machine.printable import one_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("red → blue, 3 of 3\n\tand more", "red → blue, 3 of 3\n\tand more"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("good\rbad", "good\\rbad"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("abc\u202edcb", "abc\\u202edcb"),
        ("\udcff", "\\udcff"),
    ],
)
def test_control_characters_become_visible(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_one_line_has_one() -> None:
    assert one_line("a\n b\x1bc") == "a b\\x1bc"


@given(st.text())
def test_nothing_that_commands_a_terminal_is_left_and_the_rest_stays(text: str) -> None:
    shown = printable(text)
    assert all(character in "\n\t" or character.isprintable() or ord(character) >= 0xA0 for character in shown)
    assert printable(shown) == shown
    shown.encode("utf-8")
