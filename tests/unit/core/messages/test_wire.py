"""Messages between agents: their form, their size, and every rule that bytes from a stranger can break."""

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from plugin.core.messages import fields, kinds, values, wire
from plugin.core.messages.codec import COUNTER_MAX, WireError
from plugin.core.messages.keys import Keys
from plugin.core.messages.kinds import Kind
from plugin.core.messages.values import STAMP_MAX, Endpoint, LinkNews, Member, MemberState, Segment
from tests.support import sealing
from tests.support.sealing import decode, decode_datagram, encode, encode_relay

RANGE = IPv4Network("10.32.0.0/12")
KEYS = Keys("lab", RANGE, "vni=7", "secret")
UID = "0123456789abcdef"
NODE = Member("node1", UID, IPv4Address("192.168.56.11"), 5)
POD = Endpoint(IPv4Address("10.32.0.1"), "0a:58:0a:20:00:01", 7, "default/red")
FROM = ["node1", UID, "192.168.56.11", 5, 0, 0]
ENTRY = ["10.32.0.1", "0a:58:0a:20:00:01", 7, "default/red"]
PART = [10, 20, 1, UID]
BRIEF = [1, 2, 3, 4]
SEAT = [UID, "node1", "192.168.56.11"]
STATE = ["", 0, [], [], []]
BALLOT = [1, UID]
EMPTY_STATE = values.RingState("", 0, (), (), ())


def sealed(kind: int, body: bytes, keys: Keys = KEYS) -> bytes:
    return sealing.sealed(kind, body, NODE, keys)


def message(kind: int, **fields: object) -> bytes:
    return sealed(kind, json.dumps({"from": FROM} | fields).encode())


def table(**other: object) -> bytes:
    return message(Kind.TABLE, **({"version": 1, "part": 0, "parts": 1, "endpoints": [ENTRY]} | other))


def ring(**other: object) -> bytes:
    return message(Kind.RING, **({"segments": [PART]} | other))


def sync(**other: object) -> bytes:
    empty = {"members": [], "links": [], "have": [], "tables": [], "wanted": [], "state": STATE, "pods": False}
    return message(Kind.SYNC, **(empty | other))


def promise(**other: object) -> bytes:
    fields = {
        "epoch": 1,
        "granted": True,
        "promised": BALLOT,
        "accepted": None,
        "value": None,
        "reason": "",
        "state": STATE,
    }
    return message(Kind.PROMISE, **(fields | other))


def longest(character: str = "x") -> dict[str, kinds.Datagram]:
    """Every datagram with as much as agents put into it, each field as long as it can be."""
    name = character * 63
    member = Member(name, "f" * 16, IPv4Address("255.255.255.255"), COUNTER_MAX, COUNTER_MAX, MemberState.LEFT)
    news = (member,) * fields.NEWS_PER_DATAGRAM_MAX
    links = (LinkNews(name, name, COUNTER_MAX, broken=False),) * fields.LINKS_PER_DATAGRAM_MAX
    brief = values.Brief((1 << 64) - 1, COUNTER_MAX, COUNTER_MAX, COUNTER_MAX)
    pod = Endpoint(IPv4Address("255.255.255.255"), "fe:ff:ff:ff:ff:ff", STAMP_MAX, character * 40)
    pods = (pod,) * fields.ENDPOINTS_PER_DATAGRAM_MAX
    segment = Segment((1 << 32) - 1, (1 << 32) - 1, COUNTER_MAX, "f" * 16)
    return {
        "ping": kinds.Ping(COUNTER_MAX, brief, news, links),
        "ack": kinds.Ack(COUNTER_MAX, "", brief, news, links),
        "ack about another": kinds.Ack(COUNTER_MAX, name, brief, news[1:], links),
        "ping for": kinds.PingFor(COUNTER_MAX, name),
        "step": kinds.Step(COUNTER_MAX, COUNTER_MAX, pods[: fields.STEP_MAX], (pod.address,) * fields.STEP_MAX),
        "step of one that is gone": kinds.Step(COUNTER_MAX, COUNTER_MAX, (pod,), (pod.address,)),
        "table": kinds.TablePart(COUNTER_MAX, fields.PARTS_MAX - 1, fields.PARTS_MAX, pods),
        "pull": kinds.Pull(),
        "seen": kinds.Seen(COUNTER_MAX),
        "ring": kinds.RingNews((segment,) * fields.SEGMENTS_PER_DATAGRAM_MAX, "f" * 16),
        "refuse": kinds.Refuse(character * 20, character * 400, "f" * 16),
        "hello": kinds.Hello(),
    }


