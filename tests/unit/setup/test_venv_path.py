"""Where the virtual environment lies: at the project's root, but outside a folder that a VM shares with its host."""

import pytest

ROOT_ANSWER = "{root}/.venv"
VM_ANSWER = "/opt/weavelab/venv"


def venv_path(workshop, **env):
    result = workshop.run("sh", "testbed/setup/venv-path.sh", **{"WEAVELAB_VENV": "", **env})
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize(
    ("file_system", "answer"),
    [
        ("ext2/ext3", ROOT_ANSWER),
        ("xfs", ROOT_ANSWER),
        ("overlayfs", ROOT_ANSWER),
        ("nfs", ROOT_ANSWER),  # a home folder on a server holds links
        ("UNKNOWN (0x786f4256)", ROOT_ANSWER),
        ("vboxsf", VM_ANSWER),
        ("vmhgfs", VM_ANSWER),
        ("fuseblk", VM_ANSWER),
        ("prl_fs", VM_ANSWER),
        ("smb2", VM_ANSWER),
        ("v9fs", VM_ANSWER),
    ],
)
def test_the_file_system_of_the_project_decides(workshop, file_system, answer):
    workshop.fake("stat", f'echo "{file_system}"')
    assert venv_path(workshop) == answer.format(root=workshop.root)


def test_the_variable_wins(workshop):
    assert venv_path(workshop, WEAVELAB_VENV="/somewhere/else") == "/somewhere/else"


def test_vagrants_folder_counts_as_shared_even_when_it_was_copied(workshop):
    """rsync makes an ordinary folder of it; the host still gets what lies in there when the kind of share changes."""
    script = (workshop.root / "testbed/setup/venv-path.sh").read_text()
    standing_in = script.replace('root=$(cd "$(dirname "$0")/../.." && pwd -P)', "root=/vagrant")
    assert standing_in != script
    (workshop.root / "testbed/setup/venv-path.sh").write_text(standing_in)
    assert venv_path(workshop) == VM_ANSWER
