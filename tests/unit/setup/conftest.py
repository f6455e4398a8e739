"""A workshop for the set-up scripts: a copy of them, and a PATH on which every tool that acts is a fake that records its calls."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.project import ROOT

# What the scripts may really use: tools that look and compute, none that changes a machine.
HARMLESS = (
    *(
        "awk",
        "bash",
        "basename",
        "cat",
        "chmod",
        "cp",
        "dirname",
        "env",
        "flock",
        "grep",
        "head",
        "install",
        "ln",
        "ls",
    ),
    *("make", "mkdir", "mktemp", "mv", "paste", "printf", "readlink", "rm", "rmdir", "sed", "seq", "sh", "sha256sum"),
    *("sleep", "stat", "tail", "tar", "tee", "touch", "true", "uname"),
)

# An interpreter as far as the set-up asks one. It becomes the virtual environment's own when told to make one.
FAKE_PYTHON = r"""
case "$1 $2" in
    -c*ensurepip*) echo "${FAKE_PYTHON_ANSWER:-ok}" ;;
    -c*"import pip"*) exit 0 ;;
    -c*) echo 3.12.1 ;;
    "-m venv") for folder; do :; done; mkdir -p "$folder/bin"; cp "$0" "$folder/bin/python" ;;
    "-m pip")
        echo "$FAKE_PIP_TEXT"
        [ "${FAKE_PIP_CODE:-0}" = 0 ] || exit "$FAKE_PIP_CODE"
        printf '%s\n' '#!/bin/sh' 'printf "# made by \140weavelab completion %s\140\n" "$2"' >"${0%/*}/weavelab"
        chmod 755 "${0%/*}/weavelab" ;;
esac
"""

# Debian's package tools over a text file of installed names.
FAKE_DPKG_QUERY = r"""while read -r name; do echo "$name installed"; done <"$INSTALLED" """
FAKE_APT_GET = r"""
[ -z "$FAKE_APT_FAILS" ] || { echo "E: Unable to locate package"; exit 100; }
case " $* " in *" install "*)
    for word; do case $word in -* | install | DPkg*) ;; *) echo "$word" >>"$INSTALLED" ;; esac; done ;;
esac
"""
# The namespace in which the kernel is probed: says what FAKE_KERNEL lacks.
FAKE_UNSHARE = r"""
[ "$FAKE_KERNEL" != forbidden ] || { echo "unshare: unshare failed: Operation not permitted" >&2; exit 1; }
for word in $FAKE_KERNEL; do echo "$word"; done
echo done
"""

RUN_PACKAGES = ("iproute2", "iputils-ping", "iperf3", "tcpdump", "nftables", "procps", "util-linux")


class Workshop:
    """A project folder with the scripts, a PATH of fakes and the record of what was called."""

    def __init__(self, folder: Path):
        self.root = folder / "project"
        self.bin = folder / "bin"
        self.venv = folder / "venv"
        self.calls_file = folder / "calls"
        self.installed = folder / "installed"
        self.destination = folder / "destination"
        self.bin.mkdir()
        shutil.copytree(ROOT / "testbed" / "setup", self.root / "testbed" / "setup")
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root / name)
        for name in HARMLESS:
            (self.bin / name).symlink_to(shutil.which(name) or pytest.fail(f"this machine has no {name}"))
        self.env = {
            "PATH": str(self.bin),
            "HOME": str(folder),
            "CALLS": str(self.calls_file),
            "INSTALLED": str(self.installed),
            "WEAVELAB_VENV": str(self.venv),
            "DESTDIR": str(self.destination),
        }
        self.fake("id", 'case "$*" in -un) echo student ;; *) echo "${FAKE_UID:-0}" ;; esac')

    def fake(self, name: str, script: str = "") -> None:
        """Put an executable on the PATH that records its arguments, then runs `script` in sh."""
        path = Path(name) if "/" in name else self.bin / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # it may be a link to the machine's own tool: never write through that
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "${{0##*/}} $*" >>"$CALLS"\n{script}\n', encoding="utf-8")
        path.chmod(0o755)

    def fake_debian(self, *installed: str) -> None:
        """Make a Debian machine with a Python, a kernel that can do everything and these packages."""
        self.installed.write_text("".join(f"{name}\n" for name in installed), encoding="utf-8")
        self.fake("dpkg-query", FAKE_DPKG_QUERY)
        self.fake("apt-get", FAKE_APT_GET)
        self.fake("python3", FAKE_PYTHON)
        self.fake("unshare", FAKE_UNSHARE)
        self.fake("modprobe")
        self.fake("ruby")

    def run(self, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project's folder, with nobody at the keyboard."""
        # A job in the background ignores SIGQUIT and hands that down: leave-make.sh would find another make than people do.
        env_command = shutil.which("env") or pytest.fail("this machine has no env")
        return subprocess.run(
            [env_command, "--default-signal=QUIT", str(self.bin / argv[0]), *argv[1:]],
            cwd=self.root,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def script(self, name: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run one of the set-up scripts."""
        return self.run("bash", f"testbed/setup/{name}", *arguments, **env)

    def calls(self, name: str = "") -> list[str]:
        """The recorded calls, those of one command when named."""
        if not self.calls_file.exists():
            return []
        lines = self.calls_file.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.startswith(name)]


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """An empty workshop: no package manager, no Python."""
    return Workshop(tmp_path)


@pytest.fixture
def debian(workshop: Workshop) -> Workshop:
    """A Debian machine that has all packages and no virtual environment yet."""
    workshop.fake_debian(*RUN_PACKAGES)
    return workshop
