"""Installing, upgrading and removing by a record: nobody else's file, nothing forgotten, killed at any moment."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from plugin.core.errors import MissingError
from testbed.deploy import installer
from testbed.deploy.installer import SAVED_SUFFIX, install, plan_changes, read_record, tidy, uninstall
from testbed.deploy.machine import Kind, LocalMachine, resolve_below, temporary
from testbed.deploy.node import NodeFile
from testbed.deploy.plan import DeployFile
from testbed.deploy.record import RECORD_PATH, folders_of
from testbed.deploy.transport import DeployError
from tests.support.tree import DeathError, DyingMachine, tree

PROGRAM, CHAIN, LIBRARY = "/opt/cni/bin/weave-net", "/etc/cni/net.d/10-weave.conflist", "/opt/weave/lib/{}/a.py"
PARTS = ("agent", "plugin")


BAD_DIGEST = json.dumps({
    "format": 1, "version": "1", "complete": True, "interpreter": "", "folders": [],
    "files": {"/x": {"part": "plugin", "digests": ["no hex"]}},
}).encode()  # fmt: skip


def files(release: str = "1", *, chain: bytes = b"{}") -> list[NodeFile]:
    library = LIBRARY.format(release)
    return [
        NodeFile("agent", DeployFile(library, f"code {release}".encode(), b"")),
        NodeFile("agent", DeployFile(library + "c", f"compiled {release}".encode(), b""), remade=True),
        NodeFile("plugin", DeployFile(PROGRAM, f"#!program {release}".encode(), b"", 0o755)),
        NodeFile("plugin", DeployFile(CHAIN, chain, b""), settings=True),
    ]


def deploy(machine: LocalMachine, wanted: list[NodeFile], *, force: bool = False) -> installer.Plan:
    plan = plan_changes(machine, wanted, PARTS, force=force)
    if plan.anything:
        install(machine, plan, "1.0", "/usr/bin/python3")
        tidy(machine, plan)
    return plan


def remove(machine: LocalMachine) -> installer.Removal:
    return uninstall(machine, read_record(machine))


def place(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def put(root: Path, path: str, content: bytes) -> Path:
    there = place(root, path)
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_bytes(content)
    return there


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of installations; that files are synced is asserted by itself."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine that has something of its own already."""
    put(tmp_path, "/etc/hosts", b"127.0.0.1 localhost\n")
    put(tmp_path, "/var/lib/dpkg/status", b"")
    put(tmp_path, "/etc/cni/net.d/99-loopback.conf", b"{}")
    return tmp_path


def test_what_is_installed_is_there_with_its_mode_and_goes_again_without_a_trace(root: Path) -> None:
    before = tree(root)
    deploy(LocalMachine(root), files())
    assert place(root, PROGRAM).read_bytes() == b"#!program 1"
    assert place(root, PROGRAM).stat().st_mode & 0o777 == 0o755
    assert place(root, CHAIN).stat().st_mode & 0o777 == 0o644
    assert place(root, RECORD_PATH).stat().st_mode & 0o777 == 0o600
    removal = remove(LocalMachine(root))
    assert removal.removed == [CHAIN, PROGRAM, LIBRARY.format("1")], "last things first: no runtime calls what is gone"
    assert (removal.kept, removal.restored) == ([], [])
    assert tree(root) == before


def test_the_second_time_nothing_is_to_do(root: Path) -> None:
    deploy(LocalMachine(root), files())
    after = tree(root)
    machine = DyingMachine(root, dies_at=1)
    plan = deploy(machine, files())
    assert not plan.anything
    assert {change.verb for change in plan.changes} == {"same"}
    assert tree(root) == after


def test_an_upgrade_replaces_only_what_differs_and_removes_what_is_superfluous(root: Path) -> None:
    deploy(LocalMachine(root), files("1"))
    inode = place(root, CHAIN).stat().st_ino
    plan = deploy(LocalMachine(root), files("2"))
    assert {change.path: change.verb for change in plan.changes} == {
        LIBRARY.format("2"): "write", LIBRARY.format("2") + "c": "write", PROGRAM: "replace", CHAIN: "same",
        LIBRARY.format("1"): "remove", LIBRARY.format("1") + "c": "remove",
    }  # fmt: skip
    assert place(root, CHAIN).stat().st_ino == inode, "untouched"
    assert not place(root, "/opt/weave/lib/1").exists()


