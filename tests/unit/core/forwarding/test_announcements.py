"""Pods are told of a pair that they would not expect, once, by frames that any Ethernet understands."""

from ipaddress import IPv4Address

from plugin.core.forwarding import announcements
from plugin.core.forwarding.announcements import Announcements, frames

A, B = IPv4Address("10.32.0.2"), IPv4Address("10.32.0.3")
OWN, OTHER = "02:aa:00:00:00:01", "02:aa:00:00:00:02"


def usual(address: IPv4Address) -> str:
    return f"0a:58:{address.packed.hex(':')}"


def test_the_usual_pair_is_no_news() -> None:
    assert Announcements(usual).news({A: usual(A)}) == {}


def test_another_mac_is_news_once_and_so_is_the_way_back() -> None:
    pods = Announcements(usual)
    assert pods.news({A: OWN, B: usual(B)}) == {A: OWN}
    assert pods.news({A: OWN}) == {}
    assert pods.news({A: OTHER}) == {A: OTHER}
    assert pods.news({A: usual(A)}) == {A: usual(A)}, "also when the address was away in between"
    assert pods.news({A: usual(A)}) == {}


def test_what_an_earlier_agent_has_told_is_no_news() -> None:
    pods = Announcements(usual)
    pods.known({A: OWN})
    assert pods.news({A: OWN}) == {}
    assert pods.news({A: usual(A)}) == {A: usual(A)}


def test_what_is_remembered_has_an_end(monkeypatch) -> None:
    monkeypatch.setattr(announcements, "_UNUSUAL_MAX", 1)
    pods = Announcements(usual)
    pods.news({A: OWN})
    pods.news({B: OTHER})
    assert pods.news({A: OWN, B: OTHER}) == {A: OWN}, "said once more, which harms nobody"


def test_a_pair_is_told_by_a_request_and_a_reply_to_everybody() -> None:
    request, reply = frames(A, OWN)
    mac = bytes.fromhex(OWN.replace(":", ""))
    for frame, operation in ((request, 1), (reply, 2)):
        assert frame[:14] == b"\xff" * 6 + mac + b"\x08\x06"
        assert frame[14:22] == bytes([0, 1, 8, 0, 6, 4, 0, operation])
        assert (frame[22:32], frame[38:42]) == (mac + A.packed, A.packed), "the sender asks for itself"
