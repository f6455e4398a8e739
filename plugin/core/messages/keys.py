"""What the agents of a cluster have in common, and every key that is made of it (docs/adr/0030-seals-and-sessions.md).

A key has one purpose and is bound to whom it is for: what was sealed with it means nothing anywhere else. Nothing is
decrypted or encrypted here; a cipher's key would be one more purpose.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b, scrypt
from ipaddress import IPv4Network
from typing import Final

_MARK_BYTES: Final = 4
TAG_BYTES: Final = 4
SEAL_BYTES: Final = 16
_KEY_BYTES: Final = 32
_RANDOM_PASSWORD: Final = re.compile(r"[0-9a-f]{64}")
"""32 bytes in hex are a key already: nobody finds them by guessing, and agents that start a hundred at once need not
spend time on making that slower. Wireless networks tell the two apart in the same way (WPA: a PSK or a passphrase)."""

_SCRYPT: Final = {"n": 1 << 14, "r": 8, "p": 1, "maxmem": 1 << 26}
"""What people choose can be guessed by whoever has recorded one message: 16 MiB and some 50 ms a guess (RFC 7914)."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What a cluster has in common: agents with other values refuse each other, and say which value differs.

    Attributes:
        cluster: The cluster's name.
        network: The pod range.
        overlay: Whatever else would part agents silently: VNI and port of the overlay, say.
        password: Empty for none; 64 hex digits are taken for 32 random bytes, anything else is stretched.
        mark: In every header, for everybody to read: a hash of all but the password.
    """

    cluster: str
    network: IPv4Network
    overlay: str = ""
    password: str = field(default="", repr=False)
    mark: bytes = field(init=False)
    _root: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        words = f"{self.cluster}\n{self.network}\n{self.overlay}".encode()
        object.__setattr__(self, "mark", blake2b(words, digest_size=_MARK_BYTES).digest())
        secret = _secret(self.password, self.cluster)
        object.__setattr__(self, "_root", blake2b(words, key=secret, person=b"weave root", digest_size=32).digest())

    def key(self, purpose: bytes, *bound_to: bytes) -> bytes:
        """A key for one purpose, of at most 16 bytes, between those that `bound_to` names (BLAKE2b keyed, RFC 7693)."""
        return blake2b(b"".join(bound_to), key=self._root, person=purpose, digest_size=_KEY_BYTES).digest()

    def tag(self, session: bytes) -> bytes:
        """What a datagram says at its very beginning to whom it is: only who knows the password can work it out."""
        return blake2b(session, key=self._root, person=b"weave tag", digest_size=TAG_BYTES).digest()


def seal(key: bytes, *covered: bytes | memoryview) -> bytes:
    """What only who has the key can make, and for nothing but exactly this."""
    sealing = blake2b(key=key, digest_size=SEAL_BYTES)
    for part in covered:
        sealing.update(part)
    return sealing.digest()


@lru_cache(maxsize=16)
def _secret(password: str, cluster: str) -> bytes:
    if not password:
        return b""
    if _RANDOM_PASSWORD.fullmatch(password):
        return bytes.fromhex(password)
    # The salt keeps one list of guesses from serving for every cluster.
    return scrypt(password.encode(), salt=f"weave {cluster}".encode(), dklen=_KEY_BYTES, **_SCRYPT)
