"""The real executable `weave-net`, as deployed, against a small fake agent and against none. One row a rule."""

import array
import ast
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import pytest

from plugin import cni as cni_package
from plugin.core.cni.request import parse_request, queue_name
from plugin.core.cni.types import VERSIONS, CniError
from plugin.executables import plugin_executable

ID = "0123456789abcdef" * 4
CONFIG = b'{"cniVersion": "1.0.0", "name": "weave", "type": "weave-net"}'
CONFIG_110 = CONFIG.replace(b"1.0.0", b"1.1.0")
CHECK_CONFIG = b'{"cniVersion": "1.0.0", "name": "weave", "prevResult": {"cniVersion": "1.0.0"}}'
# Any namespace file but our own network namespace will do here: the executable passes it on and never enters it.
NETNS = "/proc/self/ns/uts"
ENVIRONMENT = {
    "CNI_CONTAINERID": ID,
    "CNI_NETNS": NETNS,
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=red",
    "CNI_PATH": "/opt/cni/bin",
}
RESULT = b'{"cniVersion": "1.0.0", "ips": [{"address": "10.32.0.2/12"}]}\n'
STDIN_OF = {"CHECK": CHECK_CONFIG, "GC": CONFIG_110, "STATUS": CONFIG_110}


@dataclass
class Ran:
    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def error(self) -> dict[str, object]:
        assert self.code == 1, self
        assert self.stderr == ""
        error = json.loads(self.stdout)
        assert error["cniVersion"] in VERSIONS
        assert set(error) <= {"cniVersion", "code", "msg", "details"}
        return error


@dataclass
class Weave:
    """The executable in a folder of its own, with a queue, and a socket on which an agent may listen."""

    folder: Path
    program: Path
    add_wait_s: float = 0.0
    answer_wait_s: float = 5.0

    @property
    def socket(self) -> Path:
        return self.folder / "weave.sock"

    @property
    def queue(self) -> Path:
        return self.folder / "var" / "del-queue"

    def run(self, verb: str, stdin: bytes | None = None, **environment: str | None) -> Ran:
        """Run one call; an environment value of None takes the variable away."""
        variables = {**ENVIRONMENT, "CNI_COMMAND": verb, **environment}
        variables |= {
            "WEAVE_SOCKET": str(self.socket),
            "WEAVE_DEL_QUEUE": str(self.queue),
            "WEAVE_ADD_WAIT_S": str(self.add_wait_s),
            "WEAVE_ANSWER_WAIT_S": str(self.answer_wait_s),
        }
        started = time.monotonic()
        done = subprocess.run(
            [self.program],
            input=STDIN_OF.get(verb, CONFIG) if stdin is None else stdin,
            env={name: value for name, value in variables.items() if value is not None},
            capture_output=True,
            timeout=30,
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode(), time.monotonic() - started)


@pytest.fixture
def weave(tmp_path: Path) -> Weave:
    program = tmp_path / "weave-net"
    program.write_bytes(plugin_executable(os.path.realpath(sys.executable)))
    program.chmod(0o755)
    return Weave(tmp_path, program)


@dataclass
class Call:
    """One POST as the fake agent received it."""

    head: str
    body: bytes
    netns: tuple[int, int] | None  # (device, inode) of the descriptor that came along


@dataclass
class FakeAgent:
    path: Path
    answer: Callable[[int], bytes | None]  # number of the call -> raw bytes to send; None: never answer
    calls: list[Call] = field(default_factory=list)
    listener: socket.socket = field(init=False)
    held: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen(8)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.calls.append(receive(connection))
            reply = self.answer(len(self.calls))
            if reply is None:
                self.held.append(connection)
                continue
            connection.sendall(reply)
            connection.close()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()
        for connection in self.held:
            connection.close()


def receive(connection: socket.socket) -> Call:
    data, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(4))
    netns = None
    for _, _, raw in ancillary:
        (descriptor,) = array.array("i", raw)
        found = os.fstat(descriptor)
        netns = (found.st_dev, found.st_ino)
        os.close(descriptor)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return Call(head.decode(), body, netns)