def test_after_upgrades_the_tree_is_as_if_installed_at_once_and_goes_without_a_trace(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = tree(root)
    for release in ("1", "2", "3"):
        deploy(LocalMachine(root), files(release))
    other = tmp_path_factory.mktemp("other")
    put(other, "/etc/hosts", b"127.0.0.1 localhost\n")
    put(other, "/var/lib/dpkg/status", b"")
    put(other, "/etc/cni/net.d/99-loopback.conf", b"{}")
    deploy(LocalMachine(other), files("3"))
    assert tree(root) == tree(other)
    remove(LocalMachine(root))
    assert tree(root) == before


def test_a_part_is_installed_and_upgraded_without_touching_the_others(root: Path) -> None:
    deploy(LocalMachine(root), files("1"))
    plugin = [file for file in files("2") if file.part == "plugin"]
    plan = plan_changes(LocalMachine(root), plugin, ("plugin",), force=False)
    install(LocalMachine(root), plan, "2.0", "/usr/bin/python3")
    tidy(LocalMachine(root), plan)
    assert place(root, PROGRAM).read_bytes() == b"#!program 2"
    assert place(root, LIBRARY.format("1")).exists()
    record = read_record(LocalMachine(root))
    assert record is not None
    assert record.files.keys() == {file.path for file in files("1")}


# ---- files that are not ours


@pytest.mark.parametrize("path", [PROGRAM, CHAIN])
def test_somebody_elses_file_is_named_and_nothing_is_changed(root: Path, path: str) -> None:
    put(root, path, b"calico")
    before = tree(root)
    with pytest.raises(
        DeployError, match=rf"wanted to write {path} on .*, found a file there that weavelab did not"
    ) as caught:
        deploy(LocalMachine(root), files())
    assert "--force" in caught.value.hint
    assert tree(root) == before


@pytest.mark.parametrize("path", [PROGRAM, CHAIN])
def test_with_force_somebody_elses_file_is_put_aside_and_comes_back(root: Path, path: str) -> None:
    put(root, path, b"calico").chmod(0o741)
    before = tree(root)
    deploy(LocalMachine(root), files(), force=True)
    assert place(root, path + SAVED_SUFFIX).read_bytes() == b"calico"
    deploy(LocalMachine(root), files("2"))
    assert remove(LocalMachine(root)).restored == [path]
    assert tree(root) == before


def test_a_link_is_somebody_elses_and_is_never_written_through(root: Path) -> None:
    target = put(root, "/usr/local/bin/theirs", b"theirs")
    put(root, PROGRAM, b"").unlink()
    place(root, PROGRAM).symlink_to(target)
    before = tree(root)
    with pytest.raises(DeployError, match="a symbolic link or a device there"):
        deploy(LocalMachine(root), files())
    deploy(LocalMachine(root), files(), force=True)
    assert target.read_bytes() == b"theirs"
    remove(LocalMachine(root))
    assert tree(root) == before


def test_a_folder_in_the_way_is_not_moved_even_with_force(root: Path) -> None:
    place(root, PROGRAM).mkdir(parents=True)
    with pytest.raises(DeployError, match="found a folder there; nothing was changed"):
        deploy(LocalMachine(root), files(), force=True)


def test_what_was_put_aside_is_not_overwritten_by_a_second_one(root: Path) -> None:
    put(root, PROGRAM, b"first")
    deploy(LocalMachine(root), files(), force=True)
    put(root, PROGRAM, b"second")
    before = tree(root)
    with pytest.raises(DeployError, match="found one that was put aside before"):
        deploy(LocalMachine(root), files(), force=True)
    assert tree(root) == before


def test_a_file_that_is_as_wanted_is_taken_over(root: Path) -> None:
    put(root, PROGRAM, b"#!program 1").chmod(0o755)
    deploy(LocalMachine(root), files())
    assert PROGRAM in remove(LocalMachine(root)).removed


# ---- files that a person has changed


def test_a_changed_setting_stays_through_upgrades_and_removal_and_is_named(root: Path) -> None:
    deploy(LocalMachine(root), files("1"))
    put(root, CHAIN, b'{"mine": true}')
    plan = deploy(LocalMachine(root), files("2", chain=b'{"new": true}'))
    assert [change.path for change in plan.does("kept")] == [CHAIN]
    assert place(root, CHAIN).read_bytes() == b'{"mine": true}'
    assert remove(LocalMachine(root)).kept == [CHAIN]
    assert place(root, CHAIN).read_bytes() == b'{"mine": true}'
    assert not place(root, "/opt").exists()


def test_a_changed_setting_is_replaced_with_force_and_not_lost(root: Path) -> None:
    deploy(LocalMachine(root), files("1"))
    put(root, CHAIN, b'{"mine": true}')
    deploy(LocalMachine(root), files("2"), force=True)
    assert place(root, CHAIN).read_bytes() == b"{}"
    assert place(root, CHAIN + SAVED_SUFFIX).read_bytes() == b'{"mine": true}'


def test_a_program_that_was_exchanged_is_refused(root: Path) -> None:
    deploy(LocalMachine(root), files("1"))
    put(root, PROGRAM, b"\x7fELF")
    with pytest.raises(DeployError, match="found one that was changed since weavelab wrote it"):
        deploy(LocalMachine(root), files("2"))


def test_what_somebody_adds_to_a_folder_of_ours_stays(root: Path) -> None:
    deploy(LocalMachine(root), files())
    theirs = put(root, "/opt/cni/bin/bridge", b"theirs")
    remove(LocalMachine(root))
    assert theirs.read_bytes() == b"theirs"
    assert not place(root, "/opt/weave").exists()


def test_a_mode_that_was_changed_is_put_right(root: Path) -> None:
    deploy(LocalMachine(root), files())
    place(root, PROGRAM).chmod(0o644)
    assert [change.path for change in deploy(LocalMachine(root), files()).does("replace")] == [PROGRAM]
    assert place(root, PROGRAM).stat().st_mode & 0o777 == 0o755


# ---- killed


def changes_of(root: Path, action: Callable[[DyingMachine], object]) -> int:
    machine = DyingMachine(root)
    action(machine)
    return machine.changes


@pytest.mark.parametrize("half_way", [False, True], ids=["between two changes", "within one"])
@pytest.mark.parametrize("first", ["nothing", "an earlier release", "somebody else's files"])
def test_killed_at_any_moment_the_next_command_finishes(
    tmp_path_factory: pytest.TempPathFactory, first: str, *, half_way: bool
) -> None:
    force = first == "somebody else's files"

    def machine_before() -> tuple[Path, dict[str, tuple[int, bytes]]]:
        root = tmp_path_factory.mktemp("machine")
        put(root, "/var/lib/dpkg/status", b"")
        if force:
            put(root, PROGRAM, b"theirs")
            put(root, CHAIN, b"theirs")
        before = tree(root)
        if first == "an earlier release":
            deploy(LocalMachine(root), files("1"))
        return root, before

    root, _ = machine_before()
    steps = changes_of(root, lambda machine: deploy(machine, files("2"), force=force))
    whole = tree(root)
    assert steps > 10
    for step in range(1, steps + 1):
        root, before = machine_before()
        with pytest.raises(DeathError):
            deploy(DyingMachine(root, dies_at=step, half_way=half_way), files("2"), force=force)
        deploy(LocalMachine(root), files("2"), force=force)
        assert tree(root) == whole, f"installed again after death at step {step}"

        root, before = machine_before()
        with pytest.raises(DeathError):
            deploy(DyingMachine(root, dies_at=step, half_way=half_way), files("2"), force=force)
        remove(LocalMachine(root))
        assert tree(root) == before, f"removed after death at step {step}"


def test_a_removal_that_is_killed_at_any_moment_is_finished_by_the_next(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    def machine_before() -> tuple[Path, dict[str, tuple[int, bytes]]]:
        root = tmp_path_factory.mktemp("machine")
        put(root, "/var/lib/dpkg/status", b"")
        put(root, PROGRAM, b"theirs")
        before = tree(root)
        deploy(LocalMachine(root), files(), force=True)
        return root, before

    root, _ = machine_before()
    steps = changes_of(root, remove)
    for step in range(1, steps + 1):
        root, before = machine_before()
        with pytest.raises(DeathError):
            remove(DyingMachine(root, dies_at=step))
        remove(LocalMachine(root))
        assert tree(root) == before, f"death at step {step}"


# ---- the machine refuses


def test_a_disk_that_takes_nothing_is_a_lack_of_the_machine_and_names_the_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("testbed.deploy.machine._write_synced", refuse)
    with pytest.raises(MissingError, match=rf"wanted to write {RECORD_PATH} on .*No space left") as caught:
        deploy(LocalMachine(root), files())
    assert "same command again" in caught.value.hint


def test_what_a_failed_write_leaves_is_cleared_away(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(LocalMachine(root), files("1"))
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    with pytest.raises(MissingError, match="Read-only"):
        deploy(LocalMachine(root), files("2"))
    assert not [path for path in tree(root) if path.endswith(".weavelab")]


def test_a_file_is_replaced_and_never_rewritten_in_place(root: Path) -> None:
    deploy(LocalMachine(root), files("1"))
    with place(root, PROGRAM).open("rb") as running:
        deploy(LocalMachine(root), files("2"))
        assert running.read() == b"#!program 1", "who executes it meanwhile has the old one"


def test_a_file_is_on_the_disk_before_it_gets_its_name_and_then_the_name_is(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "opt").mkdir()
    events: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: events.append(f"sync {Path(f'/proc/self/fd/{fd}').readlink().name}"))
    monkeypatch.setattr(Path, "replace", lambda self, to: (events.append(f"rename to {to.name}"), replace(self, to))[1])
    LocalMachine(root).write("/opt/program", b"content", 0o755)
    assert events == ["sync .program.weavelab", "rename to program", "sync opt"]


def test_two_installations_do_not_meet(root: Path) -> None:
    with (
        LocalMachine(root).alone(),
        pytest.raises(DeployError, match="another `weavelab deploy` is at work"),
        LocalMachine(root).alone(),
    ):
        pass
    with LocalMachine(root).alone():
        pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "found something else"),
        (b"[]", "found something else"),
        (b'{"format": 2}', "wanted a record of format 1"),
        (
            b'{"format": 1, "version": "1", "complete": true, "interpreter": "", "files": {"/x": {}}, "folders": []}',
            "digests",
        ),
        (BAD_DIGEST, "found something else"),
    ],
)
def test_a_damaged_record_is_told_and_nothing_is_removed_by_it(root: Path, content: bytes, message: str) -> None:
    put(root, RECORD_PATH, content)
    before = tree(root)
    with pytest.raises(DeployError, match=message):
        read_record(LocalMachine(root))
    assert tree(root) == before


