"""THE LIFE OF A LAB, read `bring_up` downwards: machine, underlay and nodes, deployment, agents, runtimes, pods.

Each phase announces itself in the state file before it begins, so that whatever happens, `testbed.life.down` knows what
there can be. If anything goes wrong, Ctrl-C included, the lab is taken down again before the error is passed on.
"""

import contextlib
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from plugin.core.errors import CheckError, InputError, MissingError
from testbed.deploy.interpreter import plugin_interpreter
from testbed.deploy.local import LocalTransport
from testbed.deploy.plan import DeployPlan, plan_deploy
from testbed.deploy.transport import deploy
from testbed.kubelet import needs
from testbed.kubelet.plan import with_runtime
from testbed.lab import state
from testbed.lab.paths import LabPaths
from testbed.lab.progress import Progress, Silent
from testbed.lab.running import Lab
from testbed.lab.users import Use, users_of
from testbed.life import agents, down, podset
from testbed.machine import interrupts
from testbed.machine.privileges import check_machine, is_refusal, refusal, try_kernel
from testbed.nodes import engine
from testbed.nodes.nodespace import check_no_chroot
from testbed.topology.model import Topology
from testbed.topology.underlay import UnderlayPlan, plan_underlay

READY_S: Final = 30.0
READY_S_PER_NODE: Final = 1.0
"""How long agents may take to be ready and to see each other: a limit, not a wait. Many start on few cores."""

_SOCKET_PATH_MAX: Final = 107
"""Bytes in `sun_path`, without the NUL that ends it."""

_NO_KERNEL_SUPPORT: Final = (95, 97)
"""EOPNOTSUPP and EAFNOSUPPORT: the kernel does not know that kind of link, or of socket."""


def bring_up(  # noqa: PLR0913 - each has its reason below, and all but the topology a value that most want
    topology: Topology,
    *,
    name: str | None = None,
    topology_file: str = "",
    progress: Progress | None = None,
    keep_on_failure: bool = False,
    owned: bool = False,
    before_removal: Callable[[Lab], None] | None = None,
    any_name: bool = False,
    use: Use | None = None,
) -> Lab:
    """Bring a lab up; returns when every agent is ready, sees every other, and knows every pod.

    Args:
        topology: What to build; `testbed.topology.load` has checked it.
        name: The lab's name; the topology's when None.
        topology_file: Where the topology came from, for `status`.
        progress: Who is told about it.
        keep_on_failure: Leave what there is for inspection when something goes wrong, instead of taking it down.
        owned: This process takes the lab down before it ends; should it be killed, the lab is a leftover.
        before_removal: Who looks at what there is when something has gone wrong, before it is taken down.
        any_name: When the name is taken, take the next one: with a number behind it.
        use: Begun as soon as the name is the lab's: from then on `down` asks before it takes the lab away.

    Raises:
        InputError: A lab of that name is up, or a namespace name is taken.
        MissingError: The machine lacks something, does not let us, or is only a chroot.
        CheckError: An agent does not become ready, or a pod cannot be attached.
    """
    check_machine()
    try_kernel()
    check_no_chroot()
    needs.check_machine(topology)
    wanted = name or topology.name
    order = _Order(
        topology,
        topology_file=topology_file,
        progress=progress or Silent(),
        keep_on_failure=keep_on_failure,
        before_removal=before_removal,
        owned=owned,
        use=use,
        instead_of=wanted if any_name else "",
    )
    for candidate in state.names_like(wanted) if any_name else (wanted,):
        try:
            return _bring_up_as(LabPaths(candidate), order)
        except (state.NameTakenError, state.BusyError) as error:
            if any_name:
                continue
            if builders := users_of(LabPaths(candidate)):
                raise state.NameTakenError(
                    f"a lab named {candidate} is in use already: {', '.join(map(str, builders))}",
                    hint="`--name` gives the new one another name",
                ) from error
            raise
    raise InputError(f"every name like {wanted} is taken", hint="weavelab down --all, or another --name")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What `bring_up` was asked for; `instead_of` is the name that was wanted when any other will do."""

    topology: Topology = field(kw_only=False)
    topology_file: str
    progress: Progress
    keep_on_failure: bool
    before_removal: Callable[[Lab], None] | None
    owned: bool
    use: Use | None
    instead_of: str


def _bring_up_as(paths: LabPaths, order: _Order) -> Lab:
    with state.locked(paths, create=True), interrupts.raised() as signals:
        try:
            _clear_leftovers(paths, order)
            build = _Build(paths, order, signals)
            if order.use is not None:
                order.use.begin(paths)
        except BaseException:
            if order.use is not None:
                order.use.end()
            down.remove_if_empty(paths)
            raise
        try:
            return build.run()
        except BaseException as error:
            _after_failure(build, error, keep=order.keep_on_failure, look=order.before_removal)
            raise


def _clear_leftovers(paths: LabPaths, order: _Order) -> None:
    """Make room: refuse when the lab is up or in use, remove what a killed or failed command left.

    A failed lab that somebody keeps to look inside gives way to a new one of its name, but not where any name will do.
    """
    kept = {"ready", "failed"} if order.instead_of else {"ready"}
    try:
        found = state.read(paths)
    except CheckError:
        found = None
        leftovers = True
    else:
        leftovers = found is not None or any(paths.directory.iterdir())
    in_use = users_of(paths)
    if found is not None and (in_use or (found.phase in kept and not state.is_abandoned(paths, found))):
        raise state.NameTakenError(
            f"a lab named {paths.lab} is up already",
            hint=f"`weavelab down {paths.lab}` ends it; `--name` gives the new one another name",
        )
    if paths.lab != (order.instead_of or paths.lab):
        order.progress.note(f"the name {order.instead_of} is taken: the lab of this run is called {paths.lab}")
    if leftovers:
        order.progress.note(f"removing what an earlier command left of lab {paths.lab}")
        with interrupts.held_off():
            down.remove(paths, keep_directory=True)


def _check_socket_paths(paths: LabPaths, topology: Topology) -> None:
    """See that the agents' sockets can be reached: the kernel knows no longer paths of sockets."""
    socket = paths.node_runtime_socket if topology.kubelet == "containerd" else paths.node_socket
    longest = max((str(socket(node)) for node in topology.nodes), key=len)
    found = len(os.fsencode(longest))
    if found > _SOCKET_PATH_MAX:
        raise InputError(
            f"wanted paths of sockets of at most {_SOCKET_PATH_MAX} bytes, found {found}: {longest}",
            hint="WEAVELAB_RUN names a folder with a shorter path, or leave it out",
        )


