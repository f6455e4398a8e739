"""Logs of several nodes as one: order, levels, followed through restarts, rotations and half-written lines."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from testbed.cli.logs import since_of, text_of
from testbed.lab.logs import Entry, Logs, Source, parse


def line(second: int, event: str = "agent ready", level: str = "info", **fields: object) -> str:
    return json.dumps({"time": f"2026-11-28T12:18:{second:02d}.250Z", "level": level, "event": event, **fields}) + "\n"


def everything(_entry: Entry) -> bool:
    return True


def events(entries: "object") -> list[str]:
    return [entry.event for entry in entries]  # type: ignore[attr-defined]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "agent.log"


@pytest.fixture
def logs(log: Path) -> Iterator[Logs]:
    """Follows `log`."""
    with Logs([Source("node1", "agent", log)], everything) as followed:
        yield followed


def test_lines_of_several_nodes_come_in_the_order_of_time(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(line(1, "one") + line(4, "four"))
    (tmp_path / "b").write_text(line(2, "two") + "Traceback: of two\n" + line(3, "three"))
    (tmp_path / "empty").write_text("")
    files = [Source(name, "agent", tmp_path / name) for name in ("a", "b", "empty", "never-started")]
    with Logs(files, everything) as logs:
        found = list(logs.last())
    assert events(found) == ["one", "two", "Traceback: of two", "three", "four"]
    assert [entry.node for entry in found] == ["a", "b", "b", "b", "a"]


def test_the_last_lines_are_those_of_each_log_after_the_others_were_passed_over(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(
            "".join(line(s, f"{name}{s}", "warning" if s % 2 else "info") for s in range(1, 9))
        )
    files = [Source(name, "agent", tmp_path / name) for name in ("a", "b")]
    with Logs(files, lambda entry: entry.matters("warning")) as logs:
        found = list(logs.last(2))
    assert sorted(events(found)) == ["a5", "a7", "b5", "b7"]


def test_what_comes_later_is_told_once(log: Path, logs: Logs) -> None:
    log.write_text(line(1, "one"))
    assert events(logs.last(final=False)) == ["one"]
    assert events(logs.new()) == []
    with log.open("a") as file:
        file.write(line(2, "two"))
    assert events(logs.new()) == ["two"]


def test_a_line_that_is_being_written_is_told_when_it_is_whole(log: Path, logs: Logs) -> None:
    text = line(1, "one")
    log.write_text(text[:20])
    assert events(logs.last(final=False)) == []
    log.write_text(text)
    assert events(logs.new()) == ["one"]


def test_a_line_without_an_end_is_told_when_nothing_more_will_come(log: Path, logs: Logs) -> None:
    log.write_text(line(1, "one") + "killed in the mid")
    assert events(logs.last()) == ["one", "killed in the mid"]


def test_a_log_that_begins_later_is_found(log: Path, logs: Logs) -> None:
    assert events(logs.last(final=False)) == []
    log.write_text(line(1, "one"))
    assert events(logs.new()) == ["one"]


def test_a_log_that_was_rotated_is_read_to_its_end_then_the_new_one(log: Path, logs: Logs) -> None:
    log.write_text(line(1, "one"))
    assert events(logs.last(final=False)) == ["one"]
    with log.open("a") as file:
        file.write(line(2, "two") + "torn")
    log.rename(log.with_suffix(".1"))
    assert events(logs.new()) == ["two"]
    log.write_text(line(3, "three"))
    assert events(logs.new()) == ["torn", "three"]
    assert events(logs.new()) == []


def test_a_log_that_was_cut_short_is_read_from_its_beginning(log: Path, logs: Logs) -> None:
    log.write_text(line(1, "one") + line(2, "two"))
    assert events(logs.last(final=False)) == ["one", "two"]
    log.write_text(line(3, "three"))
    assert events(logs.new()) == ["three"]


def test_levels_are_those_from_one_on_and_an_unexpected_line_always_matters() -> None:
    source = Source("node1", "agent", Path("/dev/null"))
    warning = parse(source, line(1, level="warning"), 0.0)
    crash = parse(source, 'File "x.py", line 1', 5.0)
    assert [warning.matters(level) for level in ("debug", "info", "warning", "error")] == [True, True, True, False]
    assert crash.matters("error")
    assert crash.time_s == 5.0


def test_containerds_lines_are_understood() -> None:
    source = Source("node1", "containerd", Path("/dev/null"))
    text = 'time="2026-11-28T12:18:22.123456789Z" level=warning msg="failed to \\"load\\"" error="a b" id=7'
    entry = parse(source, text, 0.0)
    assert (entry.level, entry.event, entry.fields) == ("warning", 'failed to "load"', {"error": "a b", "id": "7"})
    assert entry.time == "2026-11-28T12:18:22.123456789Z"


def test_an_entry_for_people_is_one_line_and_its_exception_below() -> None:
    now = time.strftime("%Y-%m-%dT12:18:22.250Z", time.gmtime())
    entry = parse(
        Source("node1", "agent", Path("/dev/null")),
        json.dumps({"time": now, "level": "error", "event": "x", "a": "b c", "n": 1, "e": "", "exception": "T:\n  y"}),
        0.0,
    )
    first, *rest = text_of(entry).splitlines()
    assert first.endswith('.250 error   x a="b c" n=1 e=""')
    assert rest == ["  T:", "    y"]


def test_no_character_of_a_log_is_an_order_to_the_terminal() -> None:
    source = Source("node1", "agent", Path("/dev/null"))
    assert "\x1b" not in text_of(parse(source, "\x1b[2Jgone", 0.0))
    assert "\x1b" not in text_of(parse(source, line(1, "x\x1b[2J", field="\x1b[2J"), 0.0))


@pytest.mark.parametrize(("text", "ago"), [("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86400), ("1.5s", 1.5)])
def test_since_is_a_duration(text: str, ago: float) -> None:
    assert since_of(text, 100_000.0) == 100_000.0 - ago


def test_since_is_a_time() -> None:
    assert since_of("1970-01-01T00:01:00Z", 0.0) == 60.0


@pytest.mark.parametrize("text", ["", "s", "5 minutes", "yesterday", "-3s"])
def test_another_since_is_refused_with_what_is_wanted(text: str) -> None:
    with pytest.raises(click.UsageError, match="30s, 5m, 2h, 1d"):
        since_of(text, 0.0)
