"""The journal of attachments: what survives a crash, and what a full disk may not do."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugin.agent import folder as folder_module
from plugin.agent import store as store_module
from plugin.agent.store import Record, Store
from plugin.core.cni.bandwidth import Bandwidth, Limit
from plugin.core.cni.hostports import PortMapping
from plugin.core.errors import InputError, MissingError
from plugin.core.ipam.allocator import EXPOSE


def record(name: str = "red", **other: Any) -> Record:
    return Record(network="weave", container_id=name, ifname="eth0", address="10.32.0.2", mac="0a:58:0a:20:00:02",
                  host_ifname="vethweplred", **other)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    made.load()
    yield made
    made.close()


def exposed() -> Record:
    network, container_id, ifname = EXPOSE
    return Record(network=network, container_id=container_id, ifname=ifname, address="10.32.0.1",
                  mac="02:00:00:00:00:01", host_ifname="weave", state="added")  # fmt: skip


def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(folder_module.os, "write", lambda fd, data: real(fd, data[:3]))


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
        full.setattr(folder_module.os, "write", lambda fd, data: real(fd, data[:10]))
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
    monkeypatch.setattr(folder_module.os, "fsync", refuse)
    for _ in range(300):
        store.put(record())
    store.close()
    assert not (tmp_path / "attachments.new").exists()


def test_a_directory_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MissingError, match="cannot be written"):
        Store(tmp_path / "file" / "state")


def test_two_agents_never_use_one_directory(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="another agent uses the state directory"):
        Store(tmp_path)
    store.put(record())


# --- the life ----------------------------------------------------------------------------------------------------------
def test_every_life_is_larger_than_the_last_though_the_clock_was_set_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.next_life(1000) == 1000
    assert store.next_life(10) == 1001
    assert store.next_life(5000) == 5000
    (tmp_path / "incarnation").write_text("rubbish")
    assert store.next_life(7) == 5001, "what this process knows it need not read"
    store.close()
    (tmp_path / "incarnation").write_text("rubbish")
    again = Store(tmp_path)
    assert again.next_life(7) == 7, "then the clock has to do"
    again.close()


# --- the identity ------------------------------------------------------------------------------------------------------
RANGE = "10.32.0.0/12"


def test_the_identity_is_16_digits_and_stays_across_restarts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    uid = store.identity("node1", RANGE)
    store.close()
    assert re.fullmatch("[0-9a-f]{16}", uid)
    store = Store(tmp_path)
    store.load()
    assert store.identity("node1", RANGE) == uid
    store.close()


def test_two_disks_have_two_identities(tmp_path: Path) -> None:
    stores = [Store(tmp_path / name) for name in ("one", "two")]
    uids = {store.identity("node1", RANGE) for store in stores}
    for store in stores:
        store.close()
    assert len(uids) == 2


def test_another_name_is_another_agent_without_the_ring_and_its_pods_stay(store: Store, tmp_path: Path) -> None:
    uid = store.identity("node1", RANGE)
    store.write_ring(b"ring")
    store.put(record("red"))
    new = store.identity("node2", RANGE)
    assert new != uid
    assert store.read_ring() is None
    assert (tmp_path / "ring.old").read_bytes() == b"ring"
    assert set(store.records) == {record("red").attachment}
    assert store.identity("node2", RANGE) == new


def test_another_range_is_refused_while_pods_hold_addresses_and_nothing_changes(store: Store) -> None:
    uid = store.identity("node1", RANGE)
    store.write_ring(b"ring")
    store.put(exposed())
    store.put(record("red", label="default/red"))
    with pytest.raises(InputError) as raised:
        store.identity("node1", "10.48.0.0/12")
    assert "from 10.32.0.0/12 to 10.48.0.0/12, and 1 pods of this node" in raised.value.message
    assert "default/red with 10.32.0.2" in raised.value.message
    assert "restore the old range" in raised.value.hint
    assert store.identity("node1", RANGE) == uid
    assert store.read_ring() == b"ring"
    assert len(store.records) == 2


def test_another_range_without_pods_is_another_agent_and_the_switchs_address_is_forgotten(store: Store) -> None:
    uid = store.identity("node1", RANGE)
    store.write_ring(b"ring")
    store.put(exposed())
    new = store.identity("node1", "10.48.0.0/12")
    assert new != uid
    assert store.read_ring() is None
    assert store.records == {}
    assert store.identity("node1", "10.48.0.0/12") == new


def test_a_damaged_identity_is_another_agent(tmp_path: Path) -> None:
    store = Store(tmp_path)
    uid = store.identity("node1", RANGE)
    store.write_ring(b"ring")
    store.close()
    (tmp_path / "identity.json").write_bytes(b'{"uid":')
    again = Store(tmp_path)
    assert again.identity("node1", RANGE) != uid
    assert again.read_ring() is None, "the ring was another agent's"
    again.close()


def test_an_identity_that_cannot_be_written_is_a_sentence(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        no_room(full)
        with pytest.raises(MissingError, match="No space left"):
            store.identity("node1", RANGE)
    assert store.identity("node1", RANGE) == store.identity("node1", RANGE)


# --- the ring and the targets --------------------------------------------------------------------------------------------
def test_the_ring_is_what_was_written_last_and_none_before(store: Store) -> None:
    assert store.read_ring() is None
    store.write_ring(b"first")
    store.write_ring(b"second")
    assert store.read_ring() == b"second"


def test_a_ring_that_cannot_be_written_leaves_the_old_one_and_no_half_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_ring(b"the old ring")
    with monkeypatch.context() as full:
        no_room(full)
        with pytest.raises(MissingError, match=r"ring\.json cannot be written: No space left"):
            store.write_ring(b"the new ring")
    assert store.read_ring() == b"the old ring"
    assert not (tmp_path / "ring.new").exists()


def test_a_ring_is_on_the_disk_before_it_takes_the_old_ones_place(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bytes | None]] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        seen.append((Path(os.readlink(f"/proc/self/fd/{fd}")).name, (tmp_path / "ring.json").read_bytes()))  # noqa: PTH115
        real(fd)

    store.write_ring(b"old")
    monkeypatch.setattr(folder_module.os, "fsync", fsync)
    store.write_ring(b"new")
    assert seen == [("ring.new", b"old"), (tmp_path.name, b"new")]


def test_a_damaged_ring_is_set_aside_and_the_agent_is_a_new_one(store: Store) -> None:
    uid = store.identity("node1", RANGE)
    store.write_ring(b"rubbish")
    store.put(record("red"))
    aside = store.ring_damaged()
    assert aside.read_bytes() == b"rubbish"
    assert store.read_ring() is None
    assert store.identity("node1", RANGE) != uid
    assert set(store.records) == {record("red").attachment}, "the pods live on"


def test_targets_are_what_was_written_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.read_targets() is None
    store.write_targets(b"one")
    with monkeypatch.context() as full:
        no_room(full)
        with pytest.raises(MissingError):
            store.write_targets(b"two three")
    assert store.read_targets() == b"one"


def test_wipe_forgets_everything(store: Store, tmp_path: Path) -> None:
    uid = store.identity("node1", RANGE)
    store.write_ring(b"ring")
    store.write_targets(b"targets")
    store.next_life(5)
    store.put(exposed())
    store.put(record())
    store.wipe()
    assert (store.records, store.read_ring(), store.read_targets()) == ({}, None, None)
    assert {path.name for path in tmp_path.iterdir()} <= {"attachments.journal"}
    store.wipe()
    assert store.identity("node1", RANGE) != uid


def test_ports_and_limits_of_a_pod_survive_a_restart(tmp_path: Path) -> None:
    ports = (PortMapping(host_port=8080, container_port=80), PortMapping(host_port=1, container_port=2, protocol="udp"))
    wanted = record("red", ports=ports, bandwidth=Bandwidth(None, Limit(1_000, 2_000)))
    store = Store(tmp_path)
    store.put(wanted)
    store.close()
    assert list(reopened(tmp_path).records.values()) == [wanted]


def test_a_journal_of_an_agent_that_knew_no_ports_is_read(tmp_path: Path) -> None:
    old = (
        b'{"put":{"network":"weave","container_id":"red","ifname":"eth0","address":"10.32.0.2",'
        b'"mac":"0a:58:0a:20:00:02","host_ifname":"vethweplred"}}\n'
    )
    (tmp_path / "attachments.journal").write_bytes(old)
    loaded = reopened(tmp_path)
    (kept,) = loaded.records.values()
    assert (kept, kept.ports, kept.bandwidth, loaded.damage) == (record("red"), (), None, "")
    assert (tmp_path / "attachments.journal").read_bytes() == old, "a pod without any is written as it was"


def test_a_journal_of_a_later_agent_is_read_as_far_as_it_is_known(tmp_path: Path) -> None:
    journal = filled(tmp_path, "red")
    journal.write_bytes(journal.read_bytes().replace(b'"ifname"', b'"of_tomorrow":[1],"ifname"'))
    assert list(reopened(tmp_path).records.values()) == [record("red")]


def test_many_attachments_are_dropped_with_one_write_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    for name in ("red", "blue", "green"):
        store.put(record(name))
    written: list[int] = []
    real = os.write
    with monkeypatch.context() as full:
        full.setattr(folder_module.os, "write", lambda fd, data: real(fd, data[:10]))
        with pytest.raises(MissingError):
            store.drop(record("red").attachment, record("blue").attachment)
    assert len(store.records) == 3
    with monkeypatch.context() as counting:
        counting.setattr(folder_module.os, "fdatasync", written.append)
        store.drop(record("red").attachment, record("blue").attachment, ("no", "such", "pod"))
        store.drop(("no", "such", "pod"))
    assert len(written) == 1
    store.close()
    assert list(reopened(tmp_path).records.values()) == [record("green")]


def test_only_what_somebody_is_told_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, synced = Store(tmp_path), list[int]()
    monkeypatch.setattr(folder_module.os, "fdatasync", synced.append)
    store.put(record("red"))
    assert (store.get(record("red").attachment), synced) == (record("red"), [])
    store.put(Record(**{name: getattr(record("red"), name) for name in Record.__struct_fields__} | {"state": "added"}))
    assert len(synced) == 1
    store.close()
