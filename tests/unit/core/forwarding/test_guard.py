"""Which entries the kernel's sets hold for which pods, and when refused frames are spoken of."""

from ipaddress import IPv4Address
from itertools import product

import pytest

from plugin.core.cni.exemption import Exemption
from plugin.core.forwarding.guard import (
    ANY_ADDRESS,
    ANY_MAC,
    MACS,
    PROMISCUOUS,
    SAID_AT_ONCE_MAX,
    SAY_AGAIN_S,
    SOURCES,
    Entry,
    Reason,
    Refusal,
    Sender,
    Tally,
    exemption_of,
    wanted_entries,
)

RED, BLUE, VIRTUAL = IPv4Address("10.32.0.2"), IPv4Address("10.32.0.3"), IPv4Address("10.40.0.9")
MAC, OTHER = "0a:58:0a:20:00:02", "02:00:00:00:00:05"


def test_a_pod_may_send_from_its_mac_with_each_of_its_addresses_and_nothing_else() -> None:
    assert wanted_entries([Sender(7, MAC, (RED, BLUE))]) == {
        Entry(MACS, 7, MAC), Entry(SOURCES, 7, MAC, RED), Entry(SOURCES, 7, MAC, BLUE),
    }  # fmt: skip


def test_a_pod_without_an_address_yet_may_ask_for_one_by_its_mac() -> None:
    assert wanted_entries([Sender(7, MAC, ())]) == {Entry(MACS, 7, MAC)}


def test_listed_macs_and_addresses_may_be_combined() -> None:
    exemption = Exemption(macs=(OTHER,), addresses=(str(VIRTUAL),))
    assert wanted_entries([Sender(7, MAC, (RED,), exemption)]) == {
        *(Entry(MACS, 7, mac) for mac in (MAC, OTHER)),
        *(Entry(SOURCES, 7, mac, address) for mac, address in product((MAC, OTHER), (RED, VIRTUAL))),
    }


def test_any_mac_is_any_mac_with_the_pods_addresses() -> None:
    entries = wanted_entries([Sender(7, MAC, (RED,), Exemption(any_mac=True))])
    assert entries == {Entry(MACS, 7, MAC), Entry(SOURCES, 7, MAC, RED), Entry(ANY_MAC, 7, address=RED)}


def test_any_address_is_any_address_with_the_pods_macs() -> None:
    entries = wanted_entries([Sender(7, MAC, (RED,), Exemption(any_address=True, macs=(OTHER,)))])
    assert {entry for entry in entries if entry.set_name == ANY_ADDRESS} == {
        Entry(ANY_ADDRESS, 7, MAC), Entry(ANY_ADDRESS, 7, OTHER),
    }  # fmt: skip


def test_a_promiscuous_pod_is_one_entry() -> None:
    assert wanted_entries([Sender(7, MAC, (RED,), Exemption(promiscuous=True))]) == {Entry(PROMISCUOUS, 7)}


def test_of_a_pod_whose_mac_is_lost_the_addresses_are_checked() -> None:
    sender = Sender(7, "", (RED,))
    assert wanted_entries([sender]) == {Entry(ANY_MAC, 7, address=RED)}
    assert not sender.one_mac


def test_the_entries_of_many_pods_are_those_of_each() -> None:
    one, two = Sender(7, MAC, (RED,)), Sender(8, OTHER, (BLUE,))
    assert wanted_entries([one, two]) == wanted_entries([one]) | wanted_entries([two])
    assert wanted_entries([]) == frozenset()