def http(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


Starter = Callable[[Callable[[int], bytes | None]], FakeAgent]


@pytest.fixture
def start_agent(weave: Weave) -> Iterator[Starter]:
    agents: list[FakeAgent] = []

    def start(answer: Callable[[int], bytes | None]) -> FakeAgent:
        agents.append(FakeAgent(weave.socket, answer))
        return agents[-1]

    yield start
    for agent in agents:
        agent.close()


# ---- environment

MISSING = "required env variables [{}] missing"
BAD_ENVIRONMENT = [
    # verb, what differs from a good environment, msg
    ("ADD", {"CNI_CONTAINERID": None}, MISSING.format("CNI_CONTAINERID")),
    ("ADD", {"CNI_NETNS": None}, MISSING.format("CNI_NETNS")),
    ("ADD", {"CNI_IFNAME": ""}, MISSING.format("CNI_IFNAME")),
    ("ADD", {"CNI_PATH": None}, MISSING.format("CNI_PATH")),
    ("ADD", dict.fromkeys(ENVIRONMENT), MISSING.format("CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH")),
    ("CHECK", dict.fromkeys(ENVIRONMENT), MISSING.format("CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH")),
    ("DEL", dict.fromkeys(ENVIRONMENT), MISSING.format("CNI_CONTAINERID,CNI_IFNAME,CNI_PATH")),
    ("GC", dict.fromkeys(ENVIRONMENT), MISSING.format("CNI_PATH")),
    ("STATUS", dict.fromkeys(ENVIRONMENT), MISSING.format("CNI_PATH")),
    ("ADD", {"CNI_CONTAINERID": "-x"}, "invalid characters in containerID"),
    ("ADD", {"CNI_CONTAINERID": "a/b"}, "invalid characters in containerID"),
    ("ADD", {"CNI_CONTAINERID": "pöd"}, "invalid characters in containerID"),
    ("ADD", {"CNI_CONTAINERID": "a\n"}, "invalid characters in containerID"),
    ("ADD", {"CNI_IFNAME": "a" * 16}, "interface name is too long: at most 15 bytes"),
    ("ADD", {"CNI_IFNAME": "."}, "interface name is . or .."),
    ("ADD", {"CNI_IFNAME": ".."}, "interface name is . or .."),
    ("ADD", {"CNI_IFNAME": "a/b"}, "interface name contains / or : or whitespace characters"),
    ("ADD", {"CNI_IFNAME": "a:b"}, "interface name contains / or : or whitespace characters"),
    ("ADD", {"CNI_IFNAME": "a\u2003b"}, "interface name contains / or : or whitespace characters"),
    ("DEL", {"CNI_IFNAME": "a b"}, "interface name contains / or : or whitespace characters"),
    ("add", {}, "unknown CNI_COMMAND: add"),
    ("UPDATE", {}, "unknown CNI_COMMAND: UPDATE"),
]


@pytest.mark.parametrize(("verb", "changes", "message"), BAD_ENVIRONMENT)
def test_a_bad_environment_is_error_4(weave: Weave, verb: str, changes: dict[str, str | None], message: str) -> None:
    error = weave.run(verb, **changes).error
    assert (error["code"], error["msg"]) == (4, message)


ORDER = [
    # verb, environment, stdin, code: of two things wrong at once the earlier rule speaks
    ("ADD", {"CNI_IFNAME": "a/b", "CNI_CONTAINERID": None}, b"no json", 4),
    ("ADD", {"CNI_NETNS": None}, b"no json", 4),
    ("ADD", {"CNI_NETNS": "/nowhere"}, b"no json", 6),
    ("ADD", {"CNI_NETNS": "/nowhere"}, b'{"cniVersion": "9.9.9"}', 7),
    ("ADD", {"CNI_NETNS": "/nowhere"}, b'{"name": "weave", "cniVersion": 9}', 6),
    ("ADD", {"CNI_NETNS": "/nowhere"}, b'{"name": "weave", "cniVersion": "9.9.9"}', 1),
    ("ADD", {"CNI_NETNS": "/nowhere"}, CONFIG, 8),
    ("ADD", {}, CONFIG, 11),
    ("CHECK", {"CNI_NETNS": "/nowhere"}, b'{"name": "weave", "cniVersion": "0.3.1"}', 1),
    ("STATUS", {}, CONFIG, 1),
    ("GC", {}, CONFIG, 1),
]


@pytest.mark.parametrize(("verb", "changes", "stdin", "code"), ORDER)
def test_rules_are_applied_in_the_order_of_the_specification(
    weave: Weave, verb: str, changes: dict[str, str | None], stdin: bytes, code: int
) -> None:
    assert weave.run(verb, stdin, **changes).error["code"] == code


def test_an_error_speaks_the_version_of_the_configuration(weave: Weave) -> None:
    assert weave.run("ADD", CONFIG.replace(b"1.0.0", b"0.3.1"), CNI_NETNS="/nowhere").error["cniVersion"] == "0.3.1"


# ---- verbs that need no agent


@pytest.mark.parametrize("stdin", [b"", b'{"cniVersion": "0.4.0"}', b"no json"])
def test_version_is_answered_without_agent_and_without_any_other_variable(weave: Weave, stdin: bytes) -> None:
    ran = weave.run("VERSION", stdin, **dict.fromkeys(ENVIRONMENT))
    assert (ran.code, ran.stderr) == (0, "")
    assert json.loads(ran.stdout) == {"cniVersion": "1.1.0", "supportedVersions": list(VERSIONS)}


@pytest.mark.parametrize("verb", ["", None])
def test_without_a_command_a_person_is_told_what_this_is(weave: Weave, verb: str | None) -> None:
    ran = weave.run("ADD", CNI_COMMAND=verb)
    assert (ran.code, ran.stdout) == (0, "")
    assert "CNI protocol versions supported: 0.1.0, " in ran.stderr


# ---- with an agent


def test_an_add_hands_over_environment_stdin_and_namespace_and_prints_the_answer(
    weave: Weave, start_agent: Starter
) -> None:
    agent = start_agent(lambda _: http(RESULT))
    ran = weave.run("ADD")
    assert (ran.code, ran.stdout, ran.stderr) == (0, RESULT.decode(), "")
    (call,) = agent.calls
    own = Path(NETNS).stat()
    assert call.netns == (own.st_dev, own.st_ino)
    assert call.head.startswith("POST /cni HTTP/1.1\r\n")
    assert "Weave-Attempt: 1" in call.head
    fields = ["ADD", ID, NETNS, "eth0", "IgnoreUnknown=1;K8S_POD_NAME=red", "/opt/cni/bin"]
    assert call.body.split(b"\0") == [*(value.encode() for value in fields), CONFIG]
    assert parse_request(call.body).pod == "default/red"


@pytest.mark.parametrize("verb", ["DEL", "CHECK", "GC", "STATUS"])
def test_verbs_without_a_result_print_nothing(weave: Weave, start_agent: Starter, verb: str) -> None:
    start_agent(lambda _: http(b"chatter"))
    ran = weave.run(verb)
    assert (ran.code, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_an_error_of_the_agent_is_passed_on_as_it_is(weave: Weave, start_agent: Starter, verb: str) -> None:
    error = b'{"cniVersion": "1.0.0", "code": 101, "msg": "no free address"}\n'
    start_agent(lambda _: http(error, 500))
    ran = weave.run(verb)
    assert (ran.code, ran.stdout, ran.stderr) == (1, error.decode(), "")


@pytest.mark.parametrize(
    "reply", [http(b"<html>not found</html>", 404), http(b"", 500), http(b"hello"), b"HTTP/1.1 200 OK\r\n\r\nhello"]
)
def test_an_answer_that_is_no_cni_answer_is_an_internal_error(weave: Weave, start_agent: Starter, reply: bytes) -> None:
    start_agent(lambda _: reply)
    error = weave.run("ADD").error
    assert error["code"] == 999
    assert "without a CNI answer" in str(error["msg"])


def test_a_long_configuration_arrives_whole(weave: Weave, start_agent: Starter) -> None:
    agent = start_agent(lambda _: http(RESULT))
    stdin = CONFIG[:-1] + b', "args": {"x": "' + b"y" * (1 << 20) + b'"}}'
    assert weave.run("ADD", stdin).code == 0
    assert agent.calls[0].body.endswith(b"\0" + stdin)


def test_a_configuration_without_end_is_refused(weave: Weave) -> None:
    assert weave.run("ADD", b" " * (16 << 20)).error["code"] == 6


# ---- namespaces


@pytest.fixture
def plain_file(tmp_path: Path) -> str:
    path = tmp_path / "plain"
    path.write_text("")
    return str(path)


def odd_netns(kind: str, plain_file: str) -> str:
    return {
        "empty": "",
        "vanished": "/run/netns/nobody",
        "plain": plain_file,
        "folder": "/",
        "own": "/proc/self/ns/net",
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "vanished", "plain", "folder", "own"])
def test_a_del_takes_any_netns_and_hands_over_none(
    weave: Weave, start_agent: Starter, plain_file: str, kind: str
) -> None:
    agent = start_agent(lambda _: http(b""))
    assert weave.run("DEL", CNI_NETNS=odd_netns(kind, plain_file)).code == 0
    assert agent.calls[0].netns is None


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("vanished", "failed to open netns"),
        ("plain", "not a network namespace"),
        ("folder", "not a network namespace"),
        ("own", "should not be the same"),
    ],
)
def test_an_add_or_check_needs_a_namespace_that_is_not_the_nodes_own(
    weave: Weave, plain_file: str, verb: str, kind: str, message: str
) -> None:
    error = weave.run(verb, CNI_NETNS=odd_netns(kind, plain_file)).error
    assert error["code"] == 8
    assert message in str(error["msg"])


