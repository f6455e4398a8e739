"""Installs files on a machine, upgrades and removes them, by the record of what is ours (`record`).

Read `plan_changes` (decides, touches nothing), then `install` and `uninstall`. Both can be killed at any moment: the
same command, or the other one, given again, finishes. A file that we have not written is never overwritten or removed,
unless the person says so, and then it is put aside and comes back at the end.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Final, Literal

from testbed.deploy.machine import Found, Kind, Machine, digest_of, temporary
from testbed.deploy.node import NodeFile
from testbed.deploy.record import ANY, RECORD_PATH, Entry, Record, folders_of, parse_record, render_record
from testbed.deploy.transport import DeployError

SAVED_SUFFIX: Final = ".before-weavelab"
"""No runtime reads a file whose name ends so."""

_RECORD_FOLDER: Final = RECORD_PATH.rpartition("/")[0]
_RECORD_MODE: Final = 0o600
"""The digest of a configuration with a password in it helps whoever guesses passwords."""

Verb = Literal["write", "replace", "same", "kept", "save", "remove"]


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done with one path; `save`: put aside what is there, then write."""

    verb: Verb
    path: str
    part: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """An installation, decided.

    Attributes:
        files: What shall be there in the end.
        changes: One a file, and one for each that goes.
        record: What is known to be ours now.
    """

    files: tuple[NodeFile, ...]
    changes: tuple[Change, ...]
    record: Record

    def does(self, *verbs: Verb) -> list[Change]:
        """The changes of some kinds."""
        return [change for change in self.changes if change.verb in verbs]

    @property
    def anything(self) -> bool:
        """Whether there is anything to do."""
        return not self.record.complete or bool(self.does("write", "replace", "save", "remove"))


@dataclass(slots=True)
class Removal:
    """What a removal did."""

    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)


def read_record(machine: Machine) -> Record | None:
    """The record of a machine; None when nothing of ours is installed there.

    Raises:
        DeployError: It is damaged.
    """
    content = machine.read(RECORD_PATH)
    return None if content is None else parse_record(content, machine.name)


def plan_changes(machine: Machine, files: Sequence[NodeFile], parts: Collection[str], *, force: bool) -> Plan:
    """Decide what an installation would do.

    Args:
        machine: Where.
        files: What shall be there.
        parts: The parts that they are the whole of; what the record has of others stays.
        force: Put files aside that are not ours, instead of refusing.

    Raises:
        DeployError: Files are in the way that are not ours.
    """
    record = read_record(machine) or Record()
    changes, foreign = [], []
    for wanted in files:
        found = machine.observe(wanted.path)
        verb = _verb(wanted, found, record.files.get(wanted.path))
        if verb is None:
            foreign.append((wanted, found))
            verb = "save"
        elif verb == "kept" and force:
            verb = "save"
        changes.append(Change(verb, wanted.path, wanted.part))
    if foreign and not force:
        raise _foreign(machine, foreign, record)
    for change in changes:
        if change.verb == "save":
            _refuse_unmovable(machine, change.path)
    there = {wanted.path for wanted in files}
    for path, entry in record.files.items():
        if entry.part in parts and path not in there:
            found = machine.observe(path)
            ours = found.kind is Kind.ABSENT or entry.owns(found.digest)
            changes.append(Change("remove" if ours else "kept", path, entry.part))
    return Plan(tuple(files), tuple(changes), record)


def _verb(wanted: NodeFile, found: Found, entry: Entry | None) -> Verb | None:
    """None: somebody else's file is in the way."""
    if found.kind is Kind.ABSENT:
        return "write"
    if found.kind is Kind.FILE and wanted.remade:
        return "same"
    if found.kind is Kind.FILE and found.digest == digest_of(wanted.file.content):
        return "same" if found.mode == wanted.file.mode else "replace"
    if found.kind is not Kind.FILE or entry is None:
        return None
    if wanted.merged or entry.owns(found.digest):
        return "replace"
    return "kept" if wanted.settings else None


def install(machine: Machine, plan: Plan, version: str, interpreter: str) -> None:
    """Carry a plan out; the files that have become superfluous are removed by `tidy`, after the agent is restarted.

    Raises:
        WeaveError: The machine refuses something; the same command given again goes on from there.
    """
    record, verbs = plan.record, {change.path: change.verb for change in plan.changes}
    needed = folders_of([*(wanted.path for wanted in plan.files), RECORD_PATH])
    missing = [folder for folder in needed if machine.observe(folder).kind is Kind.ABSENT]
    # The record's own folder has our name: it is ours even if a killed command had no time to say so.
    folders = tuple(sorted({*record.folders, *missing, _RECORD_FOLDER}))
    for folder in folders_of([RECORD_PATH]):
        if folder in missing:
            machine.make_folder(folder)
    # From here on the record knows everything that may come to be.
    begun = Record(version, complete=False, interpreter=interpreter, files=_to_come(plan), folders=folders)
    machine.write(RECORD_PATH, render_record(begun), _RECORD_MODE)
    for folder in missing:
        if folder not in folders_of([RECORD_PATH]):
            machine.make_folder(folder)
    for wanted in plan.files:
        verb = verbs[wanted.path]
        if verb == "save":
            machine.move(wanted.path, wanted.path + SAVED_SUFFIX)
        if verb in {"write", "replace", "save"}:
            machine.write(wanted.path, wanted.file.content, wanted.file.mode)
    machine.settle()