class _Build:
    """One bring-up: the phases share the plan and the state."""

    def __init__(
        self,
        paths: LabPaths,
        order: _Order,
        signals: interrupts.Interrupts,
    ) -> None:
        self.paths = paths
        self.signals = signals
        self.topology = topology = order.topology
        self.underlay: UnderlayPlan = plan_underlay(topology)
        self.progress = order.progress
        _check_socket_paths(paths, topology)
        names = engine.members(self.underlay, tuple(topology.pods))
        engine.check_names_free(paths, names)
        self.state = state.new_state(
            paths, topology, topology_file=order.topology_file, members=names, owned=order.owned
        )

    def run(self) -> Lab:
        """All phases, in order."""
        self.make_nodes()
        plans = self.deploy_files()
        self.start_agents(plans)
        self.await_agents()
        self.start_runtimes(plans)
        self.attach_pods()
        self.await_pods()
        self.announce("", phase="ready")
        return Lab.of(self.state)

    def announce(self, step: str, *, phase: state.Phase = "building") -> None:
        """Write the state before the step begins; a step does not begin when the person wants no more."""
        self.signals.check()
        self.state = msgspec.structs.replace(self.state, step=step, phase=phase)
        state.write(self.paths, self.state)

    @property
    def lab(self) -> Lab:
        """The lab as far as it is built."""
        return Lab.of(self.state)

    def make_nodes(self) -> None:
        """Namespaces, switches, cables, addresses."""
        self.announce("nodes")
        self.progress.phase("nodes", len(self.topology.nodes))
        try:
            engine.build(self.paths, self.underlay, done=self.progress.advance_to)
            engine.write_neighbours(self.paths, self.underlay)
        except OSError as error:
            raise _kernel_refusal(error) from error

    def deploy_files(self) -> list[DeployPlan]:
        """Plugin, conflist and agent configuration onto every node."""
        self.announce("deploy")
        self.progress.phase("deploy", len(self.topology.nodes))
        plans = plan_deploy(
            self.topology,
            self.underlay,
            self.paths.lab,
            interpreter=plugin_interpreter(),
            password=_password(self.paths, self.topology),
        )
        plans = with_runtime(plans, self.topology)
        for count, plan in enumerate(plans, start=1):
            deploy(plan, LocalTransport(self.paths.node_space(plan.node)))
            self.progress.advance_to(count)
        return plans

    def start_agents(self, plans: list[DeployPlan]) -> None:
        """One agent process a node."""
        self.announce("agents")
        self.progress.phase("agents", len(self.topology.nodes))
        started = agents.start(self.paths, plans)
        self.state = msgspec.structs.replace(self.state, processes=started)
        state.write(self.paths, self.state)

    def await_agents(self) -> None:
        """Until every agent is ready and sees every other."""
        agents.await_mesh(self.lab, deadline_s=self._deadline_s(), progress=self.progress)

    def start_runtimes(self, plans: list[DeployPlan]) -> None:
        """A containerd on each node, where the topology asks for one, and its image."""
        if self.topology.kubelet != "containerd":
            return
        from testbed.kubelet import daemon  # noqa: PLC0415 - gRPC is loaded only by labs that use it

        self.announce("runtimes")
        self.progress.phase("runtimes", len(self.topology.nodes))
        started = daemon.start(self.paths, plans)
        self.state = msgspec.structs.replace(self.state, processes=(*self.state.processes, *started))
        state.write(self.paths, self.state)
        daemon.prepare(self.paths, started, done=self.progress.advance_to)

    def attach_pods(self) -> None:
        """Every pod: a sandbox, then the CNI chain of its node."""
        if not self.topology.pods:
            return
        self.announce("pods")
        self.progress.phase("pods", len(self.topology.pods))
        attached = podset.attach_all(self.paths, self.topology, progress=self.progress)
        self.state = msgspec.structs.replace(self.state, pods=attached)
        state.write(self.paths, self.state)

    def await_pods(self) -> None:
        """Until every agent knows every pod."""
        self.progress.phase("endpoints", len(self.topology.nodes))
        agents.await_endpoints(self.lab, deadline_s=self._deadline_s(), progress=self.progress)

    def _deadline_s(self) -> float:
        return READY_S + READY_S_PER_NODE * len(self.topology.nodes)


