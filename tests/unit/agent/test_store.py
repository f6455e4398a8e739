"""The journal of attachments: what survives a crash, and what a full disk may not do."""

import errno
import os
from pathlib import Path

import pytest

from plugin.agent import store as store_module
from plugin.agent.store import Record, Store
from plugin.core.errors import MissingError


def record(name: str = "red", **other: str) -> Record:
    return Record(network="weave", container_id=name, ifname="eth0", address="10.32.0.2", mac="0a:58:0a:20:00:02",
                  host_ifname="vethweplred", **other)  # fmt: skip


def reopened(directory: Path) -> store_module.Loaded:
    store = Store(directory)
    try:
        return store.load()
    finally:
        store.close()


def filled(directory: Path, *names: str) -> Path:
    store = Store(directory)
    for name in names:
        store.put(record(name))
    store.close()
    return directory / "attachments.journal"


def test_what_was_put_is_there_after_a_restart_and_what_was_dropped_is_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(record("red"))
    store.put(record("blue"))
    store.drop(record("red").attachment)
    store.drop(("no", "such", "pod"))
    store.close()
    loaded = reopened(tmp_path)
    assert list(loaded.records.values()) == [record("blue")]
    assert loaded.damage == ""


def test_a_torn_last_line_is_dropped_without_a_word(tmp_path: Path) -> None:
    journal = filled(tmp_path, "red")
    journal.write_bytes(journal.read_bytes() + b'{"put":{"netw')
    assert reopened(tmp_path).damage == ""
    assert journal.read_bytes().endswith(b"}\n")


def test_a_damaged_line_is_told_and_the_file_set_aside(tmp_path: Path) -> None:
    journal = filled(tmp_path, "red", "blue")
    first, second = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(first + b"rubbish\n" + second)
    loaded = reopened(tmp_path)
    assert len(loaded.records) == 2
    assert "line 2 of" in loaded.damage
    assert b"rubbish" in (tmp_path / "attachments.damaged").read_bytes()


def test_a_long_journal_of_few_records_is_written_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for _ in range(300):
        store.put(record())
    assert len((tmp_path / "attachments.journal").read_bytes().splitlines()) < 100
    store.close()
    assert len(reopened(tmp_path).records) == 1


def test_a_full_disk_changes_nothing_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.put(record("red"))
    before, real = (tmp_path / "attachments.journal").read_bytes(), os.write
    with monkeypatch.context() as full:
        full.setattr(store_module.os, "write", lambda fd, data: real(fd, data[:10]))
        with pytest.raises(MissingError, match="cannot be written: No space left"):
            store.put(record("blue"))
    assert (tmp_path / "attachments.journal").read_bytes() == before
    assert set(store.records) == {record("red").attachment}
    store.close()


def test_no_room_to_compact_does_not_fail_a_change_that_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = Store(tmp_path)
    monkeypatch.setattr(store_module.os, "fsync", refuse)
    for _ in range(300):
        store.put(record())
    store.close()
    assert not (tmp_path / "attachments.new").exists()


def test_a_directory_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MissingError, match="cannot be written"):
        Store(tmp_path / "file" / "state")
