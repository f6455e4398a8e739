"""The part of `weave-net` that asks another IPAM plugin (`ipam.type`), as libcni's package invoke does.

The deployer puts this text into the executable as a string (plugin.executables): only a call that the agent
answers with a plan pays for compiling it, and it runs among the executable's own names. It has to be this process that
runs the plugin, and not the agent: here are the runtime's namespaces, its environment and its standard error, and
nobody else waits. Why, and what follows: docs/adr/0024-delegated-ipam.md.

Order and undo of an ADD: the agent makes the interface; the plugin gives addresses; the agent puts them on. Whatever
fails is followed by a whole DEL, the agent's part and the plugin's.
"""

# ruff: noqa: PLC0415 - what only a delegated call needs is imported there: other slow ways run this text too
from __future__ import annotations

import posix
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # the names of the program that this text is part of
    import _socket
    from typing import Any, TypeAlias

    from plugin.cni.weave_net import CallError, DelegationAskedError, result_of, text, words_of

    PluginCall: TypeAlias = dict[str, Any]

IPAM_FAILED = 104
NO_PLUGINS = ("", "weave-ipam", "weave-net", ".", "..")  # ourselves above all: one process would start the next
# How long a plugin may take. With what the agent may take before and after, an ADD stays below the kubelet's two
# minutes; dhcp needs many seconds when nobody answers.
PLUGIN_S = {"ADD": 30.0, "DEL": 15.0, "CHECK": 10.0, "GC": 15.0, "STATUS": 5.0}
OUTPUT_BYTES_MAX = 1 << 20
HELD: dict[bytes, _socket.socket] = {}


def carry_out(verb: bytes, stdin: bytes, netns_fd: int, plan: bytes) -> bytes:
    """Make the calls of a plan and return what is to be printed.

    Of several calls each is made, whatever became of the others; what failed is told in one error.
    """
    import json

    calls = json.loads(plan)["calls"]
    if verb == b"ADD":
        return add(calls[0], stdin, netns_fd)
    failures = []
    for call in calls:
        try:
            run_plugin(call, stdin)
        except CallError as failure:
            failures.append(failure.args)
    if len(failures) > 1:
        sentences, details = [failure[1] for failure in failures], [failure[2] for failure in failures if failure[2]]
        raise CallError(failures[0][0], "; ".join(sentences), "; ".join(details))
    if failures:
        raise CallError(*failures[0])
    return b""


def add(call: PluginCall, stdin: bytes, netns_fd: int) -> bytes:
    """The second half of an ADD; on any failure nothing is left of the first half either."""
    try:
        printed = run_plugin(call, stdin)
        return result_of(b"ADD", stdin, netns_fd, printed)
    except BaseException as failure:
        trouble = undo(stdin)
        if trouble and isinstance(failure, CallError):
            raise CallError(*with_trouble(failure, trouble)) from failure
        raise


def undo(stdin: bytes) -> str:
    """A whole DEL; what went wrong with it, or the empty string."""
    try:
        try:
            result_of(b"DEL", stdin, -1)
        except DelegationAskedError as asked:
            carry_out(b"DEL", stdin, -1, asked.args[0])
    except CallError as failure:
        code, sentence, details = spelled(failure)
        return f"the undo failed as well: {sentence} (code {code}) {details}".rstrip()
    return ""


def with_trouble(failure: CallError, trouble: str) -> tuple[int, str, str]:
    """The error with one more detail; the runtime's DEL will try the undo again."""
    code, sentence, details = spelled(failure)
    return code, sentence, f"{details}; {trouble}" if details else trouble


def spelled(failure: CallError) -> tuple[int, str, str]:
    """Code, sentence and details, also of an error that is the agent's whole object."""
    import json

    code, sentence, details = failure.args
    if code:
        return code, sentence, details
    told = json.loads(sentence)
    return told["code"], told["msg"], told.get("details", "")


def plan_without_agent(verb: bytes, stdin: bytes) -> bytes:
    """The plan of a call that needs no agent, by the configuration alone: empty when it names no other plugin."""
    import json

    ipam = json.loads(stdin).get("ipam")
    kind = ipam.get("type") if isinstance(ipam, dict) else None
    if not isinstance(kind, str) or kind in NO_PLUGINS or "/" in kind:
        return b""
    return json.dumps({"calls": [{"type": kind, "command": text(verb)}]}).encode()


# --------------------------------------------------------------------------------------------------
# One plugin


def run_plugin(call: PluginCall, stdin: bytes) -> bytes:
    """Execute a plugin with our environment and stdin, but for what the call names; return what it printed.

    Raises:
        CallError: Its own error with its code; or code 104 when it is not there or gave none.
    """
    import json

    path = find_plugin(call)
    environment = dict(posix.environ)
    environment[b"CNI_COMMAND"] = call["command"].encode()
    if "containerID" in call:
        environment[b"CNI_CONTAINERID"], environment[b"CNI_IFNAME"] = (
            call["containerID"].encode(),
            call["ifname"].encode(),
        )
        environment[b"CNI_NETNS"] = b""
    if "ipam" in call:
        stdin = json.dumps(json.loads(stdin) | {"ipam": call["ipam"]}).encode()
    if call["command"] in ("ADD", "DEL"):
        hold_attachment(json.loads(stdin)["name"].encode(), environment)
    code, printed, said = executed(call, path, environment, stdin)
    try:  # noqa: SIM105 - contextlib is another import
        posix.write(2, said)
    except OSError:
        pass  # nobody reads it
    if code == 0:
        return printed
    raise CallError(*plugin_error(call, path, code, printed, said))