@pytest.mark.parametrize("override", ["1", "true", "TRUE"])
def test_the_nodes_own_namespace_is_allowed_when_the_runtime_insists(
    weave: Weave, start_agent: Starter, override: str
) -> None:
    agent = start_agent(lambda _: http(RESULT))
    assert weave.run("ADD", CNI_NETNS="/proc/self/ns/net", CNI_NETNS_OVERRIDE=override).code == 0
    assert agent.calls[0].netns is not None


# ---- without an agent


@pytest.mark.parametrize(("verb", "code"), [("ADD", 11), ("CHECK", 11), ("STATUS", 50)])
def test_without_an_agent_the_error_says_so_and_what_to_look_at(weave: Weave, verb: str, code: int) -> None:
    error = weave.run(verb).error
    assert error["code"] == code
    assert error["msg"] == f"the weave agent on this node does not answer at {weave.socket}"
    assert "/var/log/weave/agent.log" in str(error["details"])


def test_without_an_agent_an_add_waits_for_the_stated_time(weave: Weave) -> None:
    weave.add_wait_s = 0.7
    assert 0.3 < weave.run("ADD").seconds < 5


def test_a_socket_that_nobody_listens_on_is_an_agent_that_is_away(weave: Weave) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(weave.socket))
        assert weave.run("ADD").error["code"] == 11


