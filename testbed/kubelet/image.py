"""The image that the containers of a lab run: one static busybox, packed as an image archive without any network.

The archive has the layout of `docker save` (image specification v1.2), which `ctr images import`, `podman load` and
`docker load` all take. Pure: bytes in, bytes out, and the same bytes every time.
"""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable, Mapping
from typing import Any, Final

IMAGE: Final = "localhost/weavelab/busybox:1"
"""A name that no registry is ever asked for."""

_BUSYBOX: Final = "bin/busybox"
_DIRECTORIES: Final = ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var", "www")
_FILES: Final[Mapping[str, bytes]] = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": b"root:x:0:\n",
    "etc/nsswitch.conf": b"hosts: files\n",  # without it, the C library asks a name server first
    "www/index.html": b"weavelab\n",
}
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}

# Ends at once when it is asked to, which a program with the pid 1 does only if it says so; reaps what is left to it.
COMMAND: Final = ("/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done")


def build_image(busybox: bytes, applets: Iterable[str], *, machine: str = "") -> bytes:
    """The archive.

    Args:
        busybox: The program; linked statically, since there is nothing beside it.
        applets: The names that it answers to; each becomes a link in /bin.
        machine: The processor it is for, as `uname -m` has it; this one's when empty.
    """
    layer = _layer(busybox, applets)
    config = {
        "architecture": _ARCHITECTURES.get(machine or platform.machine(), machine or platform.machine()),
        "os": "linux",
        "config": {"Env": ["PATH=/bin", "HOME=/root"], "Cmd": list(COMMAND), "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created_by": "weavelab"}],
    }
    config_bytes = _json(config)
    config_name = f"{hashlib.sha256(config_bytes).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    return _tar({config_name: config_bytes, "layer.tar": layer, "manifest.json": _json(manifest)})


def _layer(busybox: bytes, applets: Iterable[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for directory in _DIRECTORIES:
            entry = tarfile.TarInfo(directory)
            entry.type = tarfile.DIRTYPE
            entry.mode = 0o1777 if directory == "tmp" else 0o755
            tar.addfile(entry)
        _add_file(tar, _BUSYBOX, busybox, mode=0o755)
        for name in sorted({*applets} - {"busybox"}):
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type = tarfile.SYMTYPE
            entry.linkname = f"/{_BUSYBOX}"
            entry.mode = 0o777
            tar.addfile(entry)
        for name, content in _FILES.items():
            _add_file(tar, name, content)
    return buffer.getvalue()


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            _add_file(tar, name, content)
    return buffer.getvalue()


def _add_file(tar: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)  # owner root, time 0: the same bytes whoever packs it, whenever
    entry.mode = mode
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
