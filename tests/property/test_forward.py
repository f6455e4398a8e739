"""Applying the changes gives what is wanted, and small changes end where one large one does."""

from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.core.forwarding.claims import Located
from plugin.core.forwarding.forward import Forwarding, affected, changes, narrowed, plan_forwarding
from plugin.core.messages.values import Endpoint

GATE = settings(max_examples=200, deadline=None)
NODE = st.integers(1, 3).map(IPv4Address)
ADDRESS = st.integers(1, 5).map(lambda number: IPv4Address(0x0A200000 + number))
MAC = st.integers(1, 4).map(lambda number: f"0a:58:0a:20:00:{number:02x}")
FORWARDING = st.builds(Forwarding, st.frozensets(NODE), st.dictionaries(MAC, NODE), st.dictionaries(ADDRESS, MAC))


def applied(found: Forwarding, wanted: Forwarding) -> Forwarding:
    todo = changes(found, wanted)
    remote = {mac: node for mac, node in (found.remote | dict(todo.remote_set)).items() if mac not in todo.remote_del}
    neighbours = found.neighbours | dict(todo.neighbour_set)
    return Forwarding(
        (found.flood | set(todo.flood_add)) - set(todo.flood_del),
        remote,
        {address: mac for address, mac in neighbours.items() if address not in todo.neighbour_del},
    )


@GATE
@given(FORWARDING, FORWARDING)
def test_the_changes_lead_from_what_is_found_to_what_is_wanted(found, wanted) -> None:
    assert applied(found, wanted) == wanted
    assert not changes(wanted, wanted)


@GATE
@given(st.lists(st.tuples(ADDRESS, MAC, st.none() | NODE, st.booleans()), max_size=12))
def test_change_by_change_ends_where_the_whole_plan_does(moves) -> None:
    located, remote, neighbours = {}, {}, {}
    for stamp, (address, mac, node, gone) in enumerate(moves):
        located.pop(address, None)
        if not gone:
            located[address] = Located(Endpoint(address, mac, stamp), node)
        written = Forwarding(frozenset(), remote, neighbours)
        holders = {mac: {key for key, value in neighbours.items() if value == mac} for mac in neighbours.values()}
        changed = affected(written, holders, {key: located[key] for key in {address} & located.keys()}, {address})
        found = narrowed(written, holders, changed)
        wanted = plan_forwarding({key: located[key] for key in changed & located.keys()}, [], [])
        todo = changes(found, wanted)
        remote = {key: value for key, value in (remote | wanted.remote).items() if key not in todo.remote_del}
        neighbours = {
            key: value for key, value in (neighbours | wanted.neighbours).items() if key not in todo.neighbour_del
        }
        assert Forwarding(frozenset(), remote, neighbours) == plan_forwarding(located, [], [])
