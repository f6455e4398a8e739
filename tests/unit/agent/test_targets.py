"""Where other agents are looked for: what a person said is remembered until the configuration is changed."""

from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from plugin.agent.store import Store
from plugin.agent.targets import Targets
from plugin.core.errors import MissingError

ONE, TWO, THREE = (IPv4Address(f"192.168.56.{number}") for number in (11, 12, 13))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    made.load()
    yield made
    made.close()


def test_at_first_the_configuration_counts_in_order(store: Store) -> None:
    assert Targets(store, [TWO, ONE]).addresses == (ONE, TWO)
    assert store.read_targets() is None, "nothing has to be remembered"


def test_what_was_set_is_there_after_a_restart_sorted_and_once(store: Store) -> None:
    targets = Targets(store, [ONE])
    targets.set([THREE, TWO, THREE])
    assert targets.addresses == (TWO, THREE)
    assert Targets(store, [ONE]).addresses == (TWO, THREE)


def test_nothing_at_all_can_be_set(store: Store) -> None:
    Targets(store, [ONE]).set([])
    assert Targets(store, [ONE]).addresses == ()


def test_the_order_of_the_configuration_is_no_change_of_it(store: Store) -> None:
    Targets(store, [ONE, TWO]).set([THREE])
    assert Targets(store, [TWO, ONE]).addresses == (THREE,)


def test_a_configuration_that_was_changed_since_counts_again(store: Store) -> None:
    Targets(store, [ONE]).set([THREE])
    assert Targets(store, [ONE, TWO]).addresses == (ONE, TWO)
    assert Targets(store, []).addresses == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"configured":["192.168.56.11"]}',
        b'{"configured":["192.168.56.11"],"targets":["node2"]}',
        b'{"configured":["192.168.56.11"],"targets":[5]}',
    ],
)
def test_a_damaged_file_is_as_good_as_none(store: Store, data: bytes) -> None:
    store.write_targets(data)
    targets = Targets(store, [ONE])
    assert targets.addresses == (ONE,)
    targets.set([TWO])
    assert Targets(store, [ONE]).addresses == (TWO,)


def test_what_cannot_be_remembered_does_not_count_now_either(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = Targets(store, [ONE])

    def refuse(_data: bytes) -> None:
        raise MissingError("the disk is full", hint="")

    monkeypatch.setattr(store, "write_targets", refuse)
    with pytest.raises(MissingError):
        targets.set([TWO])
    assert targets.addresses == (ONE,)


def test_targets_follow_members_that_move_and_hold_also_when_the_disk_takes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = Targets(store, [ONE])
    assert targets.follow([ONE])
    assert store.read_targets() is None, "nothing has changed"
    assert targets.follow([TWO])
    assert Targets(store, [ONE]).addresses == (TWO,)

    def full(_data: bytes) -> None:
        raise MissingError("no room")

    monkeypatch.setattr(store, "write_targets", full)
    assert not targets.follow([THREE])
    assert targets.addresses == (THREE,)
