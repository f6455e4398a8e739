"""Who is where: tables, steps, and the winner of two claims."""

from ipaddress import IPv4Address

from plugin.core.forwarding.claims import Located
from plugin.core.forwarding.endpoints import Directory, Table
from plugin.core.messages.values import ENDPOINTS_PER_PEER_MAX, Endpoint

ONE, TWO = IPv4Address("192.168.56.11"), IPv4Address("192.168.56.12")
A, B = IPv4Address("10.32.0.1"), IPv4Address("10.32.0.2")
MAC, OTHER = "0a:58:0a:20:00:01", "0a:58:0a:20:00:02"
HERE = IPv4Address("192.168.56.20")


def directory_of(own: IPv4Address) -> Directory:
    """The directory of the node at this address; nobody has a switch."""
    return Directory(1, lambda: own, lambda _node: "")


def table(version: int, *endpoints: Endpoint, incarnation: int = 1) -> Table:
    return Table(incarnation, version, frozenset(endpoints))


def test_a_pod_put_here_is_located_here() -> None:
    directory = directory_of(HERE)
    added = directory.put(A, MAC, "red")
    assert directory.located() == {A: Located(added, None)}
    assert directory.own.version == 1
    assert directory.take_changed() == {A}
    assert directory.take_changed() == set()


def test_the_same_address_again_replaces_its_entry() -> None:
    directory = directory_of(HERE)
    directory.put(A, MAC, "red")
    again = directory.put(A, OTHER, "red")
    assert directory.own.endpoints == {again}
    assert directory.locate(A) == Located(again, None)


def test_dropping_an_unknown_address_changes_no_version() -> None:
    directory = directory_of(HERE)
    assert not directory.drop(A)
    assert directory.own.version == 0


def test_a_dropped_pod_is_nowhere() -> None:
    directory = directory_of(HERE)
    directory.put(A, MAC, "red")
    assert directory.drop(A)
    assert directory.locate(A) is None


def test_the_later_claim_wins_and_the_earlier_one_returns_when_it_goes() -> None:
    directory = directory_of(HERE)
    early, late = Endpoint(A, MAC, 1), Endpoint(A, OTHER, 2)
    directory.replace(ONE, table(1, early))
    directory.replace(TWO, table(1, late))
    assert directory.locate(A) == Located(late, TWO)
    directory.forget(TWO)
    assert directory.locate(A) == Located(early, ONE)
    directory.forget(TWO)


def test_equal_stamps_go_to_the_lower_node_address_on_every_node() -> None:
    directory = directory_of(HERE)
    claim = Endpoint(A, MAC, 1)
    directory.replace(TWO, table(1, claim))
    directory.replace(ONE, table(1, claim))
    assert directory.locate(A) == Located(claim, ONE)
    own = directory.put(A, MAC, "", stamp=1)
    assert directory.locate(A) == Located(claim, ONE), "this node is no exception, or each would believe itself"
    directory.forget(ONE)
    directory.forget(TWO)
    directory.replace(IPv4Address("192.168.56.21"), table(1, claim))
    assert directory.locate(A) == Located(own, None)


def test_a_new_claim_is_later_than_everything_seen() -> None:
    directory = directory_of(HERE)
    directory.replace(ONE, table(1, Endpoint(A, MAC, 41)))
    assert directory.put(A, MAC, "").stamp == 42


def test_a_step_from_the_known_version_is_taken() -> None:
    directory = directory_of(HERE)
    first, second = Endpoint(A, MAC, 1), Endpoint(B, OTHER, 2)
    directory.replace(ONE, table(1, first))
    assert directory.step(ONE, 1, table(2, second), [A])
    assert directory.remote[ONE] == table(2, second)


def test_a_step_from_another_version_or_life_or_peer_is_not_taken() -> None:
    directory = directory_of(HERE)
    directory.replace(ONE, table(1))
    assert not directory.step(ONE, 5, table(6), [])
    assert not directory.step(ONE, 1, table(2, incarnation=2), [])
    assert not directory.step(TWO, 0, table(1), [])


def test_a_step_beyond_the_largest_table_is_not_taken() -> None:
    directory = directory_of(HERE)
    full = [Endpoint(IPv4Address(0x0A000000 + number), MAC, 1) for number in range(ENDPOINTS_PER_PEER_MAX)]
    directory.replace(ONE, table(1, *full))
    assert not directory.step(ONE, 1, table(2, Endpoint(IPv4Address("11.0.0.1"), MAC, 1)), [])


def test_a_table_that_names_an_address_twice_can_shrink_and_go() -> None:
    """It once raised KeyError, and could lose the entry that stayed."""
    directory = directory_of(HERE)
    low, high = Endpoint(A, MAC, 1), Endpoint(A, OTHER, 2)
    directory.replace(ONE, table(1, low, high))
    assert directory.locate(A) == Located(high, ONE)
    directory.replace(ONE, table(2, low))
    assert directory.locate(A) == Located(low, ONE)
    directory.replace(ONE, table(3, low, high))
    directory.replace(ONE, table(4))
    assert directory.located() == {}


def test_a_claim_of_an_earlier_life_is_as_old_as_it_was() -> None:
    directory = directory_of(HERE)
    assert directory.put(A, MAC, "", stamp=7).stamp == 7
    assert directory.put(B, OTHER, "").stamp == 8


def test_what_shares_a_mac_with_a_change_has_changed_too() -> None:
    directory = directory_of(HERE)
    directory.put(A, MAC, "red")
    directory.take_changed()
    directory.replace(ONE, table(1, Endpoint(B, MAC, 9)))
    assert directory.take_changed() == {A, B}, "A has lost its MAC"
    directory.forget(ONE)
    assert directory.take_changed() == {A, B}, "and has it again"


def test_a_peer_that_moves_takes_its_table_along_and_what_was_known_there_is_void() -> None:
    directory = directory_of(HERE)
    directory.replace(ONE, table(3, Endpoint(A, MAC, 1)))
    directory.replace(TWO, table(1, Endpoint(B, OTHER, 1)))
    directory.take_changed()
    directory.move(ONE, TWO)
    assert directory.located() == {A: Located(Endpoint(A, MAC, 1), TWO)}
    assert directory.take_changed() == {A, B}
    assert directory.step(TWO, 3, table(4), [A]), "its version is known as before"


def test_a_node_that_moves_looks_again_at_all_that_it_claims() -> None:
    """Of equal claims that of the lower node address stands, so another one may stand now."""
    own = [IPv4Address("192.168.0.1")]
    directory = Directory(1, lambda: own[0], lambda _node: "")
    mine = directory.put(A, MAC, "red")
    directory.replace(IPv4Address("192.168.0.5"), table(1, Endpoint(B, MAC, mine.stamp)))
    directory.take_changed()
    assert directory.locate(A) is not None
    own[0] = IPv4Address("192.168.0.9")
    directory.moved()
    assert directory.locate(A) is None
    assert directory.take_changed() == {A, B}
