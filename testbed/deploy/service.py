"""Starts and stops the agent of a real machine by systemd; says what to do where there is none."""

import time
from collections.abc import Callable
from typing import Final

from testbed.deploy.machine import Kind, Machine
from testbed.deploy.node import AGENT_PATH, TOOL_FOLDER, UNIT
from testbed.deploy.plan import CONFIG_PATH
from testbed.deploy.transport import DeployError

READY_S: Final = 20.0
"""How long an agent may take until its switch has an address: more than a first agreement about addresses needs."""

_PERIOD_S: Final = 0.25
_SYSTEMCTL_S: Final = 60.0
BY_HAND: Final = f"{AGENT_PATH} --config {CONFIG_PATH}"


def has_systemd(machine: Machine) -> bool:
    """Whether systemd runs there (sd_booted(3))."""
    return machine.live and machine.observe("/run/systemd/system").kind is Kind.FOLDER


def start_agent(machine: Machine, *, changed: bool, say: Callable[[str], None]) -> None:
    """Have the agent started now and at every boot; one that runs is restarted if its files have changed.

    Raises:
        DeployError: systemd refuses, or the agent does not become ready.
    """
    _systemctl(machine, "daemon-reload")
    running = machine.run(["systemctl", "is-active", "--quiet", UNIT], timeout_s=_SYSTEMCTL_S).code == 0
    _systemctl(machine, "enable", "--quiet", UNIT)
    if running and not changed:
        say("the agent runs already")
        return
    _systemctl(machine, "restart" if running else "start", UNIT)
    say(f"the agent was {'restarted' if running else 'started'} ({UNIT})")
    wait_ready(machine)
    say("the agent is ready")


def stop_agent(machine: Machine, say: Callable[[str], None]) -> None:
    """Have the agent stopped, and not started any more; pods keep what they have.

    Raises:
        DeployError: systemd refuses.
    """
    _systemctl(machine, "disable", "--quiet", "--now", UNIT)
    say(f"the agent was stopped ({UNIT})")


def forget_unit(machine: Machine) -> None:
    """Tell systemd that the unit's file is gone."""
    _systemctl(machine, "daemon-reload")
    machine.run(["systemctl", "reset-failed", UNIT], timeout_s=_SYSTEMCTL_S)  # fails when there is nothing to forget


def wait_ready(machine: Machine, *, ready_s: float = READY_S) -> None:
    """Return when pods can be attached.

    Raises:
        DeployError: They cannot within `ready_s` seconds; the text has what the agent says.
    """
    deadline_s = time.monotonic() + ready_s
    while True:
        said = machine.run([f"{TOOL_FOLDER}/weave", "report", "ready"], timeout_s=_SYSTEMCTL_S)
        if said.code == 0 and said.text == "true":
            return
        if time.monotonic() > deadline_s:
            break
        time.sleep(_PERIOD_S)
    if said.code == 0:
        said = machine.run([f"{TOOL_FOLDER}/weave", "report", "ipam.status"], timeout_s=_SYSTEMCTL_S)
    raise DeployError(
        f"the agent on {machine.name} was started, but is not ready after {ready_s:g} s: {said.text}",
        hint=f"journalctl -u {UNIT} has its log; it goes on trying",
    )


def _systemctl(machine: Machine, *words: str) -> None:
    said = machine.run(["systemctl", *words], timeout_s=_SYSTEMCTL_S)
    if said.code != 0:
        raise DeployError(
            f"`systemctl {' '.join(words)}` on {machine.name} ended with exit code {said.code} and said: "
            f"{said.text or 'nothing'}",
            hint=f"the files are installed; journalctl -u {UNIT} may say more",
        )