def longest_sender(character: str = "x") -> Member:
    return Member(character * 63, "f" * 16, IPv4Address("255.255.255.255"), COUNTER_MAX, COUNTER_MAX, MemberState.LEFT)


# --- form and size ----------------------------------------------------------------------------------------------------
def test_a_datagram_can_be_read_by_a_person() -> None:
    data = encode(kinds.PingFor(7, "node2"), NODE, KEYS)
    assert data[:4] == b"WV\x03\x03"
    assert data[4:8] == KEYS.mark
    assert data[8:12] == KEYS.tag(sealing.RECEIVER.session)
    assert data[12:20] == NODE.session
    assert data[20:24] == b"\0\0\0\x01"
    assert data[40:] == b'{"from":["node1","0123456789abcdef","192.168.56.11",5,0,0],"seq":7,"name":"node2"}'


@pytest.mark.parametrize("what", list(longest()))
def test_the_longest_fields_fit_one_datagram_that_can_be_relayed(what: str) -> None:
    data = encode(longest()[what], longest_sender(), KEYS)
    assert len(data) <= wire.DATAGRAM_BYTES_MAX
    assert decode_datagram(data, KEYS) == wire.Received(longest_sender(), longest()[what])
    relay = encode_relay(kinds.Relay(NODE.address, data), NODE, KEYS)
    assert decode_datagram(relay, KEYS) == kinds.Relay(NODE.address, data)


@pytest.mark.parametrize("character", ['"', "\\"])
@pytest.mark.parametrize("what", list(longest()))
def test_names_that_peers_may_say_can_be_passed_on(what: str, character: str) -> None:
    """Who is told a name tells it to others: one that is let in and does not fit would stop the agent."""
    try:
        body = json.dumps([character * 63, *FROM[1:]])
        decode(sealed(Kind.PULL, f'{{"from":{body}}}'.encode()), KEYS)
    except WireError:
        return  # not let in
    assert len(encode(longest(character)[what], longest_sender(character), KEYS)) <= wire.DATAGRAM_BYTES_MAX


def test_a_message_that_became_too_long_is_a_mistake_of_the_sender() -> None:
    segment = Segment(1, 2, COUNTER_MAX, UID)
    with pytest.raises(AssertionError, match="RING of"):
        encode(kinds.RingNews((segment,) * 40), NODE, KEYS)


def test_an_exchange_may_be_longer_than_a_datagram() -> None:
    segments = tuple(Segment(number, number, 1, UID) for number in range(5000))
    data = encode(kinds.Grant(segments, 3, ""), NODE, KEYS)
    assert len(data) > wire.DATAGRAM_BYTES_MAX
    assert decode(data, KEYS) == wire.Received(NODE, kinds.Grant(segments, 3, ""))


def test_labels_and_sentences_are_cut_and_cleaned_by_the_sender() -> None:
    pod = Endpoint(POD.address, POD.mac, 1, 'é"\\\n' + "x" * 90)
    told = decode(encode(kinds.TablePart(1, 0, 1, (pod,)), NODE, KEYS), KEYS)
    refused = decode(encode(kinds.Refuse("name", "a\nb" + "x" * 500), NODE, KEYS), KEYS)
    assert isinstance(told, wire.Received)
    assert isinstance(told.message, kinds.TablePart)
    assert told.message.endpoints[0].label == "?" + "x" * 36
    assert isinstance(refused, wire.Received)
    assert isinstance(refused.message, kinds.Refuse)
    assert refused.message.reason == "ab" + "x" * 398


def test_ballots_are_ordered_by_number_then_by_who_proposes() -> None:
    low, middle, high = values.Ballot(1, "f" * 16), values.Ballot(2, "a" * 16), values.Ballot(2, "b" * 16)
    assert low < middle < high
    assert low <= values.Ballot(1, "f" * 16) <= middle
    assert not high < values.Ballot(2, "b" * 16)
    assert not high <= middle


# --- clusters and passwords -------------------------------------------------------------------------------------------
OTHERS = {
    "cluster": Keys("home", RANGE, "vni=7", "secret"),
    "range": Keys("lab", IPv4Network("10.0.0.0/8"), "vni=7", "secret"),
    "overlay": Keys("lab", RANGE, "vni=8", "secret"),
    "password": Keys("lab", RANGE, "vni=7", "guess"),
    "no password": Keys("lab", RANGE, "vni=7"),
}