def test_an_agent_that_starts_while_an_add_waits_serves_it(weave: Weave, start_agent: Starter) -> None:
    weave.add_wait_s = 20
    later = threading.Timer(0.4, lambda: start_agent(lambda _: http(RESULT)))
    later.start()
    ran = weave.run("ADD")
    later.join()
    assert (ran.code, ran.stdout) == (0, RESULT.decode())
    assert ran.seconds < 10


@pytest.mark.parametrize("died_after", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{", b"HTTP/1."])
def test_an_agent_that_dies_during_an_add_is_asked_again_and_told_so(
    weave: Weave, start_agent: Starter, died_after: bytes
) -> None:
    weave.add_wait_s = 10
    agent = start_agent(lambda number: died_after if number == 1 else http(RESULT))
    assert weave.run("ADD").stdout == RESULT.decode()
    assert ["Weave-Attempt: 1" in agent.calls[0].head, "Weave-Attempt: 2" in agent.calls[1].head] == [True, True]


@pytest.mark.parametrize(("verb", "code"), [("ADD", 11), ("CHECK", 11), ("STATUS", 50)])
def test_an_agent_that_never_answers_does_not_hold_the_runtime(
    weave: Weave, start_agent: Starter, verb: str, code: int
) -> None:
    weave.answer_wait_s = 0.5
    agent = start_agent(lambda _: None)
    error = weave.run(verb).error
    assert error["code"] == code
    assert "did not finish" in str(error["msg"])
    assert len(agent.calls) == 1


def test_gc_without_an_agent_removes_nothing_and_succeeds(weave: Weave) -> None:
    ran = weave.run("GC")
    assert (ran.code, ran.stdout) == (0, "")


# ---- DEL without an agent


def assert_kept(weave: Weave) -> None:
    """Exactly one DEL is in the queue, whole, private and under the agreed name."""
    (path,) = weave.queue.iterdir()
    request = parse_request(path.read_bytes())
    assert request.attachment == ("weave", ID, "eth0")
    assert request.command == "DEL"
    assert path.name == queue_name("weave", ID, "eth0")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_del_without_an_agent_is_kept_for_it(weave: Weave) -> None:
    ran = weave.run("DEL")
    assert (ran.code, ran.stdout, ran.stderr) == (0, "", "")
    assert_kept(weave)


def test_a_repeated_del_is_kept_once(weave: Weave) -> None:
    weave.run("DEL")
    weave.run("DEL", CNI_NETNS="")
    assert_kept(weave)


def test_a_del_is_kept_when_the_agent_dies_or_never_answers(weave: Weave, start_agent: Starter) -> None:
    weave.answer_wait_s = 0.5
    start_agent(lambda number: b"" if number == 1 else None)
    assert weave.run("DEL").code == 0
    assert_kept(weave)
    assert weave.run("DEL").code == 0
    assert_kept(weave)


def test_a_name_too_long_for_a_file_is_shortened_as_the_agent_shortens_it(weave: Weave) -> None:
    assert weave.run("DEL", CNI_CONTAINERID="a" * 400).code == 0
    (path,) = weave.queue.iterdir()
    assert path.name == queue_name("weave", "a" * 400, "eth0")


def test_two_attachments_never_share_a_file_of_the_queue(weave: Weave) -> None:
    weave.run("DEL", b'{"name": "a-b"}', CNI_CONTAINERID="c")
    weave.run("DEL", b'{"name": "a"}', CNI_CONTAINERID="b-c")
    assert len(list(weave.queue.iterdir())) == 2


def test_a_del_that_cannot_be_kept_fails_so_that_the_runtime_calls_again(weave: Weave) -> None:
    (weave.folder / "var").write_text("a file where the folder should be")
    error = weave.run("DEL").error
    assert error["code"] == 5
    assert "could not be kept" in str(error["msg"])


CONFIGURATIONS = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"name": NaN}',
    b"[" * 100_000,
    b"{}",
    b'{"name": ""}',
    b'{"name": null}',
    b'{"name": 7}',
    b'{"name": "-a"}',
    b'{"name": "a b"}',
    b'{"name": "\\ud800"}',
    b'{"name": "weave", "cniVersion": 1}',
    b'{"name": "weave", "cniVersion": "1.0"}',
    b'{"name": "weave", "cniVersion": "2.0.0"}',
]


