"""`weavelab demo` on a terminal: pages of 24 lines and 80 columns, the keys, other terminals, and every way to leave it."""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.screen import Screen

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: labs are made of network namespaces"),
]

NAME = f"dp{os.getpid() % 100000}"
DEMO = [sys.executable, "-m", "testbed", "demo", "--name", NAME]
PAGE = re.compile(r"(\d+)(?: of |/)(\d+)$")

Start = Callable[..., Screen]


def leftovers() -> list[str]:
    run = Path(os.environ.get("WEAVELAB_RUN", "/run/weavelab"))
    names = [entry.name for entry in Path("/run/netns").glob(f"{NAME}-*")] if Path("/run/netns").exists() else []
    return names + [str(path) for path in [run / NAME] if path.exists()]


@pytest.fixture
def start() -> Iterator[Start]:
    screens: list[Screen] = []

    def started(*arguments: str, **options: object) -> Screen:
        screen = Screen([*DEMO, *arguments], **options)  # type: ignore[arg-type]
        screens.append(screen)
        return screen

    yield started
    for screen in screens:
        screen.kill()
    found = leftovers()
    assert found == []


def page_of(screen: Screen) -> tuple[str, str]:
    return screen.rows[0], screen.rows[-1]


def turn(screen: Screen, key: str) -> list[str]:
    """Press a key; the page that comes."""
    before = page_of(screen)
    screen.press(key)
    screen.wait(lambda: page_of(screen) != before and is_whole(screen), f"a page after {key!r}")
    return screen.rows


def is_whole(screen: Screen) -> bool:
    """Whether a page has been painted to its end: it may come in pieces, its heading before its foot."""
    return PAGE.search(screen.rows[-1]) is not None and screen.text.endswith(b"\x1b[J")


def all_pages(screen: Screen) -> list[list[str]]:
    screen.read_until("page 1 of")
    pages = [screen.rows]
    while not pages[-1][-1].startswith("space: end"):
        pages.append(turn(screen, " "))
    return pages


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["two-nodes", "racks"])
def test_every_page_of_every_step_fits_24_lines_of_80_columns(start: Start, topology: str) -> None:
    screen = start("--analogy", f"topologies/{topology}.yaml")
    pages = all_pages(screen)
    total = 9 if topology == "racks" else 8
    seen = []
    for rows in pages:
        # a line too many would have pushed the heading out, a column too many would have begun a line of its own
        heading = re.match(rf"(\d) of {total}  ", rows[0])
        assert heading is not None, "\n".join(rows)
        assert PAGE.search(rows[-1]), "\n".join(rows)
        seen.append(int(heading[1]))
    assert sorted(set(seen)) == list(range(1, total + 1))
    assert seen == sorted(seen)
    told = "\n".join("\n".join(rows[1:-1]) for rows in pages)
    assert told.count("In the exam:") == told.count("In the restaurant:") == total
    assert told.count("(a: the answer)") == total
    assert "kubectl" not in told, "answers stand behind a key"
    assert (f"exec {'spine'} -- ip route" in told) is (topology == "racks")
    screen.press(" ")
    assert screen.end() == 0


@pytest.mark.slow
def test_back_shows_what_was_there_and_numbers_lead_to_steps(start: Start) -> None:
    screen = start()
    screen.read_until("page 1 of")
    first = screen.rows
    assert screen.rows[0].startswith("1 of 8")
    second = turn(screen, " ")
    turn(screen, "\r")
    assert turn(screen, "b") == second
    assert turn(screen, "\x1b[D") == first  # the arrow to the left
    screen.press("p")  # there is nothing before it
    turn(screen, "4")  # two and three are played on the way
    assert screen.rows[0].startswith("4 of 8")
    screen.press("?")
    screen.read_until("any key: back to the demo")
    assert re.search(r"3  pod +A pod is created: the CNI call +seen", screen.shown)
    assert re.search(r"4  same-node +.* you are here", screen.shown)
    turn(screen, "x")
    turn(screen, "b")
    assert screen.rows[0].startswith("3 of 8")
    page = PAGE.search(screen.rows[-1])
    assert page is not None
    assert page[1] == page[2], "back from a step leads to the last page of the one before"
    turn(screen, "1")
    assert screen.rows == first
    screen.press("q")
    assert screen.end() == 0
    assert screen.text.endswith(f"lab {NAME} is down\r\n".encode())


def test_a_shows_the_answer_and_hides_it_again(start: Start) -> None:
    screen = start()
    screen.read_until("page 1 of")
    assert "kubectl" not in screen.shown
    screen.press("a")
    screen.read_until("kubectl get daemonsets -A")
    screen.read_until("a: hide")
    assert "In the exam:" in screen.shown
    screen.press("a")
    screen.read_until("(a: the answer)")
    assert "kubectl" not in screen.shown
    screen.press("\x04")  # Ctrl-D ends, too
    assert screen.end() == 0


