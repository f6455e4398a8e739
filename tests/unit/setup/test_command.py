"""The set-up makes `weavelab` known to the machine, touches nothing of somebody else's, and takes away what it made."""

import pytest

from tests.unit.setup.conftest import Workshop

COMPLETIONS = {
    "bash": "usr/local/share/bash-completion/completions/weavelab",
    "zsh": "usr/local/share/zsh/site-functions/_weavelab",
    "fish": "usr/share/fish/vendor_completions.d/weavelab.fish",
}


@pytest.fixture
def machine(debian: Workshop) -> Workshop:
    """A Debian machine with all three shells."""
    debian.fake("zsh")
    debian.fake("fish")
    return debian


def link(machine: Workshop):
    return machine.destination / "usr/local/bin/weavelab"


def everything(machine: Workshop) -> list[str]:
    """The files outside of the project."""
    root = machine.destination
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or path.is_file())


def test_the_command_is_put_on_the_path_and_every_shell_completes_it(machine: Workshop) -> None:
    result = machine.script("setup.sh", "run", "--quiet")
    assert result.returncode == 0, result.stderr
    assert link(machine).readlink() == machine.venv / "bin/weavelab"
    for shell, path in COMPLETIONS.items():
        file = machine.destination / path
        assert file.read_text() == f"# made by `weavelab completion {shell}`\n"
        assert file.stat().st_mode & 0o777 == 0o644
        assert f"setup: {shell} completes weavelab: {file}" in result.stdout
    assert f"setup: weavelab is on the PATH: {link(machine)}" in result.stdout
    assert everything(machine) == sorted(["usr/local/bin/weavelab", *COMPLETIONS.values()])
    assert machine.script("setup.sh", "run", "--quiet").stdout == ""


def test_a_shell_that_is_not_here_gets_nothing(debian: Workshop) -> None:
    assert debian.script("setup.sh", "run").returncode == 0
    assert everything(debian) == ["usr/local/bin/weavelab", COMPLETIONS["bash"]]


def test_checks_that_need_no_root_leave_the_machine_alone(machine: Workshop) -> None:
    assert machine.script("setup.sh", "test", "--quiet").returncode == 0
    assert everything(machine) == []


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_command_of_somebody_else_stays_and_is_told(machine: Workshop, kind: str) -> None:
    link(machine).parent.mkdir(parents=True)
    other = machine.root.parent / "other/bin/weavelab"
    other.parent.mkdir(parents=True)
    other.write_text("theirs")
    if kind == "file":
        link(machine).write_text("theirs")
    else:
        link(machine).symlink_to(other)
    result = machine.script("setup.sh", "run")
    assert result.returncode == 0, result.stderr
    assert (
        f"note: {link(machine)} is another's and stays; this project's command is {machine.venv}/bin/" in result.stdout
    )
    assert link(machine).read_text() == "theirs"
    assert everything(machine) == ["usr/local/bin/weavelab"]
    assert "nothing to remove" in machine.script("setup.sh", "--uninstall").stdout
    assert link(machine).read_text() == "theirs"


def test_a_link_to_a_checkout_that_is_no_more_is_replaced(machine: Workshop) -> None:
    link(machine).parent.mkdir(parents=True)
    link(machine).symlink_to("/nonexistent/.venv/bin/weavelab")
    machine.script("setup.sh", "run")
    assert link(machine).readlink() == machine.venv / "bin/weavelab"


@pytest.mark.parametrize("shell", COMPLETIONS)
def test_a_completion_of_somebody_else_stays_and_is_told(machine: Workshop, shell: str) -> None:
    file = machine.destination / COMPLETIONS[shell]
    file.parent.mkdir(parents=True)
    file.write_text("theirs")
    result = machine.script("setup.sh", "run")
    assert f"note: {file} is another's and stays" in result.stdout
    assert file.read_text() == "theirs"
    machine.script("setup.sh", "--uninstall")
    assert everything(machine) == [COMPLETIONS[shell]]


def test_a_folder_that_cannot_be_written_is_a_note_and_no_failure(machine: Workshop) -> None:
    (machine.destination / "usr").mkdir(parents=True)
    (machine.destination / "usr/local").write_text("no folder")
    result = machine.script("setup.sh", "run")
    assert result.returncode == 0, result.stderr
    assert (
        f"note: could not make {link(machine)}; the command is {machine.venv}/bin/weavelab all the same"
        in result.stdout
    )


def test_an_ordinary_user_whose_sudo_asks_is_not_asked_for_this(machine: Workshop) -> None:
    machine.fake("sudo", 'case $1 in -n) exit 1 ;; *) exec "$@" ;; esac')
    result = machine.script("setup.sh", "run", FAKE_UID="1000")
    assert result.returncode == 0, result.stderr
    assert "note: could not make" in result.stdout
    assert everything(machine) == []


def test_what_was_made_is_taken_away_again_and_once(machine: Workshop) -> None:
    machine.script("setup.sh", "run")
    removed = machine.run("make", "uninstall")
    assert removed.returncode == 0, removed.stderr
    assert removed.stdout.count("setup: removed: ") == 4
    assert everything(machine) == []
    assert machine.venv.exists()
    assert machine.script("setup.sh", "--uninstall").stdout == "setup: nothing to remove\n"


def test_new_python_packages_bring_a_new_completion(machine: Workshop) -> None:
    machine.script("setup.sh", "run")
    file = machine.destination / COMPLETIONS["bash"]
    file.write_text("# an old one, made by `weavelab completion bash`\n")
    machine.script("setup.sh", "run")
    assert "an old one" in file.read_text()
    machine.script("setup.sh", "run", "--force")
    assert "an old one" not in file.read_text()
