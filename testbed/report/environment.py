"""What a run ran on: versions and the machine, as a report shows them. Reads only; what cannot be read is left out."""

import importlib.metadata
import os
import platform
import re
import subprocess
from typing import Final

_TOOLS: Final = {"ping": ("ping", "-V"), "iperf3": ("iperf3", "--version"), "iproute2": ("ip", "-V")}
_VERSION: Final = re.compile(r"(iputils[ -]\S+|iproute2[-\w.]*|iperf \d\S*)")


def environment() -> dict[str, str]:
    """Names and values, in the order they are shown."""
    uname = os.uname()
    found = {
        "weavelab": _own_version(),
        "system": _system(),
        "kernel": f"{uname.release} ({uname.machine})",
        "CPUs": str(len(os.sched_getaffinity(0))),
        "Python": platform.python_version(),
    }
    found |= {name: version for name, argv in _TOOLS.items() if (version := _tool_version(argv))}
    return {name: value for name, value in found.items() if value}


def _own_version() -> str:
    try:
        return importlib.metadata.version("weavelab")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _tool_version(argv: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=5, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = _VERSION.search(done.stdout + done.stderr)
    return found[1].replace("iperf ", "").rstrip(",") if found else ""