@pytest.mark.parametrize("stdin", CONFIGURATIONS)
def test_the_executable_and_the_agent_judge_a_configuration_alike(weave: Weave, stdin: bytes) -> None:
    error = weave.run("DEL", stdin).error
    body = b"\0".join([b"DEL", ID.encode(), b"", b"eth0", b"", b"/opt/cni/bin", stdin])
    with pytest.raises(CniError) as told:
        parse_request(body)
    # the words of a JSON decoder in `details` may differ in the depth at which it gave up
    assert (error["code"], error["msg"]) == (told.value.code, told.value.message)
    assert not weave.queue.exists()


@pytest.mark.parametrize("stdin", [b'{"name": "weave"}', b'{"name": "weave", "cniVersion": ""}', CONFIG, CONFIG_110])
def test_any_supported_version_and_none_may_be_deleted(weave: Weave, stdin: bytes) -> None:
    assert weave.run("DEL", stdin).code == 0


# ---- another IPAM plugin

IPAM = CONFIG[:-1] + b', "ipam": {"type": "fake"}}'
PLAN = http(b'{"calls": [{"type": "fake", "command": "ADD"}]}', 202)


def fake_plugin(weave: Weave, body: str) -> dict[str, str]:
    """An IPAM plugin in CNI_PATH that notes its calls in the file `calls`; the variables that make it found."""
    program = weave.folder / "fake"
    program.write_text(f'#!/bin/sh\necho "$CNI_COMMAND $CNI_IFNAME" >>{weave.folder}/calls\n{body}\n')
    program.chmod(0o755)
    return {"CNI_PATH": f"/nowhere:{weave.folder}"}


