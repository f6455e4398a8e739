"""What was probably meant."""

import pytest

from testbed.nearest import LISTED_MAX, did_you_mean, hint, listing, nearest

NAMES = ["status", "exec", "red", "green", "node1", "--topology", "--tag", "--all"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("sttus", "status"),
        ("stat", "status"),
        ("Red", "red"),
        ("gren", "green"),
        ("NODE1", "node1"),
        ("--topolgy", "--topology"),
        ("--al", "--all"),
        ("--t", "--tag"),  # two begin so: the more similar one
        ("xyz", None),
        ("", None),
    ],
)
def test_the_name_that_was_probably_meant(written: str, meant: str | None) -> None:
    assert nearest(written, NAMES) == meant


def test_the_letters_decide_before_the_likeness() -> None:
    assert nearest("RED1", ["red", "red1", "red12"]) == "red1"


def test_a_hint_has_the_guess_and_what_there_is() -> None:
    assert hint("Red", ["red", "blue"], there_is="its pods:") == "did you mean 'red'? its pods: red, blue"
    assert hint("x", ["red", "blue"], there_is="its pods:") == "its pods: red, blue"
    assert hint("x", [], there_is="up:") == "up: none"


def test_behind_a_sentence_there_is_a_guess_or_nothing() -> None:
    assert did_you_mean("rde", ["red"]) == " (did you mean 'red'?)"
    assert did_you_mean("xyz", ["red"]) == ""


def test_a_long_list_is_cut_and_says_so() -> None:
    names = [f"pod{number}" for number in range(LISTED_MAX + 3)]
    assert listing(names).endswith(f"pod{LISTED_MAX - 1} and 3 more")
