"""What goes onto a node: files, and the agent that is started with them. Pure: renders text, writes nothing.

/opt/cni/bin/weave-net              the plugin, with an absolute interpreter that needs no environment
/etc/cni/net.d/10-weave.conflist    tells the runtime to call it
/etc/weave/agent.json               tells the agent who it is and where its peers are
"""

import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import plugin
from plugin.core.errors import InputError
from plugin.executables import plugin_executable, tool_executable
from testbed.machine.checkout import TEMPLATES
from testbed.topology.model import Topology
from testbed.topology.underlay import UnderlayPlan

if TYPE_CHECKING:
    import jinja2


PLUGIN_PATH: Final = "/opt/cni/bin/weave-net"
CHAIN_PATH: Final = "/etc/cni/net.d/10-weave.conflist"
CONFIG_PATH: Final = "/etc/weave/agent.json"
_LOG_PATH: Final = "/var/log/weave/agent.log"
TOOLS_PATH: Final = "/opt/weave/bin"
"""Where the command `weave` is on a node; `weavelab exec` and the prompt find it there."""

SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class DeployFile:
    """A file on the node.

    Attributes:
        path: Absolute, on the node.
        content: The whole of it.
        mark: What a file of ours at that path contains; a file without it is somebody else's and is not overwritten.
        mode: Its permissions.
    """

    path: str
    content: bytes
    mark: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Service:
    """A program that is started and left running.

    Attributes:
        argv: The program by its absolute path, and its arguments.
        environment: All of its environment.
        log: The file on the node that takes its output; appended to.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    log: str


@dataclass(frozen=True, slots=True)
class DeployPlan:
    """Everything one node gets; `runtime` is its container runtime, None where pods are made without one."""

    node: str
    files: tuple[DeployFile, ...]
    agent: Service
    runtime: Service | None = None


def plan_deploy(
    topology: Topology, underlay: UnderlayPlan, cluster: str, *, interpreter: Path, password: str = ""
) -> list[DeployPlan]:
    """The plan of every node of a topology, in its order.

    Args:
        topology: The topology.
        underlay: Its addresses.
        cluster: The name that the agents know each other by: the lab's.
        interpreter: What runs the CNI plugin (`testbed.deploy.interpreter.plugin_interpreter`).
        password: What the agents seal their messages with; empty for none.
    """
    environment = _environment()
    nodes = [underlay.host(name) for name in topology.nodes]
    # One address is all that an agent is told of the others; the first of them is told none.
    first = str(nodes[0].uplink.address.ip)
    executable, chain = plugin_file(interpreter), chain_file()
    tool = tool_file(interpreter, TOOLS_PATH)
    plans = []
    for node in nodes:
        config = render(
            "agent.json.j2",
            name=node.name,
            uplink=node.uplink.ifname,
            range=topology.network.range,
            vni=topology.network.vni,
            peers=[] if node is nodes[0] else [first],
            initial_peers=len(nodes),
            cluster=cluster,
            repair=topology.agent.repair,
            password=password,
        )
        # 0600: it may hold the password.
        settings = DeployFile(path=CONFIG_PATH, content=config.encode(), mark=b'"api_socket"', mode=0o600)
        files = (executable, chain, settings, tool)
        plans.append(DeployPlan(node=node.name, files=files, agent=agent_service(environment)))
    return plans


def plugin_file(interpreter: Path) -> DeployFile:
    """The executable that container runtimes call."""
    content = plugin_executable(str(interpreter))
    return DeployFile(path=PLUGIN_PATH, content=content, mark=b"weave-net", mode=0o755)


def chain_file() -> DeployFile:
    """What tells a runtime to call it."""
    return DeployFile(path=CHAIN_PATH, content=render("10-weave.conflist.j2").encode(), mark=b'"weave-net"')


def tool_file(interpreter: Path, folder: str) -> DeployFile:
    """The command `weave`, in a folder of the node."""
    content = tool_executable(str(interpreter))
    return DeployFile(path=f"{folder}/weave", content=content, mark=b"weave: ask this node", mode=0o755)


def agent_service(environment: Mapping[str, str]) -> Service:
    """How the agent of a node is started: by this installation's own interpreter."""
    # -P: the working directory is no place to find modules in.
    argv = (sys.executable, "-P", "-m", "plugin.agent", "--config", CONFIG_PATH)
    return Service(argv=argv, environment=environment, log=_LOG_PATH)


def agent_service_of() -> Service:
    """How any node's agent is started here."""
    return agent_service(_environment())


def _environment() -> dict[str, str]:
    """The agent's environment: nothing of the caller's shell, and where our code is even if it is not installed."""
    code = Path(plugin.__file__ or "").resolve().parent.parent
    return {"PATH": SYSTEM_PATH, "HOME": "/root", "LANG": "C.UTF-8", "PYTHONPATH": str(code)}


def render(template: str, **values: object) -> str:
    """A file from its template.

    Raises:
        InputError: Somebody changed the template, and now it is none.
    """
    import jinja2  # noqa: PLC0415 - 0.1 s that only commands which deploy should pay

    file = TEMPLATES / template
    try:
        return _environment_of_templates().get_template(template).render(**values)
    except jinja2.TemplateSyntaxError as error:
        raise InputError(f"{file}:{error.lineno}: {error.message}") from error
    except jinja2.TemplateNotFound as error:
        raise InputError(f"wanted the template {file}, found no such file") from error
    except jinja2.TemplateError as error:
        raise InputError(f"{file}: {error.message}") from error


@functools.cache
def _environment_of_templates() -> "jinja2.Environment":
    import jinja2  # noqa: PLC0415

    loader = jinja2.FileSystemLoader(TEMPLATES)
    # JSON and text, no HTML: what needs quoting is quoted by `tojson`.
    return jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701


def parents(files: Sequence[DeployFile], service: Service) -> list[str]:
    """The folders that must exist for the plan, outermost first."""
    wanted = {str(Path(path).parent) for path in (*(file.path for file in files), service.log)}
    return sorted(wanted)
