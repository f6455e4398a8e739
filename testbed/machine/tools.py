"""The programs that commands call: asked for before a lab is built, not in the middle of it."""

import shutil
from collections.abc import Iterable
from typing import Final

from plugin.core.errors import MissingError

PACKAGES: Final = {
    "bridge": "iproute2",
    "ip": "iproute2",
    "iperf3": "iperf3",
    "nft": "nftables",
    "ping": "iputils-ping",
}
"""Program to the Debian package that has it."""


def need_tools(names: Iterable[str]) -> None:
    """See that programs are on the PATH.

    Raises:
        MissingError: One is not.
    """
    missing = sorted(name for name in set(names) if shutil.which(name) is None)
    if missing:
        packages = sorted({PACKAGES[name] for name in missing})
        raise MissingError(
            f"wanted {', '.join(missing)} on the PATH, found no such program",
            hint=f"apt-get install {' '.join(packages)}, or `make setup`",
        )
