"""The fields of every value and every message, in order, each with its bounds: the one table of what may be said.

A new field or message is a row here and a class in values.py or kinds.py. Lists that travel in datagrams are so short
that the longest message fits one; what travels on TCP is bounded by what a cluster can have.
"""

from typing import Any, Final

from plugin.core.messages.codec import (
    ADDRESS,
    COUNTER,
    FLAG,
    LABEL,
    MAC,
    NAME,
    OWNER,
    SENTENCE,
    UID,
    UID_DIGITS,
    Codec,
    WireError,
    counter,
    listing,
    optional,
    row,
    text,
)
from plugin.core.messages.kinds import (
    Accept,
    Accepted,
    Ack,
    Ask,
    Grant,
    Hello,
    Kind,
    Ping,
    PingFor,
    Prepare,
    Promise,
    Pull,
    Refuse,
    RingNews,
    Seen,
    Step,
    Sync,
    TablePart,
)
from plugin.core.messages.values import (
    ENDPOINTS_PER_PEER_MAX,
    MEMBERS_MAX,
    ORIGINS_MAX,
    STAMP_MAX,
    Ballot,
    Brief,
    Endpoint,
    Have,
    LinkNews,
    Member,
    MemberState,
    Origin,
    RingState,
    Seat,
    Segment,
    Table,
    Value,
)

ENDPOINTS_PER_DATAGRAM_MAX: Final = 10
"""Ten entries with the longest labels, addresses and stamps stay below DATAGRAM_BYTES_MAX (tests/property)."""

STEP_MAX: Final = 6
NEWS_PER_DATAGRAM_MAX: Final = 5
LINKS_PER_DATAGRAM_MAX: Final = 2
SEGMENTS_PER_DATAGRAM_MAX: Final = 16
PARTS_MAX: Final = 512
_SEGMENTS_MAX: Final = 16384

# ---- values, each a list of its fields
ENDPOINT: Final = row(
    Endpoint,
    {"address": ADDRESS, "mac": MAC, "stamp": counter(highest=STAMP_MAX), "label": LABEL},
)
_NUMBER: Final = counter(highest=0xFFFFFFFF)


def _load_segment(first: int, last: int, version: int, owner: str) -> Segment:
    if first > last:
        raise WireError("a segment's first address must not be behind its last")
    return Segment(first, last, version, owner)


SEGMENT: Final = row(
    _load_segment, {"first": _NUMBER, "last": _NUMBER, "version": COUNTER, "owner": OWNER}, recurs=True
)
_STATE: Final = counter(highest=max(MemberState))
MEMBER: Final = row(
    Member,
    {
        "name": NAME,
        "uid": UID,
        "address": ADDRESS,
        "life": COUNTER,
        "incarnation": COUNTER,
        "state": Codec(int, lambda value: MemberState(_STATE.load(value))),
    },
    recurs=True,
)
_LINK_NEWS: Final = row(LinkNews, {"origin": NAME, "target": NAME, "stamp": COUNTER, "broken": FLAG})
_BRIEF: Final = row(
    Brief,
    {"digest": counter(highest=(1 << 64) - 1), "quiet_ms": COUNTER, "table": COUNTER, "free": COUNTER},
)
_NEWS: Final = listing(MEMBER, NEWS_PER_DATAGRAM_MAX)
_LINKS: Final = listing(_LINK_NEWS, LINKS_PER_DATAGRAM_MAX)
_SOME_ENDPOINTS: Final = listing(ENDPOINT, ENDPOINTS_PER_DATAGRAM_MAX)
_HAVE: Final = row(Have, {"name": NAME, "life": COUNTER, "version": COUNTER})
_TABLE: Final = row(
    Table,
    {"name": NAME, "life": COUNTER, "version": COUNTER, "endpoints": listing(ENDPOINT, ENDPOINTS_PER_PEER_MAX)},
)
_SEATS: Final = listing(row(Seat, {"uid": UID, "name": NAME, "address": ADDRESS}, recurs=True), MEMBERS_MAX)
UIDS: Final = listing(UID, 2 * MEMBERS_MAX)
_SEGMENTS: Final = listing(SEGMENT, _SEGMENTS_MAX)
_RING: Final = text(UID_DIGITS)
_ORIGINS: Final = listing(row(Origin, {"ring": _RING, "epoch": COUNTER, "lost": _SEATS}), ORIGINS_MAX)
STATE: Final = row(
    RingState,
    {"ring": _RING, "epoch": COUNTER, "seats": _SEATS, "left": UIDS, "segments": _SEGMENTS},
    late=("origins", _ORIGINS, ()),
)
BALLOT: Final = row(Ballot, {"number": COUNTER, "uid": UID})
VALUE: Final = row(Value, {"seats": _SEATS, "left": UIDS, "segments": _SEGMENTS}, late=("origins", _ORIGINS, ()))
_PARTS: Final = counter(lowest=1, highest=PARTS_MAX)