def _to_come(plan: Plan) -> dict[str, Entry]:
    """The record's files with all that they may contain until the end, in the order of their installation."""
    verbs = {change.path: change.verb for change in plan.changes}
    entries = dict(plan.record.files)
    for wanted in plan.files:
        known = entries.pop(wanted.path, Entry(wanted.part, ()))
        digests = () if verbs[wanted.path] == "kept" else wanted.digests
        saved = wanted.path + SAVED_SUFFIX if verbs[wanted.path] == "save" else known.saved
        entries[wanted.path] = Entry(wanted.part, tuple(dict.fromkeys((*known.digests, *digests))), saved)
    return entries


def tidy(machine: Machine, plan: Plan) -> None:
    """End an installation: remove what is superfluous now, and close the record."""
    record = read_record(machine)
    assert record is not None
    entries = dict(record.files)
    for change in plan.does("remove"):
        _remove(machine, change.path)
    wanted_paths = {wanted.path for wanted in plan.files}
    kept_paths = {change.path for change in plan.does("kept")}
    for change in plan.does("remove", "kept"):
        if change.path not in wanted_paths:
            del entries[change.path]
    for wanted in plan.files:
        if wanted.path not in kept_paths:
            entries[wanted.path] = replace(entries[wanted.path], digests=wanted.digests)
    used = set(folders_of([*entries, RECORD_PATH]))
    gone = {folder for folder in reversed(record.folders) if folder not in used and machine.remove_folder(folder)}
    folders = tuple(folder for folder in record.folders if folder not in gone)
    closed = replace(record, complete=True, files=entries, folders=folders)
    machine.write(RECORD_PATH, render_record(closed), _RECORD_MODE)
    machine.settle()


def uninstall(machine: Machine, record: Record | None) -> Removal:
    """Remove what the record names, last things first, and put back what had been put aside.

    Args:
        machine: Where.
        record: None: there is none, and only what a command left that was killed before it wrote one is removed.

    Raises:
        WeaveError: The machine refuses something; the same command given again goes on from there.
    """
    removal = Removal()
    record = record or Record(folders=(_RECORD_FOLDER,))
    for path, entry in reversed(record.files.items()):
        found = machine.observe(path)
        if found.kind is Kind.FILE and entry.owns(found.digest):
            _remove(machine, path)
            if ANY not in entry.digests:
                removal.removed.append(path)
        else:
            machine.remove(temporary(path))
            if found.kind is not Kind.ABSENT:
                removal.kept.append(path)
                continue
        if entry.saved and machine.observe(entry.saved).kind is not Kind.ABSENT:
            machine.move(entry.saved, path)
            removal.restored.append(path)
    # The record goes last but for its own folders: until then the same command can be given again.
    own = set(folders_of([RECORD_PATH]))
    by_depth = sorted(record.folders, key=lambda folder: folder.count("/"), reverse=True)
    for folder in by_depth:
        if folder not in own:
            machine.remove_folder(folder)
    _remove(machine, RECORD_PATH)
    for folder in by_depth:
        if folder in own:
            machine.remove_folder(folder)
    machine.settle()
    return removal


def _remove(machine: Machine, path: str) -> None:
    machine.remove(path)
    machine.remove(temporary(path))


def _refuse_unmovable(machine: Machine, path: str) -> None:
    """See that what is at the path can be put aside.

    Raises:
        DeployError: It is a folder, or something has been put aside there before.
    """
    if machine.observe(path).kind is Kind.FOLDER:
        raise DeployError(
            f"wanted to write {path} on {machine.name}, found a folder there; nothing was changed",
            hint="move it away: --force does that with files only",
        )
    if machine.observe(path + SAVED_SUFFIX).kind is not Kind.ABSENT:
        raise DeployError(
            f"wanted to put {path} on {machine.name} aside, found one that was put aside before; nothing was changed",
            hint=f"move {path} or {path}{SAVED_SUFFIX} away",
        )


def _foreign(machine: Machine, foreign: Sequence[tuple[NodeFile, Found]], record: Record) -> DeployError:
    wanted, found = foreign[0]
    more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
    if wanted.path in record.files:
        what = "one that was changed since weavelab wrote it"
    else:
        what = f"{found.kind.value} there that weavelab did not write"
    name = PurePosixPath(wanted.path).name
    return DeployError(
        f"wanted to write {wanted.path} on {machine.name}, found {what}{more}; nothing was changed",
        hint=f"move it away, or --force: it becomes {name}{SAVED_SUFFIX}, and --uninstall brings it back",
    )