@pytest.mark.parametrize("differs", OTHERS)
def test_agents_that_have_other_values_refuse_each_others_requests_and_say_which(differs: str) -> None:
    code = "password" if "password" in differs else "cluster"
    for theirs, ours in ((KEYS, OTHERS[differs]), (OTHERS[differs], KEYS)):
        data = encode(kinds.Ask("", None, EMPTY_STATE), NODE, theirs)
        with pytest.raises(wire.StrangerError, match=f"another {code}") as raised:
            decode(data, ours)
        assert raised.value.code == code


@pytest.mark.parametrize("differs", OTHERS)
def test_datagrams_of_those_that_have_other_values_are_for_nobody(differs: str) -> None:
    """Not even their addressee can be named without the password: so the kernel sorts them out."""
    code = "session" if "password" in differs else "cluster"
    for theirs, ours in ((KEYS, OTHERS[differs]), (OTHERS[differs], KEYS)):
        for data in (encode(kinds.Pull(), NODE, theirs), encode_relay(kinds.Relay(NODE.address, b"x"), NODE, theirs)):
            with pytest.raises(wire.StrangerError) as raised:
                decode_datagram(data, ours)
            assert raised.value.code == code


@pytest.mark.parametrize("differs", OTHERS)
def test_a_refusal_gets_through_and_says_that_it_was_not_sealed(differs: str) -> None:
    refuse = kinds.Refuse("cluster", "it belongs to another cluster", UID)
    assert decode_datagram(encode(refuse, NODE, OTHERS[differs]), KEYS) == wire.Received(NODE, refuse, sealed=False)
    assert decode(encode(refuse, NODE, KEYS), KEYS) == wire.Received(NODE, refuse, sealed=True)


@pytest.mark.parametrize("place", [3, *range(12, 50)])
def test_who_changes_what_was_said_is_found_out(place: int) -> None:
    data = bytearray(encode(kinds.Seen(7), NODE, KEYS))
    data[place] ^= 1
    with pytest.raises(WireError):
        decode(bytes(data), KEYS)


def test_who_knows_the_password_speaks_in_its_own_name_only() -> None:
    """So a member that a message names is the one whose numbers were counted."""
    other = Member("node2", UID, NODE.address, 6)
    data = sealing.sealed(Kind.PULL, wire.body_of(kinds.Pull(), other), NODE, KEYS)
    with pytest.raises(WireError, match="wanted the sender that the header names"):
        decode(data, KEYS)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(KEYS)


# --- what is refused --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [kind for kind in Kind if kind >= Kind.SYNC])
def test_an_exchange_does_not_come_as_a_datagram(kind: Kind) -> None:
    with pytest.raises(WireError, match="does not come as a datagram"):
        decode_datagram(sealed(kind, b"{}"), KEYS)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.RELAY])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b"[" * 1300,
        b'{"from":' * 170,
        b"[" * 600 + b"]" * 600,
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b'{"from":' + b"9" * 1300 + b"}",
        b'{"from":NaN}',
        b'{"from":1e999}',
    ],
)
def test_a_body_that_is_no_object_with_a_sender_is_refused(kind: Kind, body: bytes) -> None:
    with pytest.raises(WireError):
        decode(sealed(kind, body), KEYS)


@pytest.mark.parametrize("depth", [10_000, 1_000_000])
def test_deep_nesting_is_refused_in_an_exchange_too(depth: int) -> None:
    for body in (b"[" * depth, b"[" * depth + b"]" * depth, b'{"from":' * depth):
        with pytest.raises(WireError):
            decode(sealed(Kind.SYNC, body), KEYS)


