"""Where labs keep what they have: the variable that moves it, and the length that the kernel allows."""

import subprocess
import sys
from pathlib import Path

import pytest

from plugin.core.errors import InputError
from testbed.lab import paths
from testbed.life import up
from testbed.topology.model import NodeSpec, Topology


@pytest.mark.parametrize(
    ("value", "expected"), [("", "/run/weavelab"), ("/a/b", "/a/b"), ("labs", str(Path.cwd() / "labs"))]
)
def test_the_run_directory_is_absolute(value: str, expected: str) -> None:
    program = "from testbed.lab.paths import RUN; print(RUN)"
    environment = {"WEAVELAB_RUN": value, "PYTHONPATH": str(Path(paths.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == expected


def test_a_run_directory_too_deep_for_sockets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "RUN", Path("/tmp") / ("x" * 100))
    topology = Topology(name="small", nodes={"node1": NodeSpec()})
    with pytest.raises(InputError, match="at most 107 bytes, found 147") as caught:
        up._check_socket_paths(paths.LabPaths("small"), topology)
    assert "WEAVELAB_RUN" in caught.value.hint
