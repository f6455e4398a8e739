"""The state folder under attack: what somebody deletes, replaces or damages is noticed, and written anew from memory."""

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plugin.agent import folder as folder_module
from plugin.agent.state_keeper import STATE, StateKeeper
from plugin.agent.store import Record, Store
from plugin.core.errors import MissingError
from plugin.core.upkeep.ledger import EAGER_MAX, Ledger

RANGE = "10.32.0.0/12"
FILES = {"attachments.journal", "identity.json", "ring.json", "incarnation", "targets.json"}


def record(name: str, state: str = "added") -> Record:
    return Record(network="weave", container_id=name, ifname="eth0", address="10.32.0.2", mac="0a:58:0a:20:00:02",
                  host_ifname=f"vethwepl{name}", state=state)  # type: ignore[arg-type]  # fmt: skip


class World:
    """A folder in use, who keeps it, and the time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now_s = 1000.0
        self.ledger = Ledger()
        self.store = Store(path)
        self.store.load()
        self.uid = self.store.identity("node1", RANGE)
        self.store.next_life(77)
        self.store.write_ring(b"the ring")
        self.store.write_targets(b"[]")
        self.store.put(record("red"))
        self.store.put(record("blue"))
        self.keeper = StateKeeper(self.store, self.ledger, lambda: self.now_s, logging.getLogger("test"))

    def look(self) -> str:
        """A second later: the cause of the trouble that there is, empty for none."""
        self.now_s += 1
        self.keeper.look()
        return "".join(problem.cause for problem in self.ledger.problems())

    def on_disk(self) -> tuple[set[str], str, bytes | None, int]:
        """What another agent would find: records, identity, ring, life."""
        copy = self.path.with_name("copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.path, copy)
        other = Store(copy)
        try:
            names = {one.container_id for one in other.load().records.values()}
            return names, other.identity("node1", RANGE), other.read_ring(), other.next_life(0) - 1
        finally:
            other.close()

    def whole(self, *names: str) -> bool:
        return self.on_disk() == (set(names), self.uid, b"the ring", 77)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "state")
    yield made
    made.store.close()


def replaced(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.mkdir()


def damaged(name: str) -> Callable[[Path], None]:
    return lambda path: path.joinpath(name).write_bytes(b"rubbish")


def exchanged(path: Path) -> None:
    """An old copy is put in the place of the journal, as a restored backup is."""
    other = path / "backup"
    other.write_bytes(b"")
    other.replace(path / "attachments.journal")


def shortened(path: Path) -> None:
    os.truncate(path / "attachments.journal", 0)


def same_size(path: Path) -> None:
    """Only the time tells."""
    journal = path / "attachments.journal"
    journal.write_bytes(b"x" * journal.stat().st_size)


DAMAGES = {
    "deleted": shutil.rmtree,
    "replaced": replaced,
    "emptied": lambda path: [one.unlink() for one in path.iterdir()],
    "journal exchanged": exchanged,
    "journal shortened": shortened,
    "journal of the same size": same_size,
    **{f"{name} damaged": damaged(name) for name in sorted(FILES)},
    **{f"{name} deleted": lambda path, name=name: (path / name).unlink() for name in sorted(FILES)},
}


def test_nothing_is_done_while_nobody_touches_it(world: World) -> None:
    before = {path: path.stat().st_mtime_ns for path in world.path.iterdir()}
    for number in range(5):
        assert world.look() == ""
        world.store.put(record(f"pod{number}"))
        world.store.drop(record("red").attachment)
        world.store.write_ring(b"the ring")
        assert world.look() == ""
    assert world.ledger.repairs() == ()
    assert set(before) == set(world.path.iterdir())


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed_at_the_next_look_and_mended_from_memory(world: World, damage: str) -> None:
    DAMAGES[damage](world.path)
    assert world.look() == "", "it is mended, so there is no trouble left"
    assert world.whole("red", "blue")
    (repair,) = world.ledger.repairs()
    assert (repair.name, repair.count, repair.last_s) == (STATE, 1, 1001.0)
    assert str(world.path) in repair.what
    assert world.look() == ""
    assert len(world.ledger.repairs()) == 1


@pytest.mark.parametrize(
    "damage", [name for name in DAMAGES if "journal" in name or name in {"deleted", "replaced", "emptied"}]
)
def test_a_pod_is_not_added_before_it_is_where_the_next_agent_looks(world: World, damage: str) -> None:
    DAMAGES[damage](world.path)
    world.store.put(record("green"))
    assert world.whole("red", "blue", "green")
    assert [repair.name for repair in world.ledger.repairs()] == [STATE], "it does not go unsaid"


@pytest.mark.parametrize("damage", ["deleted", "replaced", "emptied", "journal shortened"])
def test_a_pod_that_ends_is_forgotten_for_good_although_the_folder_is_damaged(world: World, damage: str) -> None:
    DAMAGES[damage](world.path)
    world.store.drop(record("red").attachment)
    assert world.whole("blue")


def test_a_ring_is_written_although_the_folder_is_gone(world: World) -> None:
    shutil.rmtree(world.path)
    world.store.write_ring(b"another ring")
    names, uid, ring, life = world.on_disk()
    assert (names, uid, ring, life) == ({"red", "blue"}, world.uid, b"another ring", 77)


def in_the_way(world: World) -> None:
    """The folder cannot come back."""
    shutil.rmtree(world.path)
    world.path.write_bytes(b"a file is where the folder was")


def test_what_cannot_be_written_is_a_problem_and_no_pod_is_added_meanwhile(world: World) -> None:
    in_the_way(world)
    with pytest.raises(MissingError):
        world.store.put(record("green"))
    with pytest.raises(MissingError):
        world.store.drop(record("red").attachment)
    assert {one.container_id for one in world.store.records.values()} == {"red", "blue"}
    assert "File exists" in world.look()
    (problem,) = world.ledger.problems()
    assert (problem.name, problem.since_s) == (STATE, 1001.0)
    assert "do not restart the agent" in problem.advice
    assert "File exists" in world.look()
    assert world.ledger.problems()[0].since_s == 1001.0
    world.path.unlink()
    assert world.look() == "", "as soon as it can be"
    assert world.whole("red", "blue")
    world.store.put(record("green"))
    assert world.whole("red", "blue", "green")


def test_another_agents_folder_is_left_alone(world: World) -> None:
    shutil.rmtree(world.path)
    other = Store(world.path)
    assert "another agent uses" in world.look()
    with pytest.raises(MissingError):
        world.store.put(record("green"))
    other.close()
    assert world.look() == ""
    assert world.whole("red", "blue")


def test_a_disk_that_took_a_line_and_lost_it_is_not_believed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed flush the kernel may have dropped what was to be written: all of it is written again."""

    def lose(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as failing:
        failing.setattr(folder_module.os, "fdatasync", lose)
        with pytest.raises(MissingError, match="Input/output error"):
            world.store.put(record("green"))
    before = (world.path / "attachments.journal").stat().st_ino
    assert world.look() == ""
    assert (world.path / "attachments.journal").stat().st_ino != before
    assert world.whole("red", "blue")


def test_who_deletes_it_again_and_again_is_not_followed_for_ever_but_no_pod_is_lost(world: World) -> None:
    for _ in range(EAGER_MAX):
        shutil.rmtree(world.path)
        assert world.look() == ""
    shutil.rmtree(world.path)
    assert "was deleted" in world.look()
    world.store.put(record("green"))
    assert world.whole("red", "blue", "green")


def test_a_folder_that_is_held_stays_damaged_and_adds_nothing(world: World) -> None:
    world.ledger.hold(STATE, "an exercise", world.now_s)
    shutil.rmtree(world.path)
    assert "was deleted" in world.look()
    with pytest.raises(MissingError, match="was deleted"):
        world.store.put(record("green"))
    assert not world.path.exists()
    world.ledger.release(STATE)
    assert world.look() == ""
    assert world.whole("red", "blue")


def test_a_full_or_read_only_file_system_is_told_before_anything_is_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(world.path)

    def told(**other: int) -> Callable[[int], os.statvfs_result]:
        names = ["f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail", "f_flag",
                 "f_namemax"]  # fmt: skip
        return lambda _fd: os.statvfs_result([other.get(name, getattr(real, name)) for name in names])

    for found, word in (
        (told(f_blocks=100, f_bfree=1, f_frsize=4096), "is full: 4096 bytes are left"),
        (told(f_files=100, f_ffree=0), "takes no more files"),
        (told(f_flag=os.ST_RDONLY), "is read-only"),
    ):
        with monkeypatch.context() as full:
            full.setattr(folder_module.os, "statvfs", found)
            assert word in world.look()
        assert world.look() == ""
    assert world.ledger.repairs() == ()


def test_what_was_wiped_stays_away(world: World) -> None:
    world.store.wipe()
    assert world.look() == ""
    assert {path.name for path in world.path.iterdir()} == {"attachments.journal"}