@pytest.mark.parametrize("digits", [20, 4_000, 5_000, 1_000_000])
def test_huge_numbers_are_refused_in_an_exchange_too(digits: int) -> None:
    number = b"9" * digits
    with pytest.raises(WireError) as raised:
        decode(sealed(Kind.ACCEPT, b'{"from":1,"epoch":' + number + b"}"), KEYS)
    assert len(raised.value.message) < 200


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"WV", "at least 40 bytes, found 2"),
        (b"", "at least 40 bytes, found 0"),
        (b"XX" + bytes(38), "starts with b'WV'"),
        (b"WV\x02" + bytes(37), "version 3, found 2"),
        (b"WV\x03\x0c" + bytes(36), "kind 12 is unknown"),
        (b"WV\x03\x00" + bytes(36), "kind 0 is unknown"),
        (sealed(Kind.PING, bytes(1500)), f"at most {wire.RELAY_BYTES_MAX} bytes, found 1540"),
        (sealed(Kind.SYNC, bytes(wire.FRAME_BYTES_MAX)), "at most 8388608 bytes"),
        (sealed(Kind.RELAY, b""), "nothing to pass on"),
        (sealed(Kind.RELAY, bytes(4)), "nothing to pass on"),
        (message(Kind.SEEN), "version: wanted a whole number"),
        (message(Kind.SEEN, version=-1), "from 0 to"),
        (message(Kind.SEEN, version=1 << 63), "from 0 to"),
        (message(Kind.SEEN, version=True), "found True"),
        (message(Kind.SEEN, version=1.0), "found 1.0"),
        (message(Kind.SEEN, version="1"), "found '1'"),
        (sealed(Kind.SEEN, b'{"version":1}'), "from: wanted [name, uid, address, life, incarnation, state]"),
        (message(Kind.PULL, **{"from": FROM[:5]}), "from: wanted [name"),
        (message(Kind.PULL, **{"from": ["", *FROM[1:]]}), "from: wanted a node's name"),
        (message(Kind.PULL, **{"from": ["x" * 64, *FROM[1:]]}), "wanted a node's name"),
        (message(Kind.PULL, **{"from": ["a\nb", *FROM[1:]]}), "wanted a node's name"),
        (message(Kind.PULL, **{"from": ["\ud800", *FROM[1:]]}), "wanted a node's name"),
        (message(Kind.PULL, **{"from": ["n", UID.upper(), *FROM[2:]]}), "16 hex digits"),
        (message(Kind.PULL, **{"from": ["n", "", *FROM[2:]]}), "16 hex digits"),
        (message(Kind.PULL, **{"from": [*FROM[:2], "10.0.0.256", *FROM[3:]]}), "IPv4 address"),
        (message(Kind.PULL, **{"from": [*FROM[:2], "::1", *FROM[3:]]}), "IPv4 address"),
        (message(Kind.PULL, **{"from": [*FROM[:2], 167772161, *FROM[3:]]}), "IPv4 address"),
        (message(Kind.PULL, **{"from": [*FROM[:5], 4]}), "from 0 to 3"),
        (message(Kind.PING_FOR, seq=1, name=""), "name: wanted a node's name"),
        (message(Kind.PING, seq=1, brief=[1 << 64, 0, 0, 0], news=[], links=[]), "brief: wanted a whole number"),
        (message(Kind.PING, seq=1, brief=BRIEF[:3], news=[], links=[]), "wanted [digest, quiet_ms, table, free]"),
        (message(Kind.PING, seq=1, brief=BRIEF, news=[FROM] * 9, links=[]), "news: wanted a list of at most"),
        (message(Kind.PING, seq=1, brief=BRIEF, news=[], links=[["a", "b", 1, 0]]), "wanted true or false, found 0"),
        (table(parts=513), "parts: wanted a whole number from 1 to 512"),
        (table(parts=0), "parts: wanted a whole number from 1 to 512"),
        (table(part=512), "part: wanted a whole number from 0 to 511"),
        (table(endpoints={}), "list of at most 10"),
        (table(endpoints=[ENTRY] * 11), "list of at most 10"),
        (table(endpoints=[ENTRY[:3]]), "wanted [address, mac, stamp, label]"),
        (table(endpoints=[[*ENTRY[:2], STAMP_MAX + 1, ""]]), "whole number"),
        (table(endpoints=[[*ENTRY[:3], "x" * 41]]), "at most 40 bytes"),
        (table(endpoints=[[ENTRY[0], "0A:58:0a:20:00:01", 7, ""]]), "lower-case hex"),
        (table(endpoints=[[ENTRY[0], "0a-58-0a-20-00-01", 7, ""]]), "lower-case hex"),
        (table(endpoints=[[ENTRY[0], 7, 7, ""]]), "lower-case hex"),
        (table(endpoints=[[ENTRY[0], "01:58:0a:20:00:01", 7, ""]]), "unicast"),
        (table(endpoints=[[ENTRY[0], "00:00:00:00:00:00", 7, ""]]), "unicast"),
        (ring(segments=[PART] * 17), "list of at most 16"),
        (ring(segments=[[20, 10, 1, UID]]), "must not be behind its last"),
        (ring(segments=[[0, 1 << 32, 1, UID]]), "from 0 to 4294967295"),
        (ring(segments=[[0, 1, 1, "me"]]), "16 hex digits"),
        (message(Kind.REFUSE, code="x" * 21, reason="", uid=""), "at most 20 bytes"),
        (message(Kind.REFUSE, code="", reason="x" * 401, uid=""), "at most 400 bytes"),
        (message(Kind.REFUSE, code="", reason="", uid="me"), "16 hex digits"),
        (sync(pods=None), "pods: wanted true or false"),
        (sync(wanted=["a"] * 4097), "list of at most 4096"),
        (sync(have=[["a", 1]]), "wanted [name, life, version]"),
        (sync(tables=[["a", 1, 1, [ENTRY] * 4097]]), "list of at most 4096"),
        (sync(state=STATE[:4]), "wanted [ring, epoch, seats, left, segments, origins]"),
        (sync(state=["x" * 17, *STATE[1:]]), "at most 16 bytes"),
        (sync(state=["", 0, [SEAT[:2]], [], []]), "wanted [uid, name, address]"),
        (promise(promised=None), "promised: wanted [number, uid]"),
        (promise(promised=[1, ""]), "16 hex digits"),
        (promise(accepted=[]), "accepted: wanted [number, uid]"),
        (promise(value=[[], []]), "wanted [seats, left, segments, origins]"),
        (message(Kind.ASK, within="x" * 19, exact=None, state=STATE), "at most 18 bytes"),
        (message(Kind.ASK, within="", exact="", state=STATE), "exact: wanted an IPv4 address"),
        (message(Kind.GRANT, segments=None, free=0, reason=""), "segments: wanted a list"),
    ],
)
def test_what_is_no_message_is_refused_with_the_rule_it_breaks(data: bytes, sentence: str) -> None:
    with pytest.raises(WireError) as raised:
        decode(data, KEYS)
    assert sentence in raised.value.message


