"""Another machine, reached over SSH: an emulated node running sshd, a Vagrant VM, a real machine.

The only importer of paramiko, and only when a connection is made: it costs 0.3 s and is an optional extra.
"""

import contextlib
import errno
import re
import shlex
import stat
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self

from plugin.core.errors import InputError, MissingError, said_by
from testbed.deploy.machine import NOTHING, Found, Kind, Said, digest_of, temporary
from testbed.deploy.transport import DeployError

_TARGET: Final = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?P<host>[^@:\s]+)(?::(?P<port>\d{1,5}))?")
_SYNC_S: Final = 60.0


class SshClient(Protocol):
    """What is used of `paramiko.SSHClient`; tests give their own."""

    def exec_command(self, command: str, timeout: float | None = None) -> tuple[Any, Any, Any]:
        """Run a command line; returns stdin, stdout, stderr."""

    def open_sftp(self) -> Any:
        """A file transfer channel."""

    def close(self) -> None:
        """End the connection."""


def parse_target(text: str) -> tuple[str, str, int]:
    """User, host and port of `[USER@]HOST[:PORT]`; root and 22 when they are left out.

    Raises:
        InputError: It is none.
    """
    found = _TARGET.fullmatch(text)
    if found is None or text.startswith("-"):
        raise InputError(
            f"--ssh: wanted USER@HOST, found {text!r}", hint="root@192.168.1.20, or root@192.168.1.20:2222"
        )
    return found["user"] or "root", found["host"], int(found["port"] or 22)


def connect(target: str, *, timeout_s: float = 10.0) -> "SshMachine":
    """Connect with the keys of the person's agent or ~/.ssh; the host must be known.

    Args:
        target: `[USER@]HOST[:PORT]`.
        timeout_s: How long the connection may take.

    Raises:
        InputError: The target is none.
        MissingError: paramiko is not installed; or there is no connection, the host is unknown, no key fits.
    """
    user, host, port = parse_target(target)
    try:
        import paramiko  # noqa: PLC0415 - see above
    except ImportError as error:
        raise MissingError(
            "deployment over SSH needs the package paramiko, which is not installed",
            hint=".venv/bin/pip install 'weavelab[ssh]'",
        ) from error
    client = paramiko.SSHClient()
    client.load_system_host_keys()
    try:
        client.connect(host, port=port, username=user, timeout=timeout_s)
    except (OSError, paramiko.SSHException) as error:
        client.close()
        raise MissingError(
            f"wanted an SSH connection to {user}@{host}:{port}, found: {said_by(error)}",
            hint=f"try `ssh -p {port} {user}@{host} true`: it must work without a question",
        ) from error
    return SshMachine(host, client, lost=(EOFError, paramiko.SSHException))


def _why(error: Exception) -> str:
    """In words; paramiko's error for several addresses has no number, and Python shows such a one as [Errno None]."""
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


class SshMachine:
    """A host at the other end of an SSH connection, which it owns. See `machine.Machine` for the methods.

    Args:
        name: What messages call it.
        client: The connection.
        lost: The errors that tell of its end.
    """

    live = True

    def __init__(self, name: str, client: SshClient, *, lost: tuple[type[Exception], ...] = (EOFError,)) -> None:
        self.name = name
        self._client = client
        self._lost_errors = lost
        self._sftp: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def observe(self, path: str) -> Found:
        """See `Machine.observe`."""
        with self._speaking("examine", path):
            try:
                mode = self._files.lstat(path).st_mode
            except FileNotFoundError:
                return NOTHING
            if stat.S_ISDIR(mode):
                return Found(Kind.FOLDER)
            if not stat.S_ISREG(mode):
                return Found(Kind.OTHER)
            with self._files.open(path, "rb") as file:
                return Found(Kind.FILE, digest_of(file.read()), stat.S_IMODE(mode))

    def read(self, path: str, *, bytes_max: int = -1) -> bytes | None:
        """See `Machine.read`."""
        with self._speaking("read", path):
            try:
                with self._files.open(path, "rb") as file:
                    content: bytes = file.read(bytes_max)
                    return content
            except FileNotFoundError:
                return None

    def target(self, path: str) -> str:
        """See `Machine.target`."""
        with self._speaking("follow", path):
            return str(self._files.normalize(path))

    def listing(self, folder: str) -> list[str]:
        """See `Machine.listing`."""
        with self._speaking("list", folder):
            try:
                return sorted(self._files.listdir(folder))
            except FileNotFoundError:
                return []

    def make_folder(self, path: str) -> None:
        """See `Machine.make_folder`."""
        with self._speaking("make the folder", path):
            self._files.mkdir(path, 0o755)

    def write(self, path: str, content: bytes, mode: int) -> None:
        """See `Machine.write`."""
        new = temporary(path)
        with self._speaking("write", path):
            try:
                with contextlib.suppress(FileNotFoundError):
                    self._files.remove(new)
                with self._files.open(new, "wbx") as file:
                    self._files.chmod(new, 0o600)  # before there is a password in it
                    file.write(content)
                self._files.chmod(new, mode)
                self._files.posix_rename(new, path)
            except OSError:
                with contextlib.suppress(OSError):
                    self._files.remove(new)
                raise

    def move(self, path: str, to: str) -> None:
        """See `Machine.move`."""
        with self._speaking("move", path):
            self._files.posix_rename(path, to)

    def remove(self, path: str) -> None:
        """See `Machine.remove`."""
        with self._speaking("remove", path), contextlib.suppress(FileNotFoundError):
            self._files.remove(path)

    def remove_folder(self, path: str) -> bool:
        """See `Machine.remove_folder`. SFTP has one error for all: a folder that stays is one that is not empty."""
        with self._speaking("remove the folder", path):
            try:
                self._files.rmdir(path)
            except FileNotFoundError:
                return True
            except OSError:
                return False
            return True

    def settle(self) -> None:
        """See `Machine.settle`: SFTP has no fsync that every server knows."""
        self.run(["sync"], timeout_s=_SYNC_S)

    def run(self, argv: Sequence[str], *, timeout_s: float) -> Said:
        """See `Machine.run`."""
        try:
            _, stdout, _ = self._client.exec_command(f"{shlex.join(argv)} 2>&1 </dev/null", timeout=timeout_s)
            output = stdout.read().decode(errors="replace").strip()
            return Said(stdout.channel.recv_exit_status(), output)
        except TimeoutError:
            return Said(124, f"no end within {timeout_s:g} s")
        except self._lost_errors as error:
            raise self._lost(error) from error

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    @property
    def _files(self) -> Any:
        if self._sftp is None:
            self._sftp = self._client.open_sftp()
        return self._sftp

    @contextlib.contextmanager
    def _speaking(self, doing: str, path: str) -> Iterator[None]:
        """Turn what the other side says into our error."""
        try:
            yield
        except self._lost_errors as error:
            raise self._lost(error) from error
        except OSError as error:
            hint = (
                "log in as root: --ssh root@HOST" if error.errno == errno.EACCES else "df, mount: disk and file system"
            )
            raise MissingError(
                f"wanted to {doing} {path} on {self.name}, found: {said_by(error, path=False)}", hint=hint
            ) from error

    def _lost(self, error: Exception) -> DeployError:
        return DeployError(
            f"the SSH connection to {self.name} ended{f': {error}' if str(error) else ''}",
            hint="give the same command again: it goes on from there",
        )
