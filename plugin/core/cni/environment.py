"""The environment of a CNI call: which variables a verb needs, what they may hold, and the pairs of CNI_ARGS."""

import re
from collections.abc import Mapping
from typing import Final

from plugin.core.cni.types import INVALID_ENVIRONMENT, KNOWN_ARGS, NEEDS_ATTACHMENT, VERBS, CniError

# skel: pkg/utils/utils.go. The first character is a letter or digit, so no name can be an option or a hidden file.
NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*\Z", re.ASCII)
"""What a container id or the name of a network may be."""

_IFNAME_BYTES_MAX: Final = 15  # IFNAMSIZ less the final NUL


def check_environment(command: str, environment: Mapping[str, str]) -> None:
    """The same table as the executable's, once more at our own border: any root process can write to the socket.

    Raises:
        CniError: A variable is missing or holds what it must not (code 4).
    """
    if command not in VERBS:
        raise CniError(INVALID_ENVIRONMENT, f"unknown CNI_COMMAND: {command}")
    if command not in NEEDS_ATTACHMENT:
        return
    container_id, ifname = environment["CNI_CONTAINERID"], environment["CNI_IFNAME"]
    missing = [name for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME") if not environment[name]]
    if command == "DEL" and "CNI_NETNS" in missing:
        missing.remove("CNI_NETNS")
    if container_id and not NAME.match(container_id):
        raise CniError(INVALID_ENVIRONMENT, "invalid characters in containerID", container_id)
    if ifname and (complaint := ifname_complaint(ifname)):
        raise CniError(INVALID_ENVIRONMENT, complaint, ifname)
    if missing:
        raise CniError(INVALID_ENVIRONMENT, f"required env variables [{','.join(missing)}] missing")


def ifname_complaint(ifname: str) -> str:
    """What is wrong with an interface name by the kernel's rules (dev_valid_name in net/core/dev.c), or the empty
    string.
    """
    if not ifname:
        return "interface name is empty"
    if len(ifname.encode("utf-8", "surrogateescape")) > _IFNAME_BYTES_MAX:
        return f"interface name is too long: at most {_IFNAME_BYTES_MAX} bytes"
    if ifname in {".", ".."}:
        return "interface name is . or .."
    if any(character in "/:" or character.isspace() for character in ifname):
        return "interface name contains / or : or whitespace characters"
    if "%" in ifname:
        return "interface name contains %, which the kernel takes for a pattern"
    return ""


def parse_args(text: str) -> dict[str, str]:
    """CNI_ARGS by the rules of libcni's types/args.go: pairs parted by ";", exactly one "=" each, unknown keys only
    with IgnoreUnknown.

    Raises:
        CniError: They break a rule (code 4).
    """
    if not text:
        return {}
    args: dict[str, str] = {}
    for pair in text.split(";"):
        name, _, value = pair.partition("=")
        if pair.count("=") != 1:
            raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS: invalid pair {pair!r}", "wanted NAME=VALUE;NAME=VALUE")
        args[name] = value
    ignore = args.pop("IgnoreUnknown", "false").lower()
    if ignore not in {"1", "true", "0", "false"}:
        raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS: IgnoreUnknown must be true, false, 1 or 0, found {ignore!r}")
    unknown = [name for name in args if name not in KNOWN_ARGS]
    if unknown and ignore in {"0", "false"}:
        raise CniError(
            INVALID_ENVIRONMENT,
            f"CNI_ARGS: unknown args {', '.join(unknown)}",
            "add IgnoreUnknown=1, as container runtimes do",
        )
    return args


def parse_args_leniently(text: str) -> dict[str, str]:
    """The same for verbs that must not fail over it: what is no pair is left out."""
    pairs = (pair.split("=") for pair in text.split(";"))
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
