"""Which texts are placeholders and which are only braces."""

import pytest

from testbed.topology.placeholders import Placeholder, fill, placeholders


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("ping {green.address}", "ping <green address>"),
        ("{a.b}{a.b}", "<a b><a b>"),
        ("{node-1.bridge_x}", "<node-1 bridge_x>"),
        ("{{green.address}}", "{green.address}"),
        ("{{{green.address}}}", "{{green.address}}"),
        ("http://[{a.b}]:80/{c.d}", "http://[<a b>]:80/<c d>"),
    ],
)
def test_two_words_in_braces_are_filled_in(text: str, filled: str) -> None:
    assert fill(text, lambda found: f"<{found.who} {found.what}>") == filled


@pytest.mark.parametrize(
    "text",
    [
        "${HOME} ${a.b} ${VAR:-x}",
        "awk '{print $1}' 'BEGIN{x=1.5}'",
        '{"red.name": {"a": 1}}',
        "{{.Names}} {{ .State.Pid }} {{range .X}}",
        "touch {a,b}.txt {a.txt,b.txt} {1..3}",
        "a{1,2} {1.2} {red.} {.red} { red.name } {red.name ",
        "{red.name.first} {}",
    ],
)
def test_other_braces_stay_what_they_are(text: str) -> None:
    assert fill(text, lambda found: "?") == text
    assert not list(placeholders(text))


def test_placeholders_are_found_in_order_and_shown_as_they_are_written() -> None:
    found = list(placeholders("{b.c} {{x.y}} {a.d}"))
    assert found == [Placeholder("b", "c"), Placeholder("a", "d")]
    assert [str(one) for one in found] == ["{b.c}", "{a.d}"]
