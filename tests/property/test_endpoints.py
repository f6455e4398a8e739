"""The one view does not depend on the order in which tables arrive."""

from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.core.forwarding.endpoints import Directory, Table
from plugin.core.messages.values import Endpoint

ADDRESS = st.integers(1, 6).map(lambda number: IPv4Address(0x0A200000 + number))
MAC = st.integers(1, 6).map(lambda number: f"0a:58:0a:20:00:{number:02x}")
TABLE = st.frozensets(st.builds(Endpoint, ADDRESS, MAC, st.integers(0, 5)), max_size=6)
TELLING = st.lists(st.tuples(st.integers(1, 3), TABLE), max_size=8)


def _directory() -> Directory:
    return Directory(1, lambda: IPv4Address(9), lambda _node: "")


@settings(max_examples=150, deadline=None)
@given(TELLING, st.randoms(use_true_random=False))
def test_the_view_follows_from_the_last_tables_alone(telling, rng) -> None:
    lived, told = _directory(), {}
    for version, (node, endpoints) in enumerate(telling):
        lived.replace(IPv4Address(node), Table(1, version, endpoints))
        told[node] = endpoints
    latest = list(told.items())
    rng.shuffle(latest)
    fresh = _directory()
    for node, endpoints in latest:
        fresh.replace(IPv4Address(node), Table(1, 0, endpoints))
    assert lived.located() == fresh.located()
    assert set(lived.located()) <= lived.take_changed() | set()
    for node in told:
        lived.forget(IPv4Address(node))
    assert lived.located() == {}
