"""What a command may do here is found out before it begins, and told with the way to get it."""

import errno
import os
from pathlib import Path

import pytest

from plugin.core.errors import MissingError
from testbed.machine import privileges
from testbed.machine.privileges import CHANGE, ENTER, LOOK, REMOVE, Work, check_machine

ALL = 0x1FF_FFFF_FFFF
WORKS = [LOOK, ENTER, REMOVE, CHANGE]
WHOLE = "         0          0 4294967295\n"
BITS = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_KILL": 5,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
}  # capabilities(7)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch):
    """Root with these capabilities, in a user namespace with this map."""

    def be(*, user: int = 0, capabilities: int = ALL, uid_map: str = WHOLE) -> None:
        text = {"status": f"Name:\tx\nCapPrm:\t0\nCapEff:\t{capabilities:016x}\nCapBnd:\t0\n", "uid_map": uid_map}
        monkeypatch.setattr(privileges, "_proc", text.__getitem__)
        monkeypatch.setattr(os, "geteuid", lambda: user)

    return be


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.what)
def test_root_with_all_capabilities_may_do_everything(work: Work, process) -> None:
    process()
    check_machine(work)


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.what)
def test_an_ordinary_user_is_told_to_use_sudo(work: Work, process) -> None:
    process(user=1000)
    with pytest.raises(MissingError, match=f"needs root to {work.what}, found the user with the id 1000") as caught:
        check_machine(work)
    assert "sudo " in caught.value.hint


@pytest.mark.parametrize(("work", "name"), [(work, name) for work in WORKS for name in BITS])
def test_a_capability_that_the_work_needs_is_named_and_no_other(work: Work, name: str, process) -> None:
    process(capabilities=ALL & ~(1 << BITS[name]))
    if name not in work.capabilities:
        check_machine(work)
        return
    with pytest.raises(MissingError, match=f"needs {name} to {work.what}, found root without it") as caught:
        check_machine(work)
    assert "docker run --privileged" in caught.value.hint


def test_an_ordinary_container_is_told_all_that_it_lacks(process) -> None:
    process(capabilities=0x0000_0000_A804_25FB)  # what docker gives
    with pytest.raises(MissingError, match=r"needs CAP_NET_ADMIN, CAP_SYS_PTRACE and CAP_SYS_ADMIN to .* without them"):
        check_machine()


def test_root_of_a_user_namespace_is_not_the_machines_root(process) -> None:
    process(uid_map="         0       1000          1\n         1     100000      65536\n")
    with pytest.raises(MissingError, match="found root of a user namespace"):
        check_machine(LOOK)


def test_a_machine_without_proc_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError(2, "No such file")))
        with pytest.raises(MissingError, match="/proc/self/status, found: No such file"):
            check_machine()


def test_what_the_kernel_refuses_later_is_told_with_what_is_missing(process) -> None:
    process(capabilities=ALL & ~(1 << 21))
    told = privileges.refusal(PermissionError(errno.EPERM, "setns: Operation not permitted"))
    assert told.message == (
        "the kernel refused what weavelab asked of it: setns: Operation not permitted (this process lacks CAP_SYS_ADMIN)"
    )
    process()
    assert "lacks" not in privileges.refusal(PermissionError(errno.EPERM, "Operation not permitted", "/etc/x")).message


def test_the_kernel_is_asked_too_and_its_other_troubles_are_left_to_who_makes_the_lab(
    monkeypatch: pytest.MonkeyPatch, process
) -> None:
    process()
    answers = [PermissionError(errno.EPERM, "unshare: Operation not permitted"), OSError(errno.ENODEV, "mount"), None]

    def asked() -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    monkeypatch.setattr(privileges, "_make_and_forget", asked)
    with pytest.raises(MissingError, match="refused what weavelab asked of it: unshare"):
        privileges.try_kernel()
    privileges.try_kernel()
    privileges.try_kernel()