# ---- paths below a root


def test_links_lead_where_they_would_if_the_folder_were_the_root(tmp_path: Path) -> None:
    put(tmp_path, "/usr/bin/python3.11", b"")
    (tmp_path / "bin").symlink_to("/usr/bin")
    (tmp_path / "usr/bin/python3").symlink_to("/etc/alternatives/python3")
    put(tmp_path, "/etc/alternatives/python3", b"").unlink()
    (tmp_path / "etc/alternatives/python3").symlink_to("../../../../usr/bin/python3.11")
    assert resolve_below(tmp_path, "/bin/python3", last=True) == tmp_path / "usr/bin/python3.11"
    assert LocalMachine(tmp_path).target("/bin/python3") == "/usr/bin/python3.11"
    assert resolve_below(tmp_path, "/bin/python3", last=False) == tmp_path / "usr/bin/python3"
    assert resolve_below(tmp_path, "/../../etc", last=True) == tmp_path / "etc"


def test_an_absolute_link_to_a_folder_does_not_lead_out_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "opt").symlink_to("/elsewhere")
    deploy(LocalMachine(tmp_path), files())
    assert (tmp_path / "elsewhere/cni/bin/weave-net").exists()
    remove(LocalMachine(tmp_path))
    assert tree(tmp_path).keys() == {"elsewhere", "opt"}


def test_links_in_a_circle_are_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    (tmp_path / "opt").symlink_to("/opt")
    with pytest.raises(MissingError, match="Too many levels of symbolic links"):
        LocalMachine(tmp_path).observe("/opt/cni/bin")


def test_temporary_files_lie_in_the_same_folder_with_a_name_that_no_runtime_reads() -> None:
    assert temporary(CHAIN) == "/etc/cni/net.d/.10-weave.conflist.weavelab"
    assert folders_of(["/a/b/c", "/a/d"]) == ["/a", "/a/b"]
    assert Kind("nothing") is Kind.ABSENT