def calls(weave: Weave) -> list[str]:
    path = weave.folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_what_a_plugin_printed_goes_to_the_agent_behind_the_same_call(weave: Weave, start_agent: Starter) -> None:
    agent = start_agent(lambda number: PLAN if number == 1 else http(RESULT))
    ran = weave.run("ADD", IPAM, **fake_plugin(weave, "echo '{\"ips\": []}'"))
    assert (ran.code, ran.stdout, ran.stderr) == (0, RESULT.decode(), "")
    first, second = agent.calls
    printed = b'{"ips": []}\n'
    assert second.body == first.body + printed
    assert f"Weave-Delegated: {len(printed)}" in second.head
    assert "Weave-Delegated" not in first.head
    assert second.netns == first.netns, "the namespace comes along both times"
    assert calls(weave) == ["ADD eth0"]


@pytest.mark.parametrize("away", [b"", http(b'{"cniVersion": "1.0.0", "code": 101, "msg": "taken"}', 400)])
def test_an_add_that_the_agent_does_not_finish_is_undone_in_both_places(
    weave: Weave, start_agent: Starter, away: bytes
) -> None:
    plan = PLAN.replace(b"ADD", b"DEL")
    agent = start_agent(lambda number: PLAN if number == 1 else away if number == 2 else plan)
    error = weave.run("ADD", IPAM, **fake_plugin(weave, "echo '{}'")).error
    assert (error["code"], error["msg"]) in {(101, "taken"), (11, error["msg"])}
    assert [call.body.split(b"\0")[0] for call in agent.calls] == [b"ADD", b"ADD", b"DEL"]
    assert calls(weave) == ["ADD eth0", "DEL eth0"]


def test_a_plan_for_other_attachments_names_them_and_its_own_ipam(weave: Weave, start_agent: Starter) -> None:
    plan = b'{"calls": [{"type": "fake", "command": "DEL", "containerID": "x", "ifname": "net1", "ipam": {"pool": 7}}]}'
    start_agent(lambda _: http(plan, 202))
    found = fake_plugin(weave, f"env >{weave.folder}/env; cat >{weave.folder}/stdin")
    ran = weave.run("GC", IPAM.replace(b"1.0.0", b"1.1.0"), **found)
    assert (ran.code, ran.stdout) == (0, "")
    told = (weave.folder / "env").read_text().splitlines()
    assert {"CNI_CONTAINERID=x", "CNI_IFNAME=net1", "CNI_NETNS=", "CNI_COMMAND=DEL"} <= set(told)
    assert json.loads((weave.folder / "stdin").read_text())["ipam"] == {"pool": 7}


@pytest.mark.parametrize(("verb", "stdin"), [("DEL", IPAM), ("GC", IPAM.replace(b"1.0.0", b"1.1.0"))])
def test_without_an_agent_the_plugin_does_its_part_at_once(weave: Weave, verb: str, stdin: bytes) -> None:
    assert weave.run(verb, stdin, **fake_plugin(weave, "true")).code == 0
    assert [call.split()[0] for call in calls(weave)] == [verb]
    if verb == "DEL":
        assert_kept(weave)


@pytest.mark.parametrize("kind", ["weave-net", "weave-ipam", "", "..", "a/b"])
def test_without_an_agent_nobody_is_run_who_is_no_other_plugin(weave: Weave, kind: str) -> None:
    ran = weave.run("DEL", IPAM.replace(b"fake", kind.encode()), CNI_PATH=str(weave.folder))
    assert (ran.code, ran.stdout) == (0, "")


def test_an_agent_without_a_plan_runs_nobody(weave: Weave, start_agent: Starter) -> None:
    start_agent(lambda _: http(RESULT))
    assert weave.run("ADD", IPAM, **fake_plugin(weave, "true")).code == 0
    assert calls(weave) == []


