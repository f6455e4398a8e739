"""Installing over SSH: the same plan through SFTP and command lines, with a stand-in for the host."""

import errno
import io
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plugin.core.errors import InputError, MissingError
from testbed.cli import main as cli
from testbed.deploy import ssh
from testbed.deploy.installer import install, plan_changes, read_record, tidy, uninstall
from testbed.deploy.machine import Kind
from testbed.deploy.node import NodeFile
from testbed.deploy.plan import DeployFile
from testbed.deploy.ssh import SshMachine, parse_target
from testbed.deploy.transport import DeployError
from tests.support.tree import tree


class FakeHost:
    """A host: its files are those of a folder, its programs say what a table has."""

    def __init__(self, root: Path, *, says: tuple[int, bytes] = (0, b"")) -> None:
        self.root = root
        self.commands: list[str] = []
        self.closed = False
        self.gone = False
        self._says = says

    # -- what SshMachine uses of paramiko.SSHClient
    def exec_command(self, command: str, timeout: float | None = None) -> tuple[Any, Any, Any]:
        assert timeout is not None, "nothing waits without a limit"
        self.commands.append(command)
        code, output = self._says
        stdout = io.BytesIO(output)
        stdout.channel = SimpleNamespace(recv_exit_status=lambda: code)  # type: ignore[attr-defined]
        return None, stdout, io.BytesIO()

    def open_sftp(self) -> "FakeHost":
        return self

    def close(self) -> None:
        self.closed = True

    # -- and of its SFTP client
    def _at(self, path: str) -> Path:
        if self.gone:
            raise EOFError("Server connection dropped")
        return self.root / path.lstrip("/")

    def lstat(self, path: str) -> os.stat_result:
        return self._at(path).lstat()

    @contextmanager
    def open(self, path: str, mode: str) -> Iterator[Any]:
        flags = {"rb": "rb", "wbx": "xb"}[mode]  # SFTP has the flag `excl`, paramiko the letter x beside w
        with self._at(path).open(flags) as file:
            yield file

    def chmod(self, path: str, mode: int) -> None:
        self._at(path).chmod(mode)

    def posix_rename(self, old: str, new: str) -> None:
        self._at(old).replace(self._at(new))

    def remove(self, path: str) -> None:
        self._at(path).unlink()

    def mkdir(self, path: str, mode: int) -> None:
        self._at(path).mkdir(mode)

    def rmdir(self, path: str) -> None:
        self._at(path).rmdir()

    def listdir(self, path: str) -> list[str]:
        return [there.name for there in self._at(path).iterdir()]

    def normalize(self, path: str) -> str:
        return "/" + str(self._at(path).resolve().relative_to(self.root.resolve()))


PARTS = ("plugin",)
FILES = [
    NodeFile("plugin", DeployFile("/opt/cni/bin/weave-net", b"#!program", b"", 0o755)),
    NodeFile("plugin", DeployFile("/etc/cni/net.d/10-weave.conflist", b"{}", b""), settings=True),
]


def test_the_same_files_arrive_with_their_modes_and_go_again_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "var/lib").mkdir(parents=True)
    before = tree(tmp_path)
    host = FakeHost(tmp_path)
    with SshMachine("vm", host) as machine:
        plan = plan_changes(machine, FILES, PARTS, force=False)
        install(machine, plan, "1.0", "/usr/bin/python3")
        tidy(machine, plan)
        for file in FILES:
            there = tmp_path / file.path.lstrip("/")
            assert there.read_bytes() == file.file.content
            assert stat.S_IMODE(there.stat().st_mode) == file.file.mode
        assert not plan_changes(machine, FILES, PARTS, force=False).anything
        uninstall(machine, read_record(machine))
    assert tree(tmp_path) == before
    assert set(host.commands) == {"sync 2>&1 </dev/null"}, "and what was written is on its disk"
    assert host.closed


