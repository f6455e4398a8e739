#!/usr/bin/python3 -ISE
# ^ the deployer puts the absolute path of an interpreter there (plugin.executables)
# ruff: noqa: PLC0415 - modules that only the slow way needs are imported there: see the docstring
"""weave-net: the CNI plugin that a container runtime executes for every pod. THE LIFE OF A CNI ADD, read downwards.

This process decides nothing about the network. It checks what the runtime says (`check_environment`), opens the pod's
namespace (`open_netns`), hands that descriptor and the request to the agent of this node over a unix socket (`ask`),
prints what the agent answers and ends. The bridge, the veth pair, the address and the routes are the agent's work:
plugin/agent makes them, plugin/core/cni/request.py holds the rules.

It starts once per call, and starting Python is most of what a call costs. So the way of every ordinary call imports
nothing but modules that are built into the interpreter; whatever needs more (JSON above all) is under "The slow way",
where something is wrong already: bad input, no agent, a DEL to be kept for later.

It must never print anything on stdout but the result or the error object of the CNI specification, never end in a
traceback, never wait without a limit, and never let the deletion of a pod fail because the agent is away.
"""

import _socket
import posix
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
STDIN_BYTES_MAX = 15 << 20  # the agent takes 16 MiB for the whole call (core/cni/types.py, BODY_BYTES_MAX)

# The WEAVE_ variables exist for tests: no runtime sets them.
AGENT_SOCKET = posix.environ.get(b"WEAVE_SOCKET", b"/run/weave/weave.sock")
DEL_QUEUE = posix.environ.get(b"WEAVE_DEL_QUEUE", b"/var/lib/weave/del-queue")

# How long ADD and CHECK wait for an agent that is not there; it may be restarting. No runtime retries by itself on
# code 11, whatever its name says: the kubelet makes a whole new sandbox, which is far dearer than to wait here.
WAIT_S = {b"ADD": 10.0, b"CHECK": 2.0}
# How long a whole call may take with an agent that is there: far below the two minutes of the kubelet.
ANSWER_S = {b"ADD": 30.0, b"DEL": 10.0, b"CHECK": 10.0, b"GC": 30.0, b"STATUS": 5.0}


# On a node the text of "The slow way" and of plugin/cni/delegation.py stands here and nowhere else
# (plugin.executables): a string costs nothing, while compiling that much Python takes milliseconds.
SLOW_WAY = ""


class CallError(Exception):
    """The call fails: (code, sentence, details). With code 0 the sentence is the agent's whole error object."""


class AgentAwayError(Exception):
    """There is no agent behind the socket, or it went away before it had answered: (what was seen)."""


class AgentSilentError(Exception):
    """The agent took the call and did not answer in time: (what was seen)."""


class DelegationAskedError(Exception):
    """The agent has done its part; the rest is another IPAM plugin's: (the plan, JSON)."""


def main() -> int:
    """One call: check, ask the agent, print. The exit code is 0, or 1 with an error object on stdout."""
    stdin = b""
    try:
        use_test_limits()
        verb = posix.environ.get(b"CNI_COMMAND", b"")
        if not verb:
            return int(slow("about")())
        check_environment(verb)
        if verb == b"VERSION":
            return answer(slow("version_answer")())
        stdin = read_stdin()
        netns_fd = open_netns(verb, stdin)
        try:
            printed = result_of(verb, stdin, netns_fd)
        except DelegationAskedError as asked:
            printed = slow("carry_out")(verb, stdin, netns_fd, asked.args[0])
        return answer(printed)
    except CallError as fail:
        return int(slow("complain")(stdin, *fail.args))
    except BaseException as error:  # noqa: BLE001 - also MemoryError and Ctrl-C: the runtime is owed one readable line
        return int(slow("complain")(stdin, 999, "weave-net failed: " + type(error).__name__, str(error)))


def slow(name: str) -> "Any":
    """A function of the slow way, which on a node is compiled when it is needed first."""
    if name not in globals():
        exec(compile(SLOW_WAY, "weave-net (slow way)", "exec"), globals())  # noqa: S102 - it is our own text
    return globals()[name]


def result_of(verb: bytes, stdin: bytes, netns_fd: int, delegated: bytes | None = None) -> bytes:
    """What the agent answers, or what can be done without it. `delegated` is what another IPAM plugin printed."""
    try:
        return ask(verb, stdin, netns_fd, delegated)
    except AgentAwayError as away:
        return bytes(slow("without_agent")(verb, stdin, netns_fd, str(away), delegated))
    except AgentSilentError as silent:
        return bytes(slow("without_answer")(verb, stdin, str(silent)))