def test_a_step_can_be_the_first_to_be_seen(start: Start) -> None:
    screen = start("--step", "node")
    screen.read_until("page 1 of")
    assert screen.rows[0].startswith("2 of 8")
    screen.press("q")
    assert screen.end() == 0


def test_another_size_is_another_page(start: Start) -> None:
    screen = start(columns=120, lines=40)
    screen.read_until("page 1 of")
    assert max(map(len, screen.rows)) <= 80
    for columns, lines in ((40, 12), (80, 24)):
        screen.resize(columns=columns, lines=lines)
        screen.wait(
            lambda: screen.rows[0].startswith("1 of 8") and PAGE.search(screen.rows[-1]) is not None, "the page anew"
        )
        assert len(screen.rows) == lines
    screen.press("q")
    assert screen.end() == 0


def test_a_terminal_of_40_columns_and_10_lines_is_enough_for_every_page_of_a_step(start: Start) -> None:
    screen = start(columns=40, lines=10)
    screen.read_until("q: end")
    pages = 1
    while screen.rows[0].startswith("1 of 8"):
        pages += 1
        turn(screen, " ")
    assert pages > 3
    screen.press("?")
    screen.read_until("any key")
    screen.press("qq")
    assert screen.end() == 0


def test_ctrl_c_gives_the_terminal_back_and_takes_the_lab_down(start: Start) -> None:
    screen = start()
    screen.read_until("page 1 of")
    assert leftovers() != []
    screen.press("\x03")
    assert screen.end() == 130
    assert screen.text.endswith(b"interrupted: taking the lab down\r\n")
    assert screen.text.count(b"\x1b[?1049h") == screen.text.count(b"\x1b[?1049l") == 1
    assert screen.text.count(b"\x1b[?25l") == screen.text.count(b"\x1b[?25h") == 1


def test_ctrl_z_gives_the_terminal_to_the_shell_and_fg_takes_it_again(start: Start) -> None:
    shell = Screen(["/bin/bash", "--norc", "-i"], env={"PS1": "ready> "})
    try:
        shell.read_until("ready>")
        shell.press(f"{' '.join(DEMO)}\n")
        shell.read_until("page 1 of")
        page = shell.rows
        shell.press("\x1a")
        shell.read_until("Stopped")
        shell.press("clear; stty -a\n")
        shell.read_until(" icanon")
        shell.press("fg\n")
        shell.wait(lambda: shell.rows == page, "the page again")
        shell.press("q")
        shell.read_until("is down")
    finally:
        shell.press("exit\n")
        shell.end()


def test_a_window_that_is_closed_takes_the_lab_down(start: Start) -> None:
    screen = start()
    screen.read_until("page 1 of")
    assert screen.close() == 128 + signal.SIGHUP
    assert leftovers() == []


@pytest.mark.parametrize("env", [{"WEAVELAB_PLAIN": "1"}, {"TERM": "dumb"}], ids=["screen reader", "dumb"])
def test_plain_lines_follow_each_other_and_have_the_same_keys(start: Start, env: dict[str, str]) -> None:
    screen = start(env=env, lines=120)
    screen.read_until("q: end")
    screen.press("a")
    screen.read_until("kubectl get nodes")
    screen.press("b")
    screen.press("q")
    assert screen.end() == 0
    told = screen.text.decode()
    assert "\x1b" not in told
    assert not re.search(r"[\u2500-\u257f\u2800-\u28ff]", told), "frames and spinners"
    assert "\r\n1 of 8  A cluster comes up\r\n" in told


def test_without_colours_a_page_has_the_same_words(start: Start) -> None:
    screen = start(env={"NO_COLOR": "1"})
    screen.read_until("page 1 of")
    screen.press("q")
    assert screen.end() == 0
    assert re.search(rb"\x1b\[[0-9;]*(3[0-8]|4[0-8])[;m]", screen.text) is None


def test_what_does_not_hold_stays_to_be_read_when_the_pages_are_gone(start: Start, tmp_path: Path) -> None:
    ping = tmp_path / "ping"
    ping.write_text("#!/bin/sh\necho '3 packets transmitted, 0 received, 100% packet loss, time 0ms'\nexit 1\n")
    ping.chmod(0o755)
    screen = start("--step", "same-node", env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, lines=50)
    assert screen.end() == 1
    left = re.sub(r"\x1b\[[0-9;]*m", "", screen.text.decode().rpartition("\x1b[?1049l")[2])
    assert "100% packet loss" in left
    assert "error: wanted the command above to succeed, found exit code 1" in left