def find_plugin(call: PluginCall) -> bytes:
    """The first regular file of that name in CNI_PATH, as libcni looks for it."""
    kind = call["type"].encode("utf-8", "surrogatepass")
    folders = [folder for folder in posix.environ.get(b"CNI_PATH", b"").split(b":") if folder]
    for folder in folders:
        path: bytes = folder + b"/" + kind
        try:
            if posix.stat(path).st_mode & 0o170000 == 0o100000:
                return path
        except OSError:
            continue
    raise CallError(
        50 if call["command"] == "STATUS" else IPAM_FAILED,
        f"failed to find the IPAM plugin {call['type']} in CNI_PATH {[text(folder) for folder in folders]}",
        "install it there, or correct ipam.type; without ipam.type the agent gives addresses",
    )


def hold_attachment(network: bytes, environment: dict[bytes, bytes]) -> None:
    """Be the only one who asks a plugin about this attachment, until this process *and* the plugin have ended.

    A runtime may kill this process and call DEL at once, while the plugin is still busy with the ADD: its address would
    be reserved after the DEL, for ever. A socket's name in the kernel's own name space is free again when nobody holds
    the socket any more; the plugin inherits it. When somebody holds it for too long the DEL goes on all the same.
    """
    import _socket
    import hashlib

    names = network, environment[b"CNI_CONTAINERID"], environment[b"CNI_IFNAME"]
    name = b"\0weave-ipam:" + hashlib.sha256(b":".join(names)).hexdigest().encode()
    if name in HELD:
        return
    holder = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    posix.set_inheritable(holder.fileno(), True)
    deadline_s = time.monotonic() + PLUGIN_S["DEL"]
    while time.monotonic() < deadline_s:
        try:
            holder.bind(name)
            break
        except OSError:
            time.sleep(0.01)
    HELD[name] = holder


def executed(call: PluginCall, path: bytes, environment: dict[bytes, bytes], stdin: bytes) -> tuple[int, bytes, bytes]:
    """(exit code, stdout, stderr) of a plugin; a negative code is the signal that ended it.

    Files in memory instead of pipes: nobody blocks, and a child that the plugin leaves behind holds nobody up.
    """
    files = [posix.memfd_create(name, posix.MFD_CLOEXEC) for name in ("stdin", "stdout", "stderr")]
    try:
        while stdin:
            stdin = stdin[posix.write(files[0], stdin) :]
        posix.lseek(files[0], 0, 0)
        actions = [(posix.POSIX_SPAWN_DUP2, file, number) for number, file in enumerate(files)]
        try:
            pid = posix.posix_spawn(path, [path], environment, file_actions=actions)
        except OSError as error:
            raise CallError(IPAM_FAILED, f"the IPAM plugin {text(path)} cannot be executed", words_of(error)) from error
        code = ended(pid, call, path)
        if posix.fstat(files[1]).st_size > OUTPUT_BYTES_MAX:
            raise CallError(IPAM_FAILED, f"the IPAM plugin {text(path)} printed too much", f"limit {OUTPUT_BYTES_MAX}")
        printed, said = (posix.pread(file, OUTPUT_BYTES_MAX, 0) for file in files[1:])
        return code, printed, said
    finally:
        for file in files:
            posix.close(file)


def ended(pid: int, call: PluginCall, path: bytes) -> int:
    """Wait for a plugin, for a limited time, then kill it."""
    import select

    limit_s = PLUGIN_S[call["command"]]
    pid_fd = posix.pidfd_open(pid)
    try:
        waiter = select.poll()
        waiter.register(pid_fd, select.POLLIN)
        in_time = bool(waiter.poll(limit_s * 1000))
        if not in_time:
            posix.kill(pid, 9)
        _, status = posix.waitpid(pid, 0)
    finally:
        posix.close(pid_fd)
    if not in_time:
        raise CallError(
            IPAM_FAILED,
            f"the IPAM plugin {call['type']} did not end within {limit_s:g} s and was killed",
            f"{call['command']} of {text(path)}",
        )
    return posix.waitstatus_to_exitcode(status)


def plugin_error(call: PluginCall, path: bytes, code: int, printed: bytes, said: bytes) -> tuple[int, str, str]:
    """The error of a plugin that failed, as it told it; what it said otherwise if it told none."""
    import json

    source = f"said by the IPAM plugin {text(path)}"
    try:
        told = json.loads(printed)
        if told["code"] > 0:
            details = str(told.get("details") or "")
            return (
                told["code"],
                str(told.get("msg") or "no reason given"),
                f"{details}; {source}" if details else source,
            )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    words = (said.strip() or printed.strip() or b"nothing")[:500].decode("utf-8", "replace")
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return IPAM_FAILED, f"the IPAM plugin {call['type']} {how} and said {words}", source