def test_somebody_elses_file_stays(tmp_path: Path) -> None:
    program = tmp_path / "opt/cni/bin/weave-net"
    program.parent.mkdir(parents=True)
    program.write_bytes(b"\x7fELF the real one")
    before = tree(tmp_path)
    with pytest.raises(DeployError, match=r"/opt/cni/bin/weave-net on vm"):
        plan_changes(SshMachine("vm", FakeHost(tmp_path)), FILES, PARTS, force=False)
    assert tree(tmp_path) == before


def test_what_it_sees_of_a_host(tmp_path: Path) -> None:
    machine = SshMachine("vm", FakeHost(tmp_path))
    (tmp_path / "python3.11").write_bytes(b"\x7fELF and more")
    (tmp_path / "python3").symlink_to("python3.11")
    assert machine.observe("/python3").kind is Kind.OTHER
    assert machine.observe("/").kind is Kind.FOLDER
    assert machine.observe("/none").kind is Kind.ABSENT
    assert machine.read("/python3", bytes_max=4) == b"\x7fELF"
    assert machine.read("/none") is None
    assert machine.target("/python3") == "/python3.11"
    assert machine.listing("/") == ["python3", "python3.11"]
    assert machine.listing("/none") == []


def test_a_write_that_is_refused_leaves_no_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = FakeHost(tmp_path)

    def refuse(_old: str, _new: str) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(host, "posix_rename", refuse)
    with pytest.raises(MissingError, match="wanted to write /file on vm, found: Permission denied") as caught:
        SshMachine("vm", host).write("/file", b"x", 0o644)
    assert "root@HOST" in caught.value.hint
    assert tree(tmp_path) == {}


def test_a_connection_that_ends_says_how_to_go_on(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.gone = True
    with pytest.raises(DeployError, match="the SSH connection to vm ended: Server connection dropped") as caught:
        SshMachine("vm", host).observe("/file")
    assert "goes on from there" in caught.value.hint


def test_a_program_is_run_with_its_words_quoted(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, says=(3, b"no\n"))
    said = SshMachine("vm", host).run(["echo", "a b; rm -rf /"], timeout_s=1)
    assert (said.code, said.text) == (3, "no")
    assert host.commands == ["echo 'a b; rm -rf /' 2>&1 </dev/null"]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("root@10.0.0.1", ("root", "10.0.0.1", 22)),
        ("vm", ("root", "vm", 22)),
        ("vagrant@vm.local:2222", ("vagrant", "vm.local", 2222)),
    ],
)
def test_targets(text: str, target: tuple[str, str, int]) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize("text", ["", "@host", "root@", "a b", "host:port", "-oProxyCommand=x", "a@b@c"])
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(InputError, match="wanted USER@HOST"):
        parse_target(text)


def test_all_targets_are_read_before_the_first_is_touched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ssh, "connect", lambda target: pytest.fail(f"connected to {target}"))
    assert cli.main(["deploy", "--ssh", "root@good", "--ssh", "root@bad:port"]) == 2
    assert "wanted USER@HOST, found 'root@bad:port'" in capsys.readouterr().err


def test_a_host_that_does_not_answer_is_an_error_with_a_command_to_try(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("paramiko")
    assert cli.main(["deploy", "--ssh", "root@127.0.0.1:1"]) == 3
    text = capsys.readouterr().err
    assert "wanted an SSH connection to root@127.0.0.1:1" in text
    assert "ssh -p 1 root@127.0.0.1 true" in text


def test_a_host_that_is_not_reachable_is_a_lack_of_the_environment_in_words() -> None:
    pytest.importorskip("paramiko")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]  # nobody listens there any more when it is asked
    with pytest.raises(MissingError, match="wanted an SSH connection") as caught:
        ssh.connect(f"root@127.0.0.1:{port}")
    assert caught.value.message.endswith(f"found: Unable to connect to port {port} on 127.0.0.1")
    with pytest.raises(MissingError, match="wanted an SSH connection") as caught:
        ssh.connect("root@nope.invalid")
    assert "Errno" not in caught.value.message
