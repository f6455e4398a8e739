"""What `make` prints and which exit code leaves it."""

import signal
import subprocess

import pytest


@pytest.fixture
def ready(debian):
    """A set-up machine whose weavelab, pytest and checks are fakes."""
    debian.script("setup.sh", "test")
    for name in ("weavelab", "pytest", "ruff", "mypy", "lint-imports", "codespell"):
        debian.fake(str(debian.venv / "bin" / name), f'exit "${{FAKE_{name.upper().replace("-", "_")}:-0}}"')
    debian.calls_file.unlink()
    (debian.root / ".ci").mkdir()
    (debian.root / ".ci" / "run").write_text("true\n")
    return debian


def test_make_alone_lists_every_target_with_its_purpose(workshop):
    result = workshop.run("make")
    assert result.returncode == 0, result.stderr
    for target in (
        "setup",
        "scenario",
        "demo",
        "test",
        "check",
        "lint",
        "up",
        "down",
        "status",
        "cli",
        "bench",
        "bench-cni",
        "clean",
    ):
        assert f"\n  make {target} " in result.stdout
    assert result.stdout == workshop.run("make", "help").stdout
    assert workshop.calls("python3") == []


def test_make_scenario_sets_up_runs_weavelab_and_says_what_its_code_means(ready):
    result = ready.run("make", "scenario", "TOPOLOGY=topologies/racks.yaml", "ARGS=--keep --format json")
    assert result.returncode == 0, result.stderr
    reports = "--html build/reports/report.html --junit build/reports/junit.xml"
    assert ready.calls("weavelab") == [f"weavelab run --topology topologies/racks.yaml {reports} --keep --format json"]
    assert result.stdout.splitlines()[-1] == "weavelab: exit code 0 (everything holds)"


@pytest.mark.parametrize(
    ("code", "made", "meaning"),
    [
        ("1", 1, "a check failed"),
        ("2", 2, "wrong usage or input"),
        ("3", 2, "the environment lacks something"),
        ("130", 2, "interrupted"),
    ],
)
def test_make_passes_on_the_codes_that_it_can_and_names_the_others(ready, code, made, meaning):
    result = ready.run("make", "scenario", FAKE_WEAVELAB=code)
    assert result.returncode == made
    assert f"weavelab: exit code {code} ({meaning})" in result.stdout
    if made == 1:
        assert result.stderr == ""
    script = ready.script("scenario.sh", "topologies/two-nodes.yaml", FAKE_WEAVELAB=code)
    assert script.returncode == int(code)


def test_a_failed_check_is_a_failure_even_where_sigquit_is_ignored(ready):
    """As for a background job of a shell script: make cannot be told then, and exits 2."""
    result = subprocess.run(
        [ready.bin / "make", "scenario"],
        cwd=ready.root,
        env={**ready.env, "FAKE_WEAVELAB": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGQUIT, signal.SIG_IGN),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2


def test_a_set_up_that_fails_is_told_apart_from_a_failed_check(ready):
    result = ready.script("scenario.sh", "topologies/two-nodes.yaml", FAKE_KERNEL="bridge")
    assert result.returncode == 3
    assert ready.calls("weavelab") == []


def test_reports_of_an_earlier_run_do_not_pass_for_this_one(ready):
    reports = ready.root / "build" / "reports"
    reports.mkdir(parents=True)
    (reports / "report.html").write_text("old")
    result = ready.run("make", "scenario", FAKE_WEAVELAB="3")
    assert not (reports / "report.html").exists()
    assert "reports:" not in result.stdout


def test_make_test_checks_runs_one_scenario_and_ends_with_pytest(ready):
    result = ready.run("make", "test", PYTEST_ARGS="--maxfail=1")
    assert result.returncode == 0, result.stderr
    acting = [call.split()[0] for call in ready.calls() if call.split()[0] in {"ruff", "mypy", "weavelab", "pytest"}]
    assert list(dict.fromkeys(acting)) == ["ruff", "mypy", "weavelab", "pytest"]
    assert ready.calls()[-1] == "pytest -p no:cacheprovider --numprocesses=2 --maxfail=1"


def test_when_tests_fail_pytests_closing_line_stays_the_last(ready):
    ready.fake(str(ready.venv / "bin" / "pytest"), 'echo "== 1 failed in 0.1s =="; exit 1')
    result = ready.run("make", "test")
    assert result.returncode == 1
    assert result.stdout.splitlines()[-1] == "== 1 failed in 0.1s =="
    assert result.stderr == ""


def test_lint_is_silent_on_success_and_every_check_can_fail_it(ready):
    result = ready.run("make", "lint")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    for name in ("FAKE_RUFF", "FAKE_CODESPELL"):
        assert ready.run("make", "lint", **{name: "1"}).returncode == 2


def test_an_ordinary_user_runs_labs_through_sudo_and_keeps_what_she_set(ready):
    ready.fake("sudo", 'exec "$@"')
    result = ready.run("make", "up", FAKE_UID="1000", NO_COLOR="1")
    assert result.returncode == 0, result.stderr
    [up] = [call for call in ready.calls("sudo") if "weavelab" in call]
    assert "NO_COLOR=1" in up
    assert "PYTHONDONTWRITEBYTECODE=1" in up
    assert up.endswith("/bin/weavelab up topologies/two-nodes.yaml")


def test_down_takes_one_lab_or_all(ready):
    ready.run("make", "down")
    ready.run("make", "down", "LAB=racks")
    assert ready.calls("weavelab") == ["weavelab down --all", "weavelab down racks"]