@pytest.mark.parametrize(
    ("exemption", "one_mac"),
    [
        (Exemption(), True),
        (Exemption(addresses=("10.40.0.9",)), True),
        (Exemption(any_address=True), True),
        (Exemption(macs=(OTHER,)), False),
        (Exemption(any_mac=True), False),
        (Exemption(promiscuous=True), False),
        (Exemption(macs=(OTHER,), any_address=True), False),
        (Exemption(any_mac=True, addresses=("10.40.0.9",)), False),
    ],
)
def test_what_a_pod_was_exempted_from_can_be_read_from_its_entries(exemption: Exemption, one_mac: bool) -> None:  # noqa: FBT001
    sender = Sender(7, MAC, (RED, BLUE), exemption)
    assert sender.one_mac is one_mac, "only such a port is locked"
    assert exemption_of(wanted_entries([sender]), MAC, (RED, BLUE)) == exemption


@pytest.mark.parametrize(
    ("exemption", "words"),
    [
        (Exemption(promiscuous=True), "guard:promiscuous"),
        (Exemption(any_mac=True), "guard:macs=any"),
        (Exemption(macs=(OTHER,), any_address=True), f"guard:macs={OTHER} guard:addresses=any"),
        (Exemption(addresses=("10.40.0.8", "10.40.0.9")), "guard:addresses=10.40.0.8,10.40.0.9"),
    ],
)
def test_an_exemption_is_shown_in_a_word_or_two(exemption: Exemption, words: str) -> None:
    assert str(exemption) == words
    assert exemption
    assert not Exemption()


# ---- counting and telling

KEY = ("vethwepl1", Reason.MAC)


def test_frames_are_summed_up_over_counters_that_begin_anew() -> None:
    tally = Tally()
    for counter in (5, 8, 8, 2, 0, 1):  # 2 and 1: the tables were written anew
        tally.count({KEY: counter} if counter else {})
    assert tally.totals == {KEY: 8 + 2 + 1}
    assert tally.of("vethwepl1") == {Reason.MAC: 11}
    assert tally.of("vethwepl2") == {}


def test_a_refusal_is_told_at_once_and_then_once_a_minute_with_what_came_meanwhile() -> None:
    tally = Tally()
    tally.count({KEY: 3})
    assert tally.take_news(now_s=0) == [Refusal(*KEY, 3, 3)]
    tally.count({KEY: 90})
    assert tally.take_news(now_s=SAY_AGAIN_S - 0.1) == []
    assert tally.take_news(now_s=SAY_AGAIN_S) == [Refusal(*KEY, 87, 90)]
    assert tally.take_news(now_s=SAY_AGAIN_S * 9) == [], "no news, no word"


def test_other_reasons_and_other_pods_are_told_by_themselves() -> None:
    tally = Tally()
    tally.count({KEY: 1})
    tally.take_news(now_s=0)
    tally.count({KEY: 1, ("vethwepl1", Reason.ARP): 1, ("vethwepl2", Reason.MAC): 4})
    told = [(refusal.who, refusal.reason) for refusal in tally.take_news(now_s=1)]
    assert told == [("vethwepl2", Reason.MAC), ("vethwepl1", Reason.ARP)]


def test_many_attackers_at_once_are_told_a_few_at_a_time_and_none_is_passed_over() -> None:
    tally = Tally()
    tally.count({(f"vethwepl{number}", Reason.MAC): number for number in range(1, 26)})
    told = []
    for turn in range(3):
        news = tally.take_news(now_s=turn * 2.0)
        assert len(news) <= SAID_AT_ONCE_MAX
        told += news
    assert [refusal.more for refusal in told] == list(range(25, 0, -1)), "the worst first"


def test_what_pods_did_that_are_gone_is_forgotten() -> None:
    tally = Tally()
    tally.count({KEY: 1, ("vethwepl2", Reason.MAC): 4})
    tally.take_news(now_s=0)
    tally.forget({"vethwepl2"})
    assert tally.totals == {("vethwepl2", Reason.MAC): 4}
    tally.count({KEY: 1})
    assert tally.take_news(now_s=1) == [Refusal(*KEY, 1, 1)], "another pod of that name begins anew"


def test_every_reason_has_a_word_and_a_sentence() -> None:
    assert len({reason.word for reason in Reason}) == len(Reason)
    assert all(reason.sentence for reason in Reason)