def _password(paths: LabPaths, topology: Topology) -> str:
    """What the agents of the lab seal their messages with; kept in the lab's folder for whoever adds an agent."""
    password = secrets.token_hex(32) if topology.password is None else topology.password
    paths.password_file.unlink(missing_ok=True)
    if password:
        file = os.open(paths.password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "w", encoding="utf-8") as opened:
            opened.write(password + "\n")
    return password


def _after_failure(
    build: _Build, error: BaseException, *, keep: bool, look: Callable[[Lab], None] | None = None
) -> None:
    """Take the lab down, or mark it as kept; nothing here may hide the error itself."""

    def tell(text: str) -> None:
        with contextlib.suppress(OSError, SystemExit):  # nobody may be there to read it: the lab goes all the same
            build.progress.note(text)

    with interrupts.held_off():
        if look is not None:
            look(build.lab)
        if keep and not isinstance(error, KeyboardInterrupt):
            state.write(build.paths, msgspec.structs.replace(build.state, phase="failed"))
            tell(f"kept for inspection; `weavelab down {build.paths.lab}` removes it")
            return
        if isinstance(error, KeyboardInterrupt):
            tell("interrupted: taking the lab down")
        if isinstance(error, state.NameTakenError):  # the names below /run/netns are somebody else's
            build.state = msgspec.structs.replace(build.state, netns_names=())
            state.write(build.paths, build.state)
        try:
            down.remove(build.paths)
        except CheckError as failure:
            tell(f"taking the lab down failed as well: {failure.message}")


def _kernel_refusal(error: OSError) -> Exception:
    if error.errno in _NO_KERNEL_SUPPORT:
        return MissingError(
            f"the kernel cannot make the links a lab consists of: {error}",
            hint="it needs veth, bridge and vxlan (modprobe veth bridge vxlan)",
        )
    if is_refusal(error):
        return refusal(error)
    return CheckError(f"the lab could not be built: {error}", hint="the kernel's log (dmesg) may say more")