# ---- messages, each an object of its fields
FIELDS: Final[dict[Kind, tuple[type[Any], dict[str, Codec[Any]]]]] = {
    Kind.PING: (Ping, {"seq": COUNTER, "brief": _BRIEF, "news": _NEWS, "links": _LINKS}),
    Kind.ACK: (Ack, {"seq": COUNTER, "about": text(63), "brief": _BRIEF, "news": _NEWS, "links": _LINKS}),
    Kind.PING_FOR: (PingFor, {"seq": COUNTER, "name": NAME}),
    Kind.STEP: (
        Step,
        {
            "base": COUNTER,
            "version": COUNTER,
            "endpoints": listing(ENDPOINT, STEP_MAX),
            "gone": listing(ADDRESS, STEP_MAX),
        },
    ),
    Kind.TABLE: (
        TablePart,
        {"version": COUNTER, "part": counter(highest=PARTS_MAX - 1), "parts": _PARTS, "endpoints": _SOME_ENDPOINTS},
    ),
    Kind.PULL: (Pull, {}),
    Kind.SEEN: (Seen, {"version": COUNTER}),
    Kind.RING: (RingNews, {"segments": listing(SEGMENT, SEGMENTS_PER_DATAGRAM_MAX), "ring": optional(_RING)}),
    Kind.REFUSE: (Refuse, {"code": text(20), "reason": SENTENCE, "uid": OWNER}),
    Kind.HELLO: (Hello, {}),
    Kind.SYNC: (
        Sync,
        {
            "members": listing(MEMBER, MEMBERS_MAX),
            "links": listing(_LINK_NEWS, MEMBERS_MAX),
            "have": listing(_HAVE, MEMBERS_MAX),
            "tables": listing(_TABLE, MEMBERS_MAX),
            "wanted": listing(NAME, MEMBERS_MAX),
            "state": STATE,
            "pods": FLAG,
        },
    ),
    Kind.PREPARE: (Prepare, {"epoch": COUNTER, "ballot": BALLOT, "removing": UIDS, "state": STATE}),
    Kind.PROMISE: (
        Promise,
        {
            "epoch": COUNTER,
            "granted": FLAG,
            "promised": BALLOT,
            "accepted": optional(BALLOT),
            "value": optional(VALUE),
            "reason": SENTENCE,
            "state": STATE,
        },
    ),
    Kind.ACCEPT: (Accept, {"epoch": COUNTER, "ballot": BALLOT, "value": VALUE}),
    Kind.ACCEPTED: (Accepted, {"epoch": COUNTER, "granted": FLAG, "promised": BALLOT, "state": STATE}),
    Kind.ASK: (Ask, {"within": text(18), "exact": optional(ADDRESS), "state": STATE}),
    Kind.GRANT: (Grant, {"segments": _SEGMENTS, "free": COUNTER, "reason": SENTENCE}),
}
