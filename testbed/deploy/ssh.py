"""Deploys onto a host that answers to SSH: an emulated node running sshd, a Vagrant VM, a real machine.

The only importer of paramiko, and only when a connection is made: it costs 0.3 s and is an optional extra.
"""

import contextlib
import shlex
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from plugin.core.errors import MissingError
from testbed.deploy.plan import DeployFile, Service
from testbed.deploy.transport import DeployError, is_ours, refusal


class SshClient(Protocol):
    """What is used of `paramiko.SSHClient`; tests give their own."""

    def exec_command(self, command: str, timeout: float | None = None) -> tuple[Any, Any, Any]:
        """Run a command line; returns stdin, stdout, stderr."""

    def open_sftp(self) -> Any:
        """A file transfer channel."""

    def close(self) -> None:
        """End the connection."""


def connect(host: str, *, user: str = "root", port: int = 22, timeout_s: float = 10.0) -> "SshTransport":
    """Connect with the keys of the person's agent or ~/.ssh; the host must be known.

    Raises:
        MissingError: paramiko is not installed.
        DeployError: No connection, an unknown host, or no key that fits.
    """
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
        raise DeployError(
            f"wanted an SSH connection to {user}@{host}:{port}, found: {error}",
            hint=f"try `ssh -p {port} {user}@{host} true`: it must work without a question",
        ) from error
    return SshTransport(host, client)


class SshTransport:
    """The way onto a host through an SSH connection, which it owns."""

    def __init__(self, node: str, client: SshClient, *, timeout_s: float = 30.0) -> None:
        self._node = node
        self._client = client
        self._timeout_s = timeout_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def node(self) -> str:
        """The host's name."""
        return self._node

    def install(self, files: Sequence[DeployFile], directories: Sequence[str]) -> None:
        """See `Transport.install`."""
        self._run(shlex.join(["mkdir", "-p", "--", *directories]))
        sftp = self._client.open_sftp()
        try:
            for file in files:
                self._write(sftp, file)
        except OSError as error:
            raise DeployError(f"wanted to write files on {self.node}, found: {error}") from error
        finally:
            sftp.close()

    def start(self, service: Service) -> int:
        """See `Transport.start`."""
        variables = [f"{name}={value}" for name, value in service.environment.items()]
        program = shlex.join(["env", "-i", *variables, *service.argv])
        output = self._run(f"setsid {program} </dev/null >>{shlex.quote(service.log)} 2>&1 & echo $!")
        try:
            return int(output)
        except ValueError:
            raise DeployError(f"wanted the pid of {service.argv[0]} on {self.node}, found {output!r}") from None

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _write(self, sftp: Any, file: DeployFile) -> None:
        try:
            with sftp.open(file.path, "rb") as existing:
                if not is_ours(existing.read(), file):
                    raise refusal(self.node, file.path)
        except FileNotFoundError:
            pass
        folder, _, name = file.path.rpartition("/")
        temporary = f"{folder}/.{name}.weavelab"
        try:
            with sftp.open(temporary, "wb") as new:
                new.write(file.content)
            sftp.chmod(temporary, file.mode)
            sftp.posix_rename(temporary, file.path)
        except OSError:
            with contextlib.suppress(OSError):
                sftp.remove(temporary)
            raise

    def _run(self, command: str) -> str:
        _stdin, stdout, stderr = self._client.exec_command(command, timeout=self._timeout_s)
        output: str = stdout.read().decode(errors="replace").strip()
        code = stdout.channel.recv_exit_status()
        if code != 0:
            said = stderr.read().decode(errors="replace").strip() or output or "nothing"
            raise DeployError(f"`{command}` on {self.node} ended with exit code {code} and said: {said}")
        return output