# --------------------------------------------------------------------------------------------------
# 1. What the runtime says

ATTACHMENT_VERBS = (b"ADD", b"DEL", b"CHECK")
AGENT_VERBS = (*ATTACHMENT_VERBS, b"GC", b"STATUS")
NAME_BYTES = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"


def container_id_complaint(value: bytes) -> str:
    """The pattern of skel, letters and digits first and then also "_.-", without the price of importing re."""
    if value.translate(None, NAME_BYTES) or value[0] in b"_.-":
        return "invalid characters in containerID"
    return ""


def ifname_complaint(value: bytes) -> str:
    """The kernel's rules for the name of an interface (dev_valid_name)."""
    if len(value) > 15:
        return "interface name is too long: at most 15 bytes"
    if value in (b".", b".."):
        return "interface name is . or .."
    if any(c in "/:" or c.isspace() for c in value.decode("utf-8", "surrogateescape")):
        return "interface name contains / or : or whitespace characters"
    if b"%" in value:
        return "interface name contains %, which the kernel takes for a pattern"
    return ""


ENVIRONMENT = (  # name, verbs that need it, validator; in the order of skel, which is the order of the request's fields
    (b"CNI_COMMAND", AGENT_VERBS, None),
    (b"CNI_CONTAINERID", ATTACHMENT_VERBS, container_id_complaint),
    (b"CNI_NETNS", (b"ADD", b"CHECK"), None),
    (b"CNI_IFNAME", ATTACHMENT_VERBS, ifname_complaint),
    (b"CNI_ARGS", (), None),
    (b"CNI_PATH", AGENT_VERBS, None),
)


def check_environment(verb: bytes) -> None:
    """Apply the table: wrong values first, then all that is missing in one error, as skel does."""
    if verb not in AGENT_VERBS and verb != b"VERSION":
        raise CallError(4, "unknown CNI_COMMAND: " + text(verb), "known are ADD, DEL, CHECK, GC, STATUS and VERSION")
    missing = []
    for name, needed_by, complaint_about in ENVIRONMENT:
        if verb not in needed_by:
            continue
        value = posix.environ.get(name, b"")
        if not value:
            missing.append(text(name))
        elif complaint_about:
            complaint = complaint_about(value)
            if complaint:
                raise CallError(4, complaint, text(value))
    if missing:
        raise CallError(4, "required env variables [" + ",".join(missing) + "] missing", "")


def read_stdin() -> bytes:
    """The network configuration, untouched: the agent decodes it."""
    chunks: list[bytes] = []
    size = 0
    while size <= STDIN_BYTES_MAX:
        try:
            chunk = posix.read(0, 1 << 16)
        except OSError as error:
            raise CallError(5, "error reading from stdin", slow("words_of")(error)) from error
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
        size += len(chunk)
    raise CallError(6, "the configuration on stdin is too long", f"at most {STDIN_BYTES_MAX} bytes are accepted")


# --------------------------------------------------------------------------------------------------
# 2. The pod's namespace


def open_netns(verb: bytes, stdin: bytes) -> int:
    """A descriptor for CNI_NETNS, or -1 where the verb has none.

    The path is opened here and not by the agent, because it means something in the mount namespace of the runtime.
    DEL takes any path: pods outlive their namespaces, and their addresses must come free all the same.
    """
    if verb not in ATTACHMENT_VERBS:
        return -1
    path = posix.environ.get(b"CNI_NETNS", b"")
    try:
        # O_NONBLOCK: a FIFO at that path must not hold us
        netns_fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
        trouble = netns_trouble(netns_fd)
    except OSError as error:
        trouble = "failed to open netns: " + slow("words_of")(error)
    if not trouble:
        return netns_fd
    if verb == b"DEL":
        return -1
    slow("check_config")(verb, stdin)  # the specification wants the configuration judged first
    raise CallError(8, trouble, "CNI_NETNS is " + text(path))


