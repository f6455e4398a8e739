"""What a quiet cluster costs a node does not depend on how many there are; `make bench-scale` measures larger ones."""

from bench.scale import Joined, measure_quiet


def test_a_quiet_node_of_a_hundred_sends_at_most_twice_what_one_of_ten_does() -> None:
    small, large = (measure_quiet(Joined(1, count)) for count in (10, 100))
    assert large["messages"] <= 2 * small["messages"], (small, large)
    assert large["bytes"] <= 2 * small["bytes"], (small, large)
