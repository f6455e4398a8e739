"""The program nft: one transaction in its language, carried out whole or not at all. No pod ever waits for it."""

import subprocess
from typing import Final

from plugin.core.errors import MissingError

_TIMEOUT_S: Final = 20.0


def run_nft(transaction: str) -> None:
    """Carry out a transaction in the calling thread's network namespace.

    Raises:
        MissingError: `nft` is absent, or the kernel refuses.
    """
    try:
        done = subprocess.run(
            ["nft", "-f", "-"],
            input=transaction, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise MissingError("the program nft was not found", hint="install the package nftables") from None
    except subprocess.TimeoutExpired:
        raise MissingError(f"nft did not finish within {_TIMEOUT_S:g} s") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise MissingError(
            f"the kernel refused the node's rules: {said[0] if said else f'nft ended with {done.returncode}'}",
            hint="nf_tables with NAT and for bridges is needed: modprobe nft_chain_nat nft_masq nft_fib_ipv4; "
            "CONFIG_NF_TABLES_BRIDGE",
        )
