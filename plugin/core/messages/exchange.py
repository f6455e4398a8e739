"""Exchanges on TCP are sealed for one connection: who is called speaks first, and gives a challenge.

    called                                   caller
    GREETING: its life, a challenge    ->
                                       <-    length, request
    length, answer                     ->

The key of the request follows from the password, both lives and the challenge, which nobody has seen before; the key of
the answer from the same and the caller's number, which it uses once. So neither can be recorded and used again, and no
state is kept for a caller that has not proved that it knows the password: a challenge is forgotten with its connection.
"""

import struct
from typing import Final

from plugin.core.messages.codec import WireError
from plugin.core.messages.keys import Keys
from plugin.core.messages.kinds import Kind
from plugin.core.messages.wire import (
    HEADER,
    MAGIC,
    NUMBER_MAX,
    VERSION,
    Head,
    Opened,
    StrangerError,
    head_of,
    is_sealed,
    sealed,
)

GREETING: Final = struct.Struct(">2sBx8s8s")
CHALLENGE_BYTES: Final = 8


def greeting(own: bytes, challenge: bytes) -> bytes:
    """What is said first to who connects."""
    return GREETING.pack(MAGIC, VERSION, own, challenge)


class Calling:
    """One exchange, seen from the caller.

    Args:
        keys: What all members share.
        own: The life of this agent.
        number: Of this exchange; never used before in this life.
        said: What the called said first.

    Raises:
        WireError: That is no greeting.
    """

    def __init__(self, keys: Keys, own: bytes, number: int, said: bytes) -> None:
        if len(said) != GREETING.size:
            raise WireError(f"a greeting has {GREETING.size} bytes, found {len(said)}")
        magic, version, self._theirs, self._challenge = GREETING.unpack(said)
        if magic != MAGIC:
            raise WireError("it is no agent: it does not greet")
        if version != VERSION:
            raise WireError(f"it speaks another version of the protocol: wanted {VERSION}, found {version}")
        self._keys = keys
        self._own = own
        self._number = number & NUMBER_MAX

    def request(self, kind: Kind, body: bytes) -> bytes:
        """All bytes of the request."""
        head = Head(kind, self._keys.mark, self._keys.tag(self._theirs), self._own, self._number, b"")
        return sealed(head, body, _request_key(self._keys, self._own, self._theirs, self._challenge))

    def open(self, data: bytes) -> Opened:
        """The answer, if it is one to this very request.

        Raises:
            StrangerError: It is not.
            WireError: It is no message.
        """
        head = head_of(data)
        key = _answer_key(self._keys, self._theirs, self._own, self._challenge)
        wrong = _wrong(head, self._keys)
        if not wrong and (head.to != self._keys.tag(self._own) or not is_sealed(data, key)):
            wrong = "password"
        if not wrong and (head.number != self._number or head.sender != self._theirs):
            wrong = "replay"
        return _opened(head, data, wrong)


class Called:
    """One exchange, seen from the called.

    Args:
        keys: What all members share.
        own: The life of this agent.
        challenge: What the caller was greeted with.
    """

    def __init__(self, keys: Keys, own: bytes, challenge: bytes) -> None:
        self._keys = keys
        self._own = own
        self._challenge = challenge

    def open(self, data: bytes) -> Opened:
        """The request, if its caller knows the password.

        Raises:
            StrangerError: It does not.
            WireError: It is no message.
        """
        head = head_of(data)
        wrong = _wrong(head, self._keys)
        key = _request_key(self._keys, head.sender, self._own, self._challenge)
        if not wrong and (head.to != self._keys.tag(self._own) or not is_sealed(data, key)):
            wrong = "password"
        return _opened(head, data, wrong)

    def answer(self, kind: Kind, body: bytes, to: Head) -> bytes:
        """All bytes of the answer to the request that had this header."""
        head = Head(kind, self._keys.mark, self._keys.tag(to.sender), self._own, to.number, b"")
        return sealed(head, body, _answer_key(self._keys, self._own, to.sender, self._challenge))


def _request_key(keys: Keys, caller: bytes, called: bytes, challenge: bytes) -> bytes:
    return keys.key(b"weave request", caller, called, challenge)


def _answer_key(keys: Keys, called: bytes, caller: bytes, challenge: bytes) -> bytes:
    return keys.key(b"weave answer", called, caller, challenge)


def _wrong(head: Head, keys: Keys) -> str:
    return "" if head.mark == keys.mark else "cluster"


def _opened(head: Head, data: bytes, wrong: str) -> Opened:
    if wrong and head.kind is not Kind.REFUSE:
        texts = {"cluster": "another cluster", "password": "another password", "replay": "the answer to something else"}
        raise StrangerError(texts[wrong], wrong, head)
    return Opened(head, data[HEADER.size :], sealed=not wrong)
