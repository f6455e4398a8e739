"""The directory of namespace names goes away with the last lab, wherever an earlier command was killed."""

from pathlib import Path

import pytest

from plugin.link import netns
from testbed.nodes import mounts


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of labs without labs, and /run/netns as an ordinary folder, which no mount is on."""
    folder = tmp_path / "weavelab"
    folder.mkdir()
    monkeypatch.setattr(mounts, "RUN", folder)
    monkeypatch.setattr(mounts, "NETNS", tmp_path / "netns")
    monkeypatch.setattr(mounts, "_OURS", folder / ".made")
    monkeypatch.setattr(netns, "umount", refuse)
    return folder


def refuse(_path: Path) -> None:
    raise OSError(22, "Invalid argument")  # no mount point


@pytest.mark.parametrize("names", [None, [], ["of-somebody"]])
def test_the_mark_goes_whatever_is_left_of_the_directory(run: Path, names: list[str] | None) -> None:
    (run / ".made").touch()
    if names is not None:
        mounts.NETNS.mkdir()
        for name in names:
            (mounts.NETNS / name).touch()
    mounts.drop_netns_directory()
    assert list(run.iterdir()) == []
    assert mounts.NETNS.exists() == bool(names)


def test_while_a_lab_is_left_nothing_goes(run: Path) -> None:
    (run / ".made").touch()
    (run / "lab").mkdir()
    mounts.NETNS.mkdir()
    mounts.drop_netns_directory()
    assert mounts.NETNS.exists()
    assert (run / ".made").exists()
