"""How what is differs from what has to be."""

from hypothesis import given
from hypothesis import strategies as st

from plugin.core.upkeep.items import Damage, damages

STATES = st.dictionaries(
    st.sampled_from(["link weave", "link vxlan-6784", "sysctl a", "nft table weave"]),
    st.dictionaries(st.sampled_from(["mtu", "up", "mac"]), st.one_of(st.integers(), st.booleans(), st.text())),
)


@given(STATES)
def test_what_is_as_it_has_to_be_has_no_damage(state: dict[str, dict[str, object]]) -> None:
    assert damages(state, state) == []


@given(STATES, STATES)
def test_mending_what_is_named_and_nothing_else_makes_it_whole(
    wanted: dict[str, dict[str, object]], found: dict[str, dict[str, object]]
) -> None:
    named = {damage.name for damage in damages(wanted, found)}
    assert named <= wanted.keys()
    mended = found | {name: wanted[name] for name in named}
    assert damages(wanted, mended) == []


def test_an_object_that_is_missing_is_gone() -> None:
    assert damages({"link weave": {"mtu": 1450}}, {}) == [Damage("link weave", "gone")]


def test_what_differs_is_told_in_words() -> None:
    wanted = {
        "link weave": {"mtu": 1450, "up": True, "learning": False, "mac": "02:00:00:00:00:01"},
        "address weave": {"address": frozenset({"10.32.0.1/12"})},
        "nft table weave": {"rules": b"\1"},
    }
    found = {
        "link weave": {"mtu": 1400, "up": False, "learning": True, "mac": "", "txqlen": 1},
        "address weave": {"address": frozenset({"10.32.0.9/12"})},
        "nft table weave": {"rules": b"\2"},
    }
    assert damages(wanted, found) == [
        Damage("link weave", "mtu 1400 instead of 1450, not up, learning, mac none instead of 02:00:00:00:00:01"),
        Damage("address weave", "address 10.32.0.1/12 missing, address 10.32.0.9/12 too many"),
        Damage("nft table weave", "rules changed"),
    ]


def test_a_fact_that_the_kernel_cannot_tell_is_passed_over() -> None:
    assert damages({"port a": {"locked": False, "up": True}}, {"port a": {"up": True}}) == []