def netns_trouble(netns_fd: int) -> str:
    """Why this descriptor cannot be a pod's namespace, or the empty string."""
    own = posix.stat("/proc/self/ns/net")
    found = posix.fstat(netns_fd)
    if found.st_dev != own.st_dev:  # all namespaces are files of one kernel-internal file system, nsfs
        return "CNI_NETNS is not a network namespace but an ordinary file or folder"
    if found.st_ino == own.st_ino and posix.environ.get(b"CNI_NETNS_OVERRIDE", b"").upper() not in (b"1", b"TRUE"):
        return "plugin's netns and netns from CNI_NETNS should not be the same"
    return ""


# --------------------------------------------------------------------------------------------------
# 3. The agent


def ask(
    verb: bytes,
    stdin: bytes,
    netns_fd: int,
    delegated: bytes | None = None,
    *,
    attempt: int = 1,
    started_s: float = 0.0,
) -> bytes:
    """Hand the call to the agent and return what is to be printed. Raises one of the four errors above.

    `attempt` above 1 tells the agent that it may find leftovers of this very call, which a crash interrupted.
    """
    deadline_s = (started_s or time.monotonic()) + ANSWER_S[verb]
    body = call_body(verb, stdin)
    head = b"POST /cni HTTP/1.1\r\nHost: weave\r\nConnection: close\r\nWeave-Attempt: %d\r\n" % attempt
    if delegated is not None:
        head, body = head + b"Weave-Delegated: %d\r\n" % len(delegated), body + delegated
    head += b"Content-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n" % len(body)
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        connect(connection, deadline_s)
        send(connection, head + body, netns_fd, deadline_s)
        status, printed = receive(connection, deadline_s)
    except TimeoutError as error:
        raise AgentSilentError(f"no answer within {ANSWER_S[verb]:g} s") from error
    except OSError as error:
        raise AgentAwayError(slow("words_of")(error)) from error
    finally:
        connection.close()
    if status == b"200" and (verb != b"ADD" or printed[:1] == b"{"):
        return printed if verb == b"ADD" else b""
    if status == b"202":
        raise DelegationAskedError(printed)
    if status != b"200" and printed[:1] == b"{":
        raise CallError(0, printed.decode("utf-8", "replace"), "")
    raise CallError(999, f"the agent answered HTTP status {text(status)} without a CNI answer", text(printed[:200]))


def call_body(verb: bytes, stdin: bytes) -> bytes:
    """The environment in the order of ENVIRONMENT, then stdin, parted by NUL (plugin/core/cni/request.py reads it)."""
    return b"\0".join([verb, *[posix.environ.get(name, b"") for name, _, _ in ENVIRONMENT[1:]], stdin])


def connect(connection: _socket.socket, deadline_s: float) -> None:
    """Connect; EAGAIN means that the agent's queue of callers is full: it is there, and busy."""
    while True:
        connection.settimeout(remaining(deadline_s))
        try:
            return connection.connect(AGENT_SOCKET)
        except BlockingIOError:
            time.sleep(0.01)


def send(connection: _socket.socket, data: bytes, netns_fd: int, deadline_s: float) -> None:
    """Send all of it, the descriptor with the first bytes."""
    rights = []
    if netns_fd >= 0:
        rights.append((_socket.SOL_SOCKET, _socket.SCM_RIGHTS, netns_fd.to_bytes(4, sys.byteorder)))
    connection.settimeout(remaining(deadline_s))
    sent = connection.sendmsg([data], rights)
    if sent < len(data):
        try:
            connection.settimeout(remaining(deadline_s))
            connection.sendall(data[sent:])
        except BrokenPipeError:
            return  # the agent refused before it had read all: its answer is waiting


def receive(connection: _socket.socket, deadline_s: float) -> tuple[bytes, bytes]:
    """(status, body) of the answer; an end before Content-Length bytes is an agent that died."""
    received = b""
    while True:
        head, separator, body = received.partition(b"\r\n\r\n")
        if separator:
            _, found, length = head.lower().partition(b"content-length:")
            wanted = int(length.split(b"\r\n")[0]) if found else -1
            if len(body) == wanted:
                return head[9:12], body
        connection.settimeout(remaining(deadline_s))
        chunk = connection.recv(1 << 16)
        if not chunk:
            if separator and wanted < 0:
                return head[9:12], body
            raise ConnectionResetError("the connection ended before the answer was whole")
        received += chunk


def remaining(deadline_s: float) -> float:
    """The seconds that are left, for settimeout."""
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


# --------------------------------------------------------------------------------------------------
# 4. What is printed


def answer(printed: bytes) -> int:
    """Print a result and succeed."""
    while printed:
        printed = printed[posix.write(1, printed) :]
    return 0


