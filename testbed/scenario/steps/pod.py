"""`pod` steps: what a kubelet does to a pod, and what has to be the same afterwards.

`restart` ends the container and starts a new one in the same sandbox: the pod keeps its address. `recreate` stops the
sandbox, stops it once more (a kubelet repeats what it is not sure of), removes it, and makes a pod of the same name.
"""

import os
import time

from plugin.link.netlink import Netlink
from plugin.link.netns import open_netns
from testbed.kubelet.choice import kubelet_of
from testbed.kubelet.kubelet import REMOVE_S
from testbed.lab.running import Lab
from testbed.life import pods
from testbed.scenario.attempt import Attempt, Run
from testbed.scenario.members import Member, concerned, exec_hint, member
from testbed.scenario.results import CommandEvidence
from testbed.topology.steps import Pod, Step


def expectation(run: Run, step: Step) -> str:
    """What the step expects, as a sentence."""
    change = _action(step)
    member(run.lab, change.on)
    if change.do == "restart":
        return f"{change.on}: a new container in the same sandbox, with the address that the pod had"
    return f"{change.on}: stopped twice and removed without an error, then made anew with an address of its own"


def extra_seconds(step: Step) -> float:  # noqa: ARG001 - one shape for all kinds
    """What the step's deadline grows by: a kubelet has its own, and does not give up halfway."""
    return REMOVE_S


def attempt(run: Run, step: Step, deadline_s: float, previous: Attempt | None) -> Attempt:  # noqa: ARG001 - one shape for all kinds
    """Do it once and judge; a second try would be another pod."""
    change = _action(step)
    before = run.lab.pods[change.on]
    began_s = time.monotonic()
    said = _restart(run, change.on) if change.do == "restart" else _recreate(run, change.on)
    after = run.lab.pods[change.on]
    found = _address(run.lab, change.on)
    problem = ""
    if found != str(after.address):
        problem = f"{change.on} is known by {after.address}, its interface has {found or 'no address'}"
    elif change.do == "restart" and found != str(before.address):
        problem = f"{change.on} had {before.address}, now it has {found}"
    evidence = CommandEvidence(
        on=change.on,
        command=change.do,
        ok=not problem,
        problem=problem,
        ended="done",
        stdout=said,
        stderr="",
        seconds=round(time.monotonic() - began_s, 3),
    )
    pod: Member = member(run.lab, change.on)
    return Attempt(
        ok=not problem,
        seen=problem or f"{', '.join(said.splitlines())}; its address is {found}",
        evidence=(evidence,),
        concerned=concerned(pod),
        next_command=exec_hint(run.lab, change.on, "ip", "address"),
        final=True,
    )


def _restart(run: Run, pod: str) -> str:
    record = run.lab.state.pods[pod]
    return kubelet_of(run.lab.paths, run.lab.topology, record.node).restart(pod, record)


def _recreate(run: Run, pod: str) -> str:
    """Remove and make the pod; the run goes on with the lab as it is then."""
    old = run.lab.pods[pod]
    run.lab = pods.recreate(run.lab, pod).lab
    new = run.lab.pods[pod]
    return f"removed {old.container_id[:12]} with {old.address}\nmade {new.container_id[:12]} with {new.address}"


def _address(lab: Lab, pod: str) -> str:
    """The IPv4 address that the pod's interface has, as the kernel says."""
    fd = open_netns(lab.pods[pod].space.net)
    try:
        kernel = Netlink(fd)
    finally:
        os.close(fd)
    with kernel:
        link = kernel.link(lab.pods[pod].ifname)
        found = [] if link is None else [address.ip for index, address in kernel.addresses() if index == link.index]
    return str(found[0]) if found else ""


def _action(step: Step) -> Pod:
    assert step.pod is not None
    return step.pod
