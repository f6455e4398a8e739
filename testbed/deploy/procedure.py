"""THE LIFE OF AN INSTALLATION, read `deploy_to` downwards: look, decide, write, start, tidy. Its end: `remove_from`."""

import importlib.metadata
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from plugin.core.errors import InputError, MissingError
from testbed.deploy import installer, service
from testbed.deploy.interpreter import Facts, choose_interpreter
from testbed.deploy.machine import Kind, Machine
from testbed.deploy.node import PARTS, TOOL_FOLDER, UNIT_PATH, Settings, comes_first, configuration, plan_node
from testbed.deploy.payload import LIBRARY
from testbed.deploy.plan import CHAIN_PATH, CONFIG_PATH, PLUGIN_PATH
from testbed.deploy.record import RECORD_PATH, Record
from testbed.deploy.transport import DeployError

Say = Callable[[str], None]

STATE: Final = "/var/lib/weave"
_PURGED: Final = (STATE, f"{STATE}/del-queue", "/run/weave")
_ANSWER_S: Final = 20.0
_NFT: Final = ("/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person wants done.

    Attributes:
        settings: What is said about the node.
        parts: What is to be installed: some of `node.PARTS`.
        interpreter: The Python to use there; None: the one that fits.
        start: Whether the agent is to be started.
        force: Whether files that are not ours are put aside.
        dry_run: Whether to say only what would be done.
    """

    settings: Settings
    parts: tuple[str, ...] = PARTS
    interpreter: Path | None = None
    start: bool = True
    force: bool = False
    dry_run: bool = False


def version() -> str:
    """Weavelab's."""
    return importlib.metadata.version("weavelab")


def deploy_to(machine: Machine, wanted: Wanted, say: Say) -> str:
    """Install, upgrade, or find that there is nothing to do.

    Returns:
        The address of the node; empty when no configuration was among the parts.

    Raises:
        WeaveError: It cannot be done; whatever is half done, the same command finishes.
    """
    wanted.settings.check()
    record = installer.read_record(machine) or Record()
    existing = _existing(machine) if CONFIG_PATH in record.files else b"{}"
    facts = choose_interpreter(
        machine,
        wanted.interpreter,
        before=record.interpreter,
        same_as_ours="agent" in wanted.parts,
        uplink=wanted.settings.uplink or "",
        towards=_towards(wanted.settings),
    )
    _check_machine(machine, facts, wanted)
    config = None
    if "config" in wanted.parts:
        config = _configuration(machine, wanted.settings, facts, existing)
    files = plan_node(wanted.parts, interpreter=facts.interpreter, config=config, version=version())
    plan = installer.plan_changes(machine, files, wanted.parts, force=wanted.force)
    for line in describe(plan, dry_run=wanted.dry_run):
        say(line)
    _warn(machine, facts, wanted, say)
    address = str(json.loads(config).get("node_address") or facts.address) if config is not None else ""
    if wanted.dry_run:
        return address
    if plan.anything:
        installer.install(machine, plan, version(), str(facts.interpreter))
    _start(machine, wanted, plan, say)
    if plan.anything:
        installer.tidy(machine, plan)
    return address


def remove_from(machine: Machine, *, purge: bool, dry_run: bool, say: Say) -> None:
    """Remove what was installed, and with `purge` what the agent has written down, too.

    Raises:
        WeaveError: It cannot be done; the same command goes on from there.
    """
    record = installer.read_record(machine)
    if record is None:
        say(f"weavelab has installed nothing on {machine.name} ({RECORD_PATH} is not there)")
        if not dry_run:
            installer.uninstall(machine, None)
    elif dry_run:
        for line in _describe_removal(machine, record):
            say(line)
    else:
        _remove(machine, record, say, purge=purge)
    if purge and record is None and not dry_run:
        _refuse_running(machine)
        _purge(machine, say)


def _remove(machine: Machine, record: Record, say: Say, *, purge: bool) -> None:
    managed = UNIT_PATH in record.files and service.has_systemd(machine)
    if managed and machine.observe(UNIT_PATH).kind is not Kind.ABSENT:
        service.stop_agent(machine, say)
    _refuse_running(machine)
    if purge:  # before the record and its folders go
        _purge(machine, say)
    removal = installer.uninstall(machine, record)
    if managed:
        service.forget_unit(machine)
    say(f"{_count(len(removal.removed), 'file')} removed from {machine.name}")
    for path in removal.restored:
        say(f"brought back   {path}, which was there before")
    for path in removal.kept:
        say(f"kept           {path}: it was changed since weavelab wrote it")
    if not purge and machine.observe(STATE).kind is Kind.FOLDER:
        say(f"kept           {STATE}: what the agent has written down (--purge removes it)")


def _describe_removal(machine: Machine, record: Record) -> list[str]:
    lines = []
    for path, entry in reversed(record.files.items()):
        if not path.startswith(LIBRARY):
            found = machine.observe(path)
            ours = found.kind is Kind.FILE and entry.owns(found.digest)
            lines.append(f"would {'remove' if ours else 'leave':<14} {path}")
    if any(path.startswith(LIBRARY) for path in record.files):
        lines.append(f"would {'remove':<14} {LIBRARY}")
    return lines


def describe(plan: installer.Plan, *, dry_run: bool) -> list[str]:
    """What an installation does, a line a file; the agent's code is one line."""
    words = {"write": "write", "replace": "replace", "save": "put aside and write", "remove": "remove", "kept": "leave"}
    lines, code = [], dict.fromkeys(("write", "replace", "remove", "same"), 0)
    unchanged = 0
    for change in plan.changes:
        if change.path.startswith(LIBRARY) and change.verb in code:
            code[change.verb] += 1
        elif change.verb == "same":
            unchanged += 1
        else:
            why = " (changed since weavelab wrote it; --force replaces it)" if change.verb == "kept" else ""
            lines.append(f"{words[change.verb]:<14} {change.path}{why}")
    for verb in ("write", "replace", "remove"):
        if code[verb]:
            lines.insert(0, f"{verb:<14} {LIBRARY} ({_count(code[verb], 'file')})")
    if unchanged:
        lines.append(f"{'as it should be':<14} {_count(unchanged, 'file')}")
    return [f"would {line}" for line in lines] if dry_run else lines


def _existing(machine: Machine) -> bytes:
    """The agent's configuration that is there; whatever is not said anew stays as it is in it.

    Raises:
        InputError: Somebody has changed it, and now it is none.
    """
    content = machine.read(CONFIG_PATH)
    if content is None:
        return b"{}"
    try:
        data = json.loads(content)
    except ValueError as error:
        raise InputError(
            f"wanted JSON in {CONFIG_PATH} on {machine.name}, found: {error}", hint="repair it, or move it away"
        ) from None
    if not isinstance(data, dict):
        raise InputError(f"wanted a JSON object in {CONFIG_PATH} on {machine.name}", hint="repair it, or move it away")
    return content


def _configuration(machine: Machine, settings: Settings, facts: Facts, existing: bytes) -> bytes:
    """The text of the agent's configuration; letter by letter the one that is there if it says the same."""
    known = json.loads(existing)
    config = configuration(_completed(settings, facts, known, machine), known)
    if settings.address is None and known.get("uplink") and not known.get("node_address"):
        del config["node_address"]  # somebody has taken it out: the agent follows its uplink
    return existing if config == known else json.dumps(config, indent=2).encode() + b"\n"


def _towards(settings: Settings) -> str:
    """An address that the node has to reach: a peer's, for that way leads over the right interface."""
    others = [peer for peer in settings.peers or () if peer != settings.address]
    return others[0] if others else ""


def _check_machine(machine: Machine, facts: Facts, wanted: Wanted) -> None:
    if machine.live and not facts.root:
        raise MissingError(
            f"wanted root on {machine.name} to install there, found another user",
            hint="sudo .venv/bin/weavelab ..., or --ssh root@HOST; --root DIR gathers the files in a folder instead",
        )
    starts = machine.live and "unit" in wanted.parts and wanted.start
    if starts and all(machine.observe(path).kind is Kind.ABSENT for path in _NFT):
        raise MissingError(
            f"wanted the program nft on {machine.name}, which the agent needs; found none",
            hint="install the package nftables there; --no-start installs without it",
        )


def _completed(settings: Settings, facts: Facts, existing: Mapping[str, Any], machine: Machine) -> Settings:
    """Name and address as the machine has them, where nothing is said and nothing is known."""
    name, address = settings.name, settings.address
    if name is None and not existing.get("name"):
        name = facts.name or None
    if address is None and (settings.uplink or not existing.get("node_address")):
        address = facts.address or None
        if address is None and machine.live:
            raise InputError(
                f"wanted the address by which other nodes reach {machine.name}, found none: {facts.problem}",
                hint="give it: --address 192.168.1.10",
            )
    completed = replace(settings, name=name, address=address)
    completed.check()
    return completed


def _warn(machine: Machine, facts: Facts, wanted: Wanted, say: Say) -> None:
    if not facts.checked:
        say(f"note: {facts.interpreter} is not in {machine.name}; it has to be on the node")
    if "plugin" in wanted.parts:
        folder = CHAIN_PATH.rpartition("/")[0]
        for name in comes_first(machine.listing(folder)):
            say(f"note: {folder}/{name} comes before ours by its name: a runtime will use that network")


def _start(machine: Machine, wanted: Wanted, plan: installer.Plan, say: Say) -> None:
    if "unit" not in wanted.parts or not machine.live:
        if "unit" in wanted.parts:
            say("nothing was started in a folder; on the node: systemctl enable --now weave")
        elif set(wanted.parts) == {"plugin"}:
            say(f"runtimes find {PLUGIN_PATH}; it needs the agent at /run/weave/weave.sock")
        return
    if not wanted.start:
        say("the agent was not started: systemctl enable --now weave")
    elif service.has_systemd(machine):
        changed = not plan.record.complete or any(
            change.part != "plugin" for change in plan.does("write", "replace", "save")
        )
        service.start_agent(machine, changed=changed, say=say)
    else:
        say(f"no systemd runs on {machine.name}, so nothing was started; run as root: {service.BY_HAND}")


def _refuse_running(machine: Machine) -> None:
    """See that no agent works with what is about to go.

    Raises:
        DeployError: One does.
    """
    if machine.live and machine.run([f"{TOOL_FOLDER}/weave", "version"], timeout_s=_ANSWER_S).code == 0:
        raise DeployError(
            f"wanted to remove weavelab from {machine.name}, found that its agent runs",
            hint="stop it first; `weave reset` makes it leave the cluster as well",
        )


def _purge(machine: Machine, say: Say) -> None:
    """Remove the agent's state: files only, and the folders when they are empty then."""
    for folder in sorted(_PURGED, key=len, reverse=True):
        for name in machine.listing(folder):
            path = f"{folder}/{name}"
            if path != RECORD_PATH and machine.observe(path).kind is not Kind.FOLDER:
                machine.remove(path)
        machine.remove_folder(folder)
    say(f"removed the agent's state: {STATE}")


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")
