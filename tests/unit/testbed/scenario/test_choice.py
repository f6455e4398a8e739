"""Which scenarios run: by name, pattern and tag, so many times, and what they need."""

import pytest

from plugin.core.errors import InputError
from testbed.scenario.choice import choose_scenarios, rounds, tools_of
from testbed.topology.load import parse_topology
from testbed.topology.model import Topology

TEXT = """
name: small
nodes: {node1: }
pods: {red: {node: node1}, green: {node: node1}}
scenarios:
  - {name: same-node, tags: [smoke, path], steps: [ping: {from: red, to: green}]}
  - {name: same-speed, tags: [slow], steps: [iperf: {from: red, to: green}]}
  - {name: rest, steps: [exec: {on: red, command: "true"}]}
"""


@pytest.fixture
def topology() -> Topology:
    return parse_topology(TEXT, file="small.yaml")


def names(topology: Topology, words: tuple[str, ...] = (), tags: tuple[str, ...] = ()) -> list[str]:
    return [scenario.name for scenario in choose_scenarios(topology, words, tags)]


def test_without_words_all_are_chosen_in_the_order_of_the_file(topology: Topology) -> None:
    assert names(topology) == ["same-node", "same-speed", "rest"]


def test_words_choose_in_the_order_asked_for_each_once(topology: Topology) -> None:
    assert names(topology, ("rest", "same-node", "rest")) == ["rest", "same-node"]


@pytest.mark.parametrize("pattern", ["same-*", "s*", "same-[ns]*", "????-*"])
def test_patterns_are_those_of_a_shell(topology: Topology, pattern: str) -> None:
    assert names(topology, (pattern,)) == ["same-node", "same-speed"]


def test_a_pattern_and_a_name_may_mean_the_same(topology: Topology) -> None:
    assert names(topology, ("same-speed", "*")) == ["same-speed", "same-node", "rest"]


@pytest.mark.parametrize(
    ("word", "guess"), [("Same-Node", "same-node"), ("rst", "rest"), ("same-speeed", "same-speed")]
)
def test_an_unknown_name_is_refused_with_a_guess(topology: Topology, word: str, guess: str) -> None:
    with pytest.raises(InputError, match=f"the topology small has no scenario '{word}'") as caught:
        names(topology, (word,))
    assert caught.value.hint == f"did you mean '{guess}'? it has: same-node, same-speed, rest"


def test_a_pattern_that_matches_nothing_is_an_error_with_what_there_is(topology: Topology) -> None:
    with pytest.raises(InputError, match=r"no scenario of the topology small matches 'cross-\*'") as caught:
        names(topology, ("rest", "cross-*"))
    assert caught.value.hint == "it has: same-node, same-speed, rest"


def test_tags_choose_among_what_the_words_mean(topology: Topology) -> None:
    assert names(topology, tags=("smoke",)) == ["same-node"]
    assert names(topology, tags=("slow", "path")) == ["same-node", "same-speed"]
    assert names(topology, ("same-*",), ("slow",)) == ["same-speed"]


def test_a_tag_that_nothing_has_is_an_error(topology: Topology) -> None:
    with pytest.raises(InputError, match="has the tag 'smoky'") as caught:
        names(topology, tags=("smoky",))
    assert caught.value.hint == "did you mean 'smoke'? its tags: smoke, path, slow"
    with pytest.raises(InputError, match="none of rest has the tag slow"):
        names(topology, ("rest",), ("slow",))


def test_a_topology_without_scenarios_is_refused() -> None:
    with pytest.raises(InputError, match="has no scenarios to run"):
        choose_scenarios(parse_topology("name: small\nnodes: {node1: }\n", file="small.yaml"))


def test_one_round_keeps_the_names_and_several_number_them(topology: Topology) -> None:
    chosen = choose_scenarios(topology, ("same-*",))
    assert list(rounds(chosen, 1)) == [chosen]
    assert [[one.name for one in each] for each in rounds(chosen, 2)] == [
        ["same-node#1", "same-speed#1"],
        ["same-node#2", "same-speed#2"],
    ]


def test_the_tools_are_those_of_the_chosen_steps(topology: Topology) -> None:
    assert tools_of(choose_scenarios(topology)) == ("iperf3", "ping")
    assert tools_of(choose_scenarios(topology, ("rest",))) == ()
