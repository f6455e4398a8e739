"""The intent log and the lock of a lab: what is written, what is read back, who may change a lab."""

import os
from itertools import islice
from pathlib import Path

import msgspec
import pytest

from plugin.core.errors import CheckError, InputError, MissingError
from testbed.lab import paths, state
from testbed.lab.paths import LabPaths
from testbed.machine import processes
from testbed.topology.model import NodeSpec, PodSpec, Topology

TOPOLOGY = Topology(name="two", nodes={"node1": NodeSpec(), "node2": NodeSpec()}, pods={"red": PodSpec(node="node1")})


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "RUN", tmp_path / "run")
    monkeypatch.setattr(state, "RUN", tmp_path / "run")
    return tmp_path / "run"


def written(name: str, **changes: object) -> state.LabState:
    lab = LabPaths(name)
    lab.directory.mkdir(parents=True)
    made = state.new_state(lab, TOPOLOGY, topology_file="two.yaml", members=("underlay", "node1", "red"))
    made = msgspec.structs.replace(made, **changes)
    state.write(lab, made)
    return made


def test_a_state_is_read_back_as_it_was_written() -> None:
    record = state.PodRecord(node="node1", container_id="c" * 64, address="10.32.0.2", mac="", host_ifname="vethx")
    made = written("two", processes=(state.ProcessRecord("agent", "node1", 7, 8),), pods={"red": record})
    assert state.read(LabPaths("two")) == made


def test_it_names_everything_that_will_be_made_below_run_netns() -> None:
    assert written("two").netns_names == ("two-underlay", "two-node1", "two-red")


def test_a_lab_that_never_was_has_no_state() -> None:
    assert state.read(LabPaths("two")) is None


@pytest.mark.parametrize("damage", [b"", b"{", b'{"version": 1}', b'{"surprise": 1}', b"\xff"])
def test_a_damaged_file_is_told_with_the_way_out(damage: bytes) -> None:
    written("two")
    LabPaths("two").state_file.write_bytes(damage)
    with pytest.raises(CheckError, match="cannot be read") as caught:
        state.read(LabPaths("two"))
    assert "weavelab down two" in caught.value.hint


def test_a_folder_that_takes_nothing_is_a_lack_of_the_machine(run: Path) -> None:
    written("two")
    made = state.read(LabPaths("two"))
    assert made is not None
    LabPaths("two").state_file.with_suffix(".new").mkdir()  # in the way of the temporary file
    with pytest.raises(MissingError, match="wanted to write below") as caught:
        state.write(LabPaths("two"), made)
    assert "free space" in caught.value.hint


def test_labs_are_the_directories_whatever_state_they_are_in(run: Path) -> None:
    assert state.labs() == []
    written("b", phase="ready")
    written("a")
    (run / "file").write_text("")
    assert state.labs() == ["a", "b"]
    assert state.ready_labs() == ["b"]


def test_the_only_running_lab_needs_no_name() -> None:
    with pytest.raises(InputError, match="no lab is up"):
        state.choose_lab(None)
    written("a", phase="ready")
    assert state.choose_lab(None) == "a"
    written("b", phase="ready")
    assert state.choose_lab("b") == "b"
    with pytest.raises(InputError, match="several labs are up: a, b"):
        state.choose_lab(None)
    with pytest.raises(InputError, match="no lab named c") as caught:
        state.choose_lab("c")
    assert "a, b" in caught.value.hint


def test_one_command_at_a_time_changes_a_lab() -> None:
    written("two")
    lab = LabPaths("two")
    with (
        state.locked(lab),
        pytest.raises(CheckError, match=r"another weavelab command \(pid \d+\)"),
        state.locked(lab),
    ):
        pass
    with state.locked(lab):
        pass


def test_labs_are_locked_one_by_one() -> None:
    with state.locked(LabPaths("a"), create=True), state.locked(LabPaths("b"), create=True):
        assert state.labs() == ["a", "b"]


def test_a_lock_on_a_directory_that_was_replaced_meanwhile_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = LabPaths("two")
    attempts = []
    real = state._open_directory

    def open_then_replace(paths: LabPaths, *, create: bool) -> int:
        fd = real(paths, create=create)
        if not attempts:
            lab.directory.rename(lab.directory.with_name("old"))
            lab.directory.mkdir()
        attempts.append(fd)
        return fd

    monkeypatch.setattr(state, "_open_directory", open_then_replace)
    with state.locked(lab, create=True):
        assert len(attempts) == 2


def test_there_is_no_lock_on_a_lab_that_is_not_there() -> None:
    with pytest.raises(InputError, match="no lab named two"), state.locked(LabPaths("two")):
        pass


def pinned(name: str) -> None:
    """Let the lab have a namespace, this process's own."""
    LabPaths(name).pins.mkdir(parents=True)
    (LabPaths(name).pins / "node1.net").symlink_to("/proc/self/ns/net")


def test_a_lab_that_is_up_is_not_abandoned() -> None:
    made = written("two", phase="ready")
    pinned("two")
    assert not state.is_abandoned(LabPaths("two"), made)


def test_a_lab_whose_namespaces_are_gone_is_abandoned() -> None:
    made = written("two", phase="ready")
    assert state.is_abandoned(LabPaths("two"), made)


@pytest.mark.parametrize(("older_ticks", "abandoned"), [(0, False), (1, True)])
def test_a_lab_is_abandoned_when_the_command_that_owned_it_is_gone(older_ticks: int, abandoned: bool) -> None:  # noqa: FBT001
    me = processes.identify(os.getpid())
    assert me is not None
    owner = state.ProcessRecord("command", "", me.pid, me.start_ticks - older_ticks)
    made = written("two", phase="ready", owner=owner)
    pinned("two")
    assert state.is_abandoned(LabPaths("two"), made) is abandoned


def test_a_lab_that_does_not_mind_its_name_gets_a_number() -> None:
    assert list(islice(state.names_like("two"), 3)) == ["two", "two-2", "two-3"]


def test_a_long_name_makes_room_for_the_number() -> None:
    assert list(islice(state.names_like("a-long-lab-name"), 2)) == ["a-long-lab-name", "a-long-lab-na-2"]
    assert len(list(state.names_like("two"))) == 99


@pytest.mark.parametrize("name", ["Two", "tow", "two-"])
def test_a_lab_that_is_not_there_is_answered_with_the_nearest(name: str) -> None:
    written("two", phase="ready")
    with pytest.raises(InputError) as caught:
        state.choose_lab(name)
    assert caught.value.hint == "did you mean 'two'? up: two"
    assert state.no_such_lab(name).hint == "did you mean 'two'? up: two"