def test_what_is_left_of_a_rule_breaking_message_is_right() -> None:
    """The bodies that the table above starts from are messages."""
    assert isinstance(decode(table(), KEYS), wire.Received)
    assert isinstance(decode(ring(), KEYS), wire.Received)
    assert decode(sync(), KEYS) == wire.Received(NODE, kinds.Sync((), (), (), (), (), EMPTY_STATE, pods=False))
    assert decode(promise(), KEYS) == wire.Received(
        NODE, kinds.Promise(1, True, values.Ballot(1, UID), None, None, "", EMPTY_STATE)
    )


def test_fields_that_nobody_knows_are_ignored() -> None:
    assert decode(message(Kind.SEEN, version=3, color="red"), KEYS) == wire.Received(NODE, kinds.Seen(3))


# --- what was added later ------------------------------------------------------------------------------------------------
def test_what_was_never_recovered_is_said_as_before_and_is_understood_as_before() -> None:
    seat = values.Seat("a" * 16, "node1", IPv4Address("192.168.56.11"))
    plain = values.RingState("b" * 16, 3, (seat,), (), ())
    assert len(fields.STATE.dump(plain)) == 5, "an agent that knows of no recovery reads it"
    assert fields.STATE.load(fields.STATE.dump(plain)) == plain
    recovered = replace(plain, origins=(values.Origin("c" * 16, 2, (seat,)),))
    assert fields.STATE.load(json.loads(json.dumps(fields.STATE.dump(recovered)))) == recovered
    value = values.Value((seat,), (), (), recovered.origins)
    assert fields.VALUE.load(fields.VALUE.dump(value)) == value
    with pytest.raises(WireError, match="at most 16"):
        fields.STATE.load([*fields.STATE.dump(plain), [["c" * 16, 2, []]] * 17])


def test_news_of_ranges_say_of_which_ring_and_are_understood_without() -> None:
    segment = Segment(1, 2, 3, "a" * 16)
    with_ring = decode(encode(kinds.RingNews((segment,), "b" * 16), NODE, KEYS), KEYS)
    assert isinstance(with_ring, wire.Received)
    assert with_ring.message == kinds.RingNews((segment,), "b" * 16)
