"""How pages are read: what is typed, where, and what counts as a difference."""

from pathlib import Path

import pytest

from tests.support.pages import Command, command, commands, difference

PAGE = """
```console
$ sudo .venv/bin/weavelab up   # a lab
lab two-nodes is up
$ sudo .venv/bin/weavelab exec node1 -- bash
# weave status   # exit code 1
error: no agent
```

```console
# weave ps
$ sudo .venv/bin/weavelab cli
weavelab> red ping -c1 blue
```

    make scenario     # all of it
    kubectl debug node/NODE -it -- \\
        weavelab deploy --local

    - name: a list
      within_s: 5

```text
$ not typed
```
"""


@pytest.fixture
def typed(tmp_path: Path) -> list[Command]:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    return list(commands(page))


def test_every_way_to_write_a_command_is_read_in_order(typed: list[Command]) -> None:
    assert [command.run for command in typed] == [
        "sudo .venv/bin/weavelab up",
        "sudo .venv/bin/weavelab exec node1 -- bash",
        "sudo .venv/bin/weavelab exec node1 -- sh -c 'weave status'",
        "sudo .venv/bin/weavelab exec node1 -- sh -c 'weave ps'",
        "sudo .venv/bin/weavelab cli",
        "sudo .venv/bin/weavelab cli -c 'red ping -c1 blue'",
        "make scenario",
        "kubectl debug node/NODE -it -- weavelab deploy --local",
    ]


def test_what_a_page_shows_and_announces_belongs_to_its_command(typed: list[Command]) -> None:
    assert [(command.shown, command.exit_code) for command in typed[:3]] == [
        (["lab two-nodes is up"], 0),
        ([], 0),
        (["error: no agent"], 1),
    ]


def test_a_block_that_mixes_commands_with_something_else_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n\n    make scenario\n    and something else\n\n")
    with pytest.raises(AssertionError, match="commands and others"):
        list(commands(page))


@pytest.mark.parametrize("line", ["sh -c 'a # b'", 'echo "# no comment"'])
def test_a_comment_sign_in_quotes_is_none(line: str) -> None:
    assert command(line).line == line


@pytest.mark.parametrize(
    ("shown", "output", "says"),
    [
        ("a\nb", "a\nb\n", ""),
        ("a\nb", "a\n", "nothing more"),
        ("a\nb", "a\nc\n", "came:   c"),
        ("a", "a\nb\n", "not shown: b"),
        ("...\nb", "a\nx\nb\n", ""),
        ("a\n...", "a\nb\nc\n", ""),
        ("a\n...\nd", "a\nb\nc\n", "nothing more"),
        ("64 bytes: time=0.229 ms", "64 bytes: time=1.5 ms", ""),
        ("loss 0%, time 3054ms", "loss 5%, time 3054ms", "came:   loss 5%"),
        ("42:2d:53:18:60:3e(node1)  3 IPs", "aa:29:4a:c6:ba:e3(node1) 3 IPs", ""),
        ("42:2d:53:18:60:3e(node1)  3 IPs", "aa:29:4a:c6:ba:e3(node1) 4 IPs", "4 IPs"),
        ("red 0a:58:0a:20:00:02", "red 0a:58:0a:20:00:03", "00:03"),
    ],
)
def test_a_difference_is_what_is_not_a_matter_of_time_or_chance(shown: str, output: str, says: str) -> None:
    found = difference(Command("look", "look", shown=shown.splitlines()), output)
    assert says in found
    assert bool(says) == bool(found)


def test_numbers_that_depend_on_chance_are_not_compared() -> None:
    shown = Command("look", "look", comment="how many depends on whom it asks", shown=["node1 has 5"])
    assert difference(shown, "node1 has 6") == ""
    assert difference(shown, "node2 has none") != ""
