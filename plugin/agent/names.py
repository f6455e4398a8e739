"""What peers are called: by their node's name, and in Weave's layouts by their bridge's MAC."""

import hashlib
from functools import lru_cache


@lru_cache(maxsize=4096)
def bridge_mac(cluster: str, name: str) -> str:
    """The bridge's MAC: made from cluster and node name, so it is the same after every start and on no other node.

    Locally administered unicast (the two low bits of the first byte are 1 and 0), as Weave makes its peer names; like
    there it is the name under which status shows a peer.
    """
    digest = bytearray(hashlib.sha256(f"{cluster}/{name}".encode()).digest()[:6])
    digest[0] = digest[0] & 0xFC | 0x02
    return digest.hex(":")


def peer_name(cluster: str, name: str) -> str:
    """`mac(nickname)`."""
    return f"{bridge_mac(cluster, name)}({name})"