def text(value: bytes) -> str:
    """Bytes of the environment as text that JSON can carry."""
    return value.decode("utf-8", "backslashreplace")


def words_of(error: OSError) -> str:
    """The kernel's words and the file they are about, without Python's `[Errno 2]` before them."""
    path = error.filename
    name = text(path) if isinstance(path, bytes) else path
    return (error.strerror or " ".join(map(str, error.args)) or type(error).__name__) + (f": {name}" if name else "")


def use_test_limits() -> None:
    """Tests shorten the waiting."""
    if b"WEAVE_ADD_WAIT_S" in posix.environ:
        WAIT_S[b"ADD"] = float(posix.environ[b"WEAVE_ADD_WAIT_S"])
    if b"WEAVE_ANSWER_WAIT_S" in posix.environ:
        ANSWER_S.update(dict.fromkeys(ANSWER_S, float(posix.environ[b"WEAVE_ANSWER_WAIT_S"])))


# --------------------------------------------------------------------------------------------------
# The slow way. From here on something is wrong, or nobody is in a hurry.


def without_agent(verb: bytes, stdin: bytes, netns_fd: int, seen: str, delegated: bytes | None = None) -> bytes:
    """No agent: ADD and CHECK wait for it, DEL is kept on disk, GC has nothing to do, STATUS says so."""
    started_s = time.monotonic()
    network = check_config(verb, stdin)
    if verb == b"DEL":
        keep_for_later(network, stdin, seen)
        return delegate_alone(verb, stdin)
    if verb == b"GC":  # the agent itself frees what is gone when it starts; GC may remove too little, never too much
        return delegate_alone(verb, stdin)
    pause_s, attempt = 0.02, 1
    while verb in WAIT_S and time.monotonic() + pause_s < started_s + WAIT_S[verb]:
        time.sleep(pause_s)
        pause_s, attempt = min(2 * pause_s, 0.5), attempt + 1
        try:
            return ask(verb, stdin, netns_fd, delegated, attempt=attempt, started_s=started_s)
        except AgentAwayError as away:
            seen = str(away)
        except AgentSilentError as silent:
            return without_answer(verb, stdin, str(silent))
    raise CallError(
        50 if verb == b"STATUS" else 11,
        "the weave agent on this node does not answer at " + text(AGENT_SOCKET),
        seen + "; see whether it runs (weave status) and why it ended (/var/log/weave/agent.log)",
    )


def without_answer(verb: bytes, stdin: bytes, seen: str) -> bytes:
    """An agent that took the call and says nothing. It sees the connection close and undoes what it began."""
    if verb == b"DEL":
        keep_for_later(check_config(verb, stdin), stdin, seen)
        return delegate_alone(verb, stdin)
    raise CallError(
        50 if verb == b"STATUS" else 11,
        "the weave agent on this node took the call and did not finish it",
        seen + " at " + text(AGENT_SOCKET) + "; its log is /var/log/weave/agent.log",
    )


def delegate_alone(verb: bytes, stdin: bytes) -> bytes:
    """Another IPAM plugin does its part at once, whatever the agent does later."""
    plan = slow("plan_without_agent")(verb, stdin)
    if plan:
        raise DelegationAskedError(plan)
    return b""


