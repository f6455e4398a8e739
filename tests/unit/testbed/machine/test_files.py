"""How report files are checked and written, and that two commands never write one."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from plugin.core.errors import InputError
from testbed.machine import files
from testbed.machine.claims import claimed
from tests.support.project import ROOT


def test_a_report_is_written_with_its_directories_and_readable(tmp_path: Path) -> None:
    path = tmp_path / "build" / "reports" / "report.html"
    files.check_report_path(path)
    files.write_report(path, "text\n")
    assert path.read_text() == "text\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_a_report_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for text in ("first", "second"):
        files.write_report(path, text)
    assert path.read_text() == "second"


def test_a_device_is_written_into_and_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.check_report_path(pipe)
        files.write_report(pipe, "text")
        assert os.read(reader, 10) == b"text"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "report.html"
    link.symlink_to(tmp_path / "elsewhere" / "report.html")
    files.write_report(link, "text")
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "report.html").read_text() == "text"


def test_a_directory_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is to be a file, found a directory"):
        files.check_report_path(tmp_path)


def test_a_path_below_a_file_is_refused_before_anything_happens(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        files.check_report_path(tmp_path / "file" / "report.html")


def test_a_place_that_takes_no_files_is_refused_before_anything_happens() -> None:
    with pytest.raises(InputError, match="cannot be"):
        files.check_report_path(Path("/proc/report.html"))


def test_under_sudo_reports_belong_to_the_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, int, int]] = []
    monkeypatch.setenv("SUDO_UID", "1000")
    monkeypatch.setenv("SUDO_GID", "1001")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: given.append((Path(path).name, uid, gid)))
    files.check_report_path(tmp_path / "new" / "report.html")
    files.write_report(tmp_path / "new" / "report.html", "")
    assert given[0] == ("new", 1000, 1001)
    assert given[1][1:] == (1000, 1001)


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1"])
def test_standard_output_is_known_by_all_of_its_names(name: str) -> None:
    assert files.is_standard_output(Path(name))
    files.check_report_path(Path(name))


def test_an_open_file_named_by_its_number_is_added_to(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        log.write("before\n")
        log.flush()
        files.write_report(Path(f"/dev/fd/{log.fileno()}"), "report\n")
    assert (tmp_path / "log").read_text() == "before\nreport\n"


def test_one_file_is_known_by_any_path(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    one = tmp_path / "report"
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    assert files.same_file(tmp_path / "folder" / "r", tmp_path / "link" / "r")  # neither is there yet
    assert files.same_file(one, tmp_path / "folder" / ".." / "report")
    one.write_text("")
    os.link(one, tmp_path / "hard")
    assert files.same_file(one, tmp_path / "hard")
    assert not files.same_file(one, tmp_path / "other")
    assert not files.same_file(Path("/dev/null"), Path("/dev/null"))


def test_a_file_is_claimed_by_one_command_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    (tmp_path / "link").symlink_to(tmp_path)
    refused = pytest.raises(InputError, match="is being written by another weavelab run")
    with claimed([path]), refused, claimed([tmp_path / "link" / "report.html"]):
        pass
    with claimed([path, path]):
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "link"]


def test_a_claim_ends_with_its_process_however_it_ends(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from testbed.machine.claims import claimed\n"
        "with claimed([pathlib.Path(sys.argv[1])]): print('mine', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "r")], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"mine\n"
        with pytest.raises(InputError), claimed([tmp_path / "r"]):
            pass
        other.kill()
        other.wait()
    with claimed([tmp_path / "r"]):
        pass
