"""For all tests: what needs root is skipped with a reason and counted; what is random says its seed.

`WEAVELAB_FUZZ=1` makes hypothesis hunt with a new seed, which the first lines of the run name; `WEAVELAB_SEED=<number>`
repeats that hunt. Without it every run tries the same examples, so that a gate never fails by chance.
"""

import os
import secrets
import signal

import pytest

GROUPS = {
    "lab": ("tests/lab/", "tests/docs/test_ci.py"),  # labs are judged by what they take, and share their names
    "docs": ("tests/docs/",),  # these have machines of their own (tests/support/place.py): they never meet the labs
    "simulation": ("tests/sim/",),  # it uses all processors by itself
}
"""What one worker of pytest-xdist runs from beginning to end, the longest first; of other tests each file is a group."""

NEEDS_ROOT = {"kernel": "makes network namespaces", "lab": "runs whole labs"}
SEED_BYTES = 4
FUZZ_FACTOR = 20


def hunting() -> bool:
    return os.environ.get("WEAVELAB_FUZZ", "") not in {"", "0"}


@pytest.hookimpl(tryfirst=True)  # before hypothesis reads its option
def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts what runs in its background like this; tests that press Ctrl-C need programs that hear it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE", "GITLAB_CI"):
        os.environ.pop(name, None)  # runs that are tested are none of the job that the tests themselves may be
    if hunting():
        # In the environment, so that the workers of pytest-xdist hunt with the same one.
        seed = os.environ.setdefault("WEAVELAB_SEED", str(int.from_bytes(secrets.token_bytes(SEED_BYTES))))
        if not config.getoption("hypothesis_seed", None):
            config.option.hypothesis_seed = seed


def pytest_report_header() -> str:
    if not hunting():
        return "hypothesis: the same examples in every run; WEAVELAB_FUZZ=1 hunts with new ones"
    return f"hypothesis: hunting, WEAVELAB_FUZZ=1 WEAVELAB_SEED={os.environ['WEAVELAB_SEED']} repeats it"


def pytest_pycollect_makemodule(module_path) -> None:
    """Set hypothesis up just before the first module that uses it: its import costs half a second."""
    if b"from hypothesis import" in module_path.read_bytes():
        from hypothesis import settings

        default = settings.get_profile("default")
        common = settings(default, deadline=None, print_blob=True)
        settings.register_profile("gate", common, derandomize=True)
        settings.register_profile("hunt", common, max_examples=FUZZ_FACTOR * default.max_examples)
        settings.load_profile("hunt" if hunting() else "gate")


def group_of(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    return next((group for group, folders in GROUPS.items() if file.startswith(folders)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Groups by folder; pytest-xdist's own `loadgroup` writes into names that pytest 9 has read already."""
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False  # the order of collection, below
    return Grouped(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, as not root, what needs root; the summary line `-ra` groups them by reason."""
    if hasattr(config, "workerinput"):
        order = [*GROUPS]
        items.sort(key=lambda item: order.index(group) if (group := group_of(item.nodeid)) in order else len(order))
    if os.geteuid() == 0:
        return
    for item in items:
        for name, why in NEEDS_ROOT.items():
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=f"needs root: {why}"))


@pytest.hookimpl(trylast=True)  # behind the list of reasons
def pytest_terminal_summary(terminalreporter) -> None:
    """A green run as an ordinary user must not pass for a full one: how much of it was left out is its last line."""
    skipped = [report for report in terminalreporter.getreports("skipped") if "needs root" in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} tests need root and were skipped: sudo make test-kernel test-lab", yellow=True
        )