def test_the_deployed_file_has_the_functions_of_its_source_and_compiles_half_of_them_late(weave: Weave) -> None:
    def functions(text: str) -> set[str]:
        return {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}

    lines = weave.program.read_text().splitlines(keepends=True)
    deployed = "".join(line[2:] for line in lines if line.startswith("#|"))
    (late,) = (
        node.value.value
        for node in ast.parse(deployed).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.targets[0].id == "SLOW_WAY"
    )
    sources = [Path(cni_package.__file__).with_name(name).read_text() for name in ("weave_net.py", "delegation.py")]
    assert functions(deployed) | functions(late) == functions(sources[0]) | functions(sources[1])
    assert functions(deployed) & functions(late) == set()
    assert {"main", "ask", "slow"} <= functions(deployed)
    assert {"complain", "keep_for_later", "run_plugin"} <= functions(late)


# ---- the process


def test_a_closed_stdin_is_an_io_failure(weave: Weave) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {weave.program} <&-"],
        env={**ENVIRONMENT, "CNI_COMMAND": "ADD"},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, json.loads(done.stdout)["code"], done.stderr) == (1, 5, b"")


def test_nobody_reading_the_result_is_a_failure_without_a_traceback(weave: Weave) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {weave.program} >&-"],
        env={"CNI_COMMAND": "VERSION"},
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_limit_that_is_no_number_is_still_a_json_error(weave: Weave) -> None:
    weave.answer_wait_s = "soon"  # type: ignore[assignment]
    assert weave.run("ADD").error["code"] == 999


def test_modules_lying_about_are_never_imported(weave: Weave, tmp_path: Path) -> None:
    for name in ("json", "hashlib", "_socket", "posix", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text('raise SystemExit("planted")')
    assert weave.run("ADD", PYTHONPATH=str(tmp_path)).error["code"] == 11


def test_an_add_imports_nothing_but_what_the_interpreter_is_built_of(weave: Weave, start_agent: Starter) -> None:
    start_agent(lambda _: http(RESULT))
    code = (
        f"import sys; before = set(sys.modules); source = open({str(weave.program)!r}).read()\n"
        "import posix\n"
        "posix._exit = lambda code: print('', *sorted(set(sys.modules) - before), file=sys.stderr)\n"
        "exec(compile(source, 'weave-net', 'exec'), {'__name__': '__main__'})\n"
    )
    done = subprocess.run(
        [os.path.realpath(sys.executable), "-ISE", "-c", code],
        input=CONFIG,
        env={**ENVIRONMENT, "CNI_COMMAND": "ADD", "WEAVE_SOCKET": str(weave.socket)},
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == RESULT
    assert done.stderr.split() == [b"_socket", b"binascii"]


@pytest.mark.parametrize("interpreter", ["python3", "/usr/bin/env python3", "/" + "x" * 130])
def test_an_interpreter_that_cannot_stand_in_the_first_line_is_refused(interpreter: str) -> None:
    with pytest.raises(ValueError, match="interpreter"):
        plugin_executable(interpreter)


def test_the_deployed_file_names_its_interpreter_and_holds_the_whole_source() -> None:
    first, *rest = plugin_executable("/opt/py/bin/python3.13").splitlines(keepends=True)
    assert first == b"#!/opt/py/bin/python3.13 -ISE\n"
    source = b"".join(line[2:] for line in rest if line.startswith(b"#|"))
    for name in ("weave_net.py", "delegation.py"):
        for line in Path(cni_package.__file__).with_name(name).read_bytes().splitlines()[1:]:
            assert line in source or line == b'SLOW_WAY = ""'


def test_another_python_than_the_compiling_one_runs_the_source(weave: Weave, start_agent: Starter) -> None:
    agent = start_agent(lambda _: http(RESULT))
    text = weave.program.read_bytes()
    assert text.count(repr(MAGIC_NUMBER).encode()) == 1
    weave.program.write_bytes(text.replace(repr(MAGIC_NUMBER).encode(), b"b'another'"))
    assert (weave.run("ADD").stdout, weave.run("DEL").code) == (RESULT.decode(), 0)
    assert weave.run("ADD", CNI_IFNAME="a/b").error["code"] == 4
    assert len(agent.calls) == 2
