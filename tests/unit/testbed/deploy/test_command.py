"""`weavelab deploy` as people type it: staging trees, dry runs, options that do not go together, wrong input."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from testbed.cli import main as cli
from testbed.deploy.record import RECORD_PATH
from tests.support.tree import tree

OURS = f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
NODE = ["--node-name", "node1", "--address", "192.168.1.10", "--interpreter", OURS]


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of files a test; that they are synced is asserted where they are written."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)


def deploy(root: Path, *words: str) -> int:
    return cli.main(["deploy", "--local", "--root", str(root), *words])


def test_a_folder_is_filled_upgraded_and_emptied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy(tmp_path, *NODE, "--range", "10.64.0.0/16") == 0
    out = capsys.readouterr().out
    assert "write          /opt/cni/bin/weave-net\n" in out
    assert f"note: {OURS} is not in {tmp_path}" in out
    assert "on the node: systemctl enable --now weave" in out
    assert (tmp_path / "opt/cni/bin/weave-net").read_bytes().startswith(f"#!{OURS} -ISE\n".encode())
    assert (tmp_path / "opt/weave/bin/weave-agent").read_text().startswith(f"#!{OURS} -ISE\n")

    whole = tree(tmp_path)
    assert deploy(tmp_path) == 0, "name, address and Python are known from the first time"
    assert "as it should be 6 files" in capsys.readouterr().out
    assert tree(tmp_path) == whole

    assert deploy(tmp_path, "--peer", "192.168.1.20") == 0
    assert json.loads((tmp_path / "etc/weave/agent.json").read_text()) == {
        "name": "node1", "node_address": "192.168.1.10", "range": "10.64.0.0/16", "peers": ["192.168.1.20"],
        "initial_peers": 0,
    }  # fmt: skip
    assert deploy(tmp_path, "--uninstall") == 0
    assert tree(tmp_path) == {}
    assert deploy(tmp_path, "--uninstall") == 0
    assert "weavelab has installed nothing on" in capsys.readouterr().out


def test_a_dry_run_says_everything_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy(tmp_path, *NODE, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert tree(tmp_path) == {}
    deploy(tmp_path, *NODE)
    done = capsys.readouterr().out.splitlines()
    assert lines[:7] == [f"would {line}" for line in done[:7]]

    whole = tree(tmp_path)
    (tmp_path / "etc/cni/net.d/10-weave.conflist").write_text("{}")
    assert deploy(tmp_path, "--uninstall", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "would leave          /etc/cni/net.d/10-weave.conflist" in out
    assert "would remove         /opt/cni/bin/weave-net" in out
    assert "would remove         /opt/weave/lib" in out
    assert tree(tmp_path).keys() == whole.keys()


def test_the_plugin_alone_needs_no_name_and_no_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy(tmp_path, "--only", "plugin", "--interpreter", "/usr/bin/python3") == 0
    files = {path for path, (_, content) in tree(tmp_path).items() if content}
    assert files == {"opt/cni/bin/weave-net", "etc/cni/net.d/10-weave.conflist", RECORD_PATH.lstrip("/")}
    assert "it needs the agent at /run/weave/weave.sock" in capsys.readouterr().out


def test_a_foreign_conflist_is_named_with_exit_code_1_and_put_aside_with_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conflist = tmp_path / "etc/cni/net.d/10-weave.conflist"
    conflist.parent.mkdir(parents=True)
    conflist.write_text('{"name": "the real Weave Net"}')
    before = tree(tmp_path)
    assert deploy(tmp_path, *NODE) == 1
    err = capsys.readouterr().err
    assert "/etc/cni/net.d/10-weave.conflist" in err
    assert "hint: move it away, or --force" in err
    assert tree(tmp_path) == before
    assert deploy(tmp_path, *NODE, "--force") == 0
    assert "put aside and write /etc/cni/net.d/10-weave.conflist" in capsys.readouterr().out
    assert deploy(tmp_path, "--uninstall") == 0
    assert "brought back   /etc/cni/net.d/10-weave.conflist" in capsys.readouterr().out
    assert tree(tmp_path) == before


def test_a_changed_file_is_named_when_it_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deploy(tmp_path, *NODE)
    (tmp_path / "etc/cni/net.d/10-weave.conflist").write_text("{}")
    capsys.readouterr()
    assert deploy(tmp_path) == 0
    assert "leave          /etc/cni/net.d/10-weave.conflist (changed since" in capsys.readouterr().out
    assert deploy(tmp_path, "--uninstall") == 0
    assert "kept           /etc/cni/net.d/10-weave.conflist: it was changed" in capsys.readouterr().out
    assert [path for path, (_, content) in tree(tmp_path).items() if content] == ["etc/cni/net.d/10-weave.conflist"]


def test_the_password_comes_from_a_file_and_only_root_may_read_it(tmp_path: Path) -> None:
    secret, root = tmp_path / "secret", tmp_path / "root"
    root.mkdir()
    secret.write_text("correct horse\n")
    assert deploy(root, *NODE, "--password-file", str(secret)) == 0
    config = root / "etc/weave/agent.json"
    assert json.loads(config.read_text())["password"] == "correct horse"
    assert config.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "wanted one line"), (b"a\nb\n", "wanted one line"), (b"\xff", "cannot be read")]
)
def test_a_password_file_without_a_password(
    tmp_path: Path, content: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    secret, root = tmp_path / "secret", tmp_path / "root"
    root.mkdir()
    secret.write_bytes(content)
    assert deploy(root, *NODE, "--password-file", str(secret)) == 2
    assert message in capsys.readouterr().err
    assert tree(root) == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give one of --local, --ssh and --manifest"),
        (["--local", "--manifest"], "give one of"),
        (["--local", "--ssh", "vm"], "give one of"),
        (["--ssh", "vm", "--root", "."], "--root does not go with --ssh"),
        (["--manifest", "--uninstall"], "--uninstall does not go with --manifest"),
        (["--manifest", "--node-name", "a"], "--node-name does not go with --manifest"),
        (["--manifest", "--initial-peers", "0"], "--initial-peers does not go with --manifest"),
        (["--local", "--image", "a"], "--image does not go with --local"),
        (["--local", "--uninstall", "--range", "10.0.0.0/8"], "--range does not go with --uninstall"),
        (["--local", "--uninstall", "--only", "plugin"], "--only does not go with --uninstall"),
        (["--local", "--purge"], "--purge goes with --uninstall"),
        (["--ssh", "a", "--ssh", "b", "--node-name", "x"], "give them with one --ssh"),
        (["--local", "--only", "everything"], "--only: wanted one of"),
        (["--local", "--initial-peers", "many"], "'many' is not a valid integer"),
        (["--local", "--root", "/nonexistent"], "--root: wanted a folder, found none at /nonexistent"),
        (["--local", "--password-file", "/nonexistent"], "does not exist"),
        (["--local", "--peer", "seed.example"], "--peer: wanted the IPv4 address"),
        (["--local", "--range", "10.0.0.0/31"], "--range: the pod range must be between"),
        (["--manifest"], "wanted --peer"),
    ],
)
def test_wrong_usage_is_2_and_says_why(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["deploy", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_needs_a_name_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy(tmp_path, "--interpreter", OURS) == 2
    assert "wanted --node-name" in capsys.readouterr().err
    assert tree(tmp_path) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to become somebody else")
def test_as_an_ordinary_user_an_own_folder_will_do_and_roots_will_not(
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    above = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    request.addfinalizer(lambda: shutil.rmtree(above))
    above.chmod(0o755)
    mine, roots = above / "mine", above / "roots"
    for folder in (mine, roots):
        folder.mkdir()
    os.chown(mine, 65534, 65534)
    os.seteuid(65534)
    try:
        assert deploy(mine, "--only", "plugin", "--interpreter", OURS) == 0
        assert deploy(roots, "--only", "plugin", "--interpreter", OURS) == 3
        assert "become root (sudo), or choose another --root" in capsys.readouterr().err
    finally:
        os.seteuid(0)
    assert tree(roots) == {}


def test_a_bad_name_is_refused_before_the_folder_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy(tmp_path, "--node-name", "no blanks", "--address", "192.168.1.10") == 2
    assert "--node-name: wanted 1 to 63 letters" in capsys.readouterr().err
    assert tree(tmp_path) == {}


def test_the_parts_that_the_command_offers_are_those_there_are() -> None:
    from testbed.cli import deploy as cli_deploy
    from testbed.deploy.node import PARTS

    assert cli_deploy._PARTS == PARTS