def keep_for_later(network: bytes, stdin: bytes, seen: str) -> None:
    """Write a DEL where the agent finds it, durably, before the runtime hears of success."""
    name = queue_name(network, posix.environ[b"CNI_CONTAINERID"], posix.environ[b"CNI_IFNAME"])
    final = DEL_QUEUE + b"/" + name
    temporary = DEL_QUEUE + b"/.tmp-%d-" % posix.getpid() + name
    try:
        make_folders(DEL_QUEUE)
        file_fd = posix.open(temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o600)
        try:
            data = call_body(b"DEL", stdin)
            while data:
                data = data[posix.write(file_fd, data) :]
            posix.fsync(file_fd)
        finally:
            posix.close(file_fd)
        posix.replace(temporary, final)
        folder_fd = posix.open(DEL_QUEUE, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            posix.fsync(folder_fd)  # the name, too, must survive a power cut
        finally:
            posix.close(folder_fd)
    except OSError as error:
        # Success now would lose the address for ever; the runtime calls DEL again after an error.
        raise CallError(
            5,
            "the weave agent does not answer, and this DEL could not be kept for later in " + text(DEL_QUEUE),
            words_of(error) + "; agent: " + seen,
        ) from error


def queue_name(network: bytes, container_id: bytes, ifname: bytes) -> bytes:
    """See queue_name in plugin/core/cni/request.py, which must choose the same."""
    name = b":".join([network, container_id, ifname])
    if len(name) <= 200:
        return name
    import hashlib

    return hashlib.sha256(name).hexdigest().encode()


def make_folders(path: bytes) -> None:
    """Make a folder and its parents, for root only."""
    try:
        posix.mkdir(path, 0o700)
    except FileNotFoundError:
        make_folders(path.rpartition(b"/")[0])
        posix.mkdir(path, 0o700)
    except FileExistsError:
        return


def check_config(verb: bytes, stdin: bytes) -> bytes:
    """The name of the network, after the rules of core/cni/request.py in their order: JSON, name, version, verb."""
    import json

    def constant(name: str) -> None:
        raise ValueError(name + " is not JSON")

    try:
        config = json.loads(stdin.decode("utf-8"), parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise CallError(6, "the configuration on stdin is not valid JSON", str(error)) from error
    if not isinstance(config, dict):
        raise CallError(6, "the configuration on stdin must be a JSON object, found " + shown(config), "")
    name, version = config.get("name"), config.get("cniVersion")
    if name is None or name == "":
        raise CallError(7, "missing network name", 'the configuration needs a "name"')
    if not isinstance(name, str):
        raise CallError(6, '"name" must be a string, found ' + shown(name), "")
    if container_id_complaint(name.encode("utf-8", "surrogatepass")):
        raise CallError(7, "invalid characters found in network name", name)
    if version is not None and not isinstance(version, str):
        raise CallError(6, '"cniVersion" must be a string, found ' + shown(version), "")
    version = version or VERSIONS[0]
    if version not in VERSIONS:
        raise CallError(
            1,
            "incompatible CNI versions",
            f'config is "{version}", plugin supports {json.dumps(list(VERSIONS))}',
        )
    first = {b"CHECK": "0.4.0", b"GC": "1.1.0", b"STATUS": "1.1.0"}.get(verb, VERSIONS[0])
    if VERSIONS.index(version) < VERSIONS.index(first):
        raise CallError(
            1,
            "config version does not allow " + text(verb),
            f"{text(verb)} exists since cniVersion {first}, the configuration says {version}",
        )
    return name.encode()


def shown(value: object) -> str:
    """A JSON value for an error message, cut to a readable length."""
    import json

    shown_value = json.dumps(value)
    return shown_value if len(shown_value) <= 80 else shown_value[:80] + "..."


def complain(stdin: bytes, code: int, message: str, details: str) -> int:
    """Print an error object and fail."""
    try:
        if code == 0:
            printed = message.encode()
        else:
            import json

            error = {"cniVersion": requested_version(stdin), "code": code, "msg": message}
            if details:
                error["details"] = details
            printed = json.dumps(error).encode() + b"\n"
    except BaseException:  # noqa: BLE001 - even the standard library may be broken; the runtime is owed valid JSON
        printed = b'{"cniVersion": "1.1.0", "code": 999, "msg": "weave-net failed and could not say why"}\n'
    try:
        answer(printed)
    except OSError:
        return 1  # nobody listens any more
    return 1


def requested_version(stdin: bytes) -> str:
    """The version an error speaks: the configuration's if we know it, else our newest."""
    import json

    try:
        version = json.loads(stdin.decode("utf-8"))["cniVersion"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return VERSIONS[-1]
    return version if version in VERSIONS else VERSIONS[-1]


def version_answer() -> bytes:
    """VERSION is answered here: it must work before the agent is ever installed."""
    quoted = ", ".join(f'"{version}"' for version in VERSIONS)
    return f'{{"cniVersion": "{VERSIONS[-1]}", "supportedVersions": [{quoted}]}}\n'.encode()


def about() -> int:
    """No CNI_COMMAND: a person has started us by hand."""
    lines = (
        "weave-net: the CNI plugin of weavelab. A container runtime starts it; it asks the weave agent of this node.",
        "CNI protocol versions supported: " + ", ".join(VERSIONS),
        "",
    )
    posix.write(2, "\n".join(lines).encode())
    return 0


if __name__ == "__main__":
    # Nothing is buffered and nothing is open that the kernel does not close: the interpreter's own end would cost 10 %.
    posix._exit(main())  # noqa: SLF001 - the documented os._exit, without importing os
