"""The shell scripts as text."""

import shutil
import subprocess

import pytest

from tests.support.project import ROOT

SCRIPTS = [*sorted(ROOT.glob("testbed/setup/*.sh")), ROOT / ".ci" / "run"]


def test_shellcheck_has_nothing_to_say():
    shellcheck = shutil.which("shellcheck") or pytest.skip("shellcheck is not installed")
    result = subprocess.run([shellcheck, "-x", *SCRIPTS], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_has_unix_lines_and_opens_by_saying_what_it_is(script):
    text = script.read_bytes()
    assert b"\r" not in text
    second = text.decode().splitlines()[1]
    assert second.startswith("# ")
    assert len(second) > 40


def test_ci_runs_what_the_readme_tells_people_to_run_with_nobody_at_the_keyboard():
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    assert text.rstrip().endswith("make --no-print-directory test </dev/null")
