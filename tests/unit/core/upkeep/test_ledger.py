"""The book of troubles: problems, repairs, fights, holds."""

from plugin.core.upkeep.ledger import CALM_S, EAGER_MAX, EVERYTHING, Ledger, Problem, Repair


def test_a_problem_keeps_its_beginning_and_is_news_once_for_each_cause() -> None:
    ledger = Ledger()
    assert ledger.trouble("uplink", "eth0 is down", "set it up", 10.0)
    assert not ledger.trouble("uplink", "eth0 is down", "set it up", 20.0)
    assert ledger.trouble("uplink", "eth0 is gone", "plug it in", 30.0)
    assert ledger.problems() == (Problem("uplink", "eth0 is gone", "plug it in", 10.0),)
    assert ledger.well("uplink")
    assert not ledger.well("uplink")
    assert ledger.problems() == ()


def test_problems_stand_in_the_order_of_their_beginnings() -> None:
    ledger = Ledger()
    ledger.trouble("b", "second", "", 2.0)
    ledger.trouble("a", "third", "", 3.0)
    ledger.trouble("c", "first", "", 1.0)
    assert [one.cause for one in ledger.problems()] == ["first", "second", "third"]


def test_repairs_are_counted_with_their_last_time_the_latest_first() -> None:
    ledger = Ledger()
    ledger.repaired("nft table weave", 1.0, "gone")
    ledger.repaired("link weave", 2.0, "down")
    ledger.repaired("nft table weave", 3.0, "changed")
    assert ledger.repairs() == (
        Repair("nft table weave", 2, "changed", 3.0),
        Repair("link weave", 1, "down", 2.0),
    )


def test_names_of_repairs_are_bounded() -> None:
    ledger = Ledger()
    for number in range(1000):
        ledger.repaired(f"port {number}", float(number))
    assert len(ledger.repairs()) == 256
    assert ledger.repairs()[0].name == "port 999"


def test_what_is_broken_again_and_again_is_mended_at_a_falling_rate_and_named() -> None:
    ledger = Ledger()
    now_s = 100.0
    waits = []
    for _ in range(EAGER_MAX + 10):
        at_s = ledger.mend_at_s("sysctl x", now_s)
        waits.append(at_s - now_s)
        now_s = at_s
        ledger.repaired("sysctl x", now_s)
    assert waits[:EAGER_MAX] == [0.0] * EAGER_MAX
    assert waits[EAGER_MAX:] == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0, 64.0, 64.0, 64.0]
    assert ledger.fought_over(now_s) == ("sysctl x",)
    assert ledger.mend_at_s("sysctl y", now_s) == now_s, "another object is not held back"


def test_a_fight_ends_when_the_object_is_left_alone() -> None:
    ledger = Ledger()
    for _ in range(EAGER_MAX):
        ledger.repaired("link weave", 0.0)
    assert ledger.fought_over(CALM_S) == ("link weave",)
    later_s = 2 * CALM_S
    assert ledger.fought_over(later_s) == ()
    assert ledger.mend_at_s("link weave", later_s) == later_s


def test_an_object_a_group_or_everything_is_held() -> None:
    ledger = Ledger()
    ledger.hold("link weave", "exercise 3", 1.0)
    assert ledger.mend_at_s("link weave", 2.0) == float("inf")
    assert ledger.mend_at_s("link vxlan-6784", 2.0) == 2.0
    ledger.hold("sysctl", "fault", 3.0)
    assert ledger.held("sysctl net.ipv4.ip_forward") == ledger.hold("sysctl", "fault", 9.0), "the group's, since 3.0"
    ledger.hold(EVERYTHING, "repair: false", 4.0)
    assert ledger.mend_at_s("anything", 5.0) == float("inf")
    assert [hold.name for hold in ledger.holds()] == ["link weave", "sysctl", EVERYTHING]


def test_release_of_one_and_of_everything() -> None:
    ledger = Ledger()
    for name in ("link weave", "sysctl", EVERYTHING):
        ledger.hold(name, "", 1.0)
    assert [hold.name for hold in ledger.release("sysctl")] == ["sysctl"]
    assert ledger.release("sysctl") == ()
    assert ledger.held("sysctl x") is not None, "everything is held still"
    assert {hold.name for hold in ledger.release(EVERYTHING)} == {"link weave", EVERYTHING}
    assert ledger.holds() == ()
    assert ledger.mend_at_s("link weave", 2.0) == 2.0
