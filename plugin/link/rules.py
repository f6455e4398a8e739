"""The firewall rules of a node: one nftables table of our own, replaced in one transaction, foreign rules untouched.

`nft` is started once when the agent starts, never per pod.
"""

import json
import subprocess
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

from plugin.core.errors import MissingError

TABLE: Final = "weave"
FAMILY: Final = "ip"
PLAIN: Final = "plain"
"""The set of pod addresses that are not masqueraded."""
_NFT_TIMEOUT_S: Final = 20.0


def masquerade_rules(pod_range: IPv4Network, bridge: str) -> dict[str, Any]:
    """The transaction, in nft's JSON (libnftables-json(5)).

    Traffic of pods that leaves the range gets the node's address; pod to pod never does, so a pod always sees who
    calls; nor do pods whose configuration says so (`keep_address`). `fully-random` keeps parallel DNS queries from
    colliding on a source port.
    """
    table = {"family": FAMILY, "name": TABLE}
    chain = {"family": FAMILY, "table": TABLE, "name": "postrouting"}
    source = {"payload": {"protocol": "ip", "field": "saddr"}}
    destination = {"payload": {"protocol": "ip", "field": "daddr"}}
    pods = {"prefix": {"addr": str(pod_range.network_address), "len": pod_range.prefixlen}}
    multicast = {"prefix": {"addr": "224.0.0.0", "len": 4}}

    def match(left: dict[str, Any], operation: str, right: object) -> dict[str, Any]:
        return {"match": {"op": operation, "left": left, "right": right}}

    masquerade = [
        match(source, "==", pods),
        match(source, "!=", f"@{PLAIN}"),
        match(destination, "!=", pods),
        match(destination, "!=", multicast),
        match({"meta": {"key": "oifname"}}, "!=", bridge),
        {"counter": None},
        {"masquerade": {"flags": "fully-random"}},
    ]
    return {
        "nftables": [
            {"add": {"table": table}},  # so that the delete of a first start has something to delete
            {"delete": {"table": table}},
            {"add": {"table": table}},
            {"add": {"set": {"family": FAMILY, "table": TABLE, "name": PLAIN, "type": "ipv4_addr"}}},
            {"add": {"chain": chain | {"type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}}},
            {"add": {"rule": {"family": FAMILY, "table": TABLE, "chain": "postrouting", "expr": masquerade}}},
        ]
    }


def ensure_masquerade(pod_range: IPv4Network, bridge: str) -> None:
    """Put our table in place, replacing an earlier one.

    Raises:
        MissingError: `nft` is absent, or the kernel refuses (no nf_tables, no NAT).
    """
    _nft(json.dumps(masquerade_rules(pod_range, bridge)))


def keep_address(addresses: Collection[IPv4Address], *, keep: bool) -> None:
    """Pods of these addresses leave the range as who they are (`keep`), or masqueraded again. Twice is harmless.

    One start of `nft`, but only for pods whose configuration asks for it.

    Raises:
        MissingError: `nft` is absent, or the kernel refuses.
    """
    element = {"family": FAMILY, "table": TABLE, "name": PLAIN, "elem": [str(address) for address in addresses]}
    commands: list[dict[str, Any]] = [{"add": {"element": element}}]
    if not keep:  # added first, so that the delete has something to delete
        commands.append({"delete": {"element": element}})
    if addresses:
        _nft(json.dumps({"nftables": commands}))


def remove_rules() -> None:
    """Remove our table; nothing happens when there is none.

    Raises:
        MissingError: `nft` is absent.
    """
    table = {"family": FAMILY, "name": TABLE}
    _nft(json.dumps({"nftables": [{"add": {"table": table}}, {"delete": {"table": table}}]}))


def _nft(transaction: str) -> None:
    try:
        done = subprocess.run(
            ["nft", "-j", "-f", "-"],
            input=transaction, capture_output=True, text=True, timeout=_NFT_TIMEOUT_S, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise MissingError("the program nft was not found", hint="install the package nftables") from None
    except subprocess.TimeoutExpired:
        raise MissingError(f"nft did not finish within {_NFT_TIMEOUT_S:g} s") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise MissingError(
            f"the kernel refused the masquerade rules: {said[0] if said else f'nft ended with {done.returncode}'}",
            hint="nf_tables with NAT is needed: modprobe nft_chain_nat nft_masq",
        )
