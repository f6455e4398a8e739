"""The pure parts of the engine: what a node would not see, how mounts are read, who a process is, what an agent says."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.lab.agent_api import AgentError, get
from testbed.machine import processes
from testbed.machine.processes import ProcessId
from testbed.nodes.mounts import Mount, mount_table
from testbed.nodes.nodespace import concealed, needed_paths
from tests.support.project import ROOT

POINTS = [Path("/"), Path("/run"), Path("/opt/tools"), Path("/var/lib/docker"), Path("/etc/resolv.conf")]


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("/home/me/weavelab", False),
        ("/opt/weavelab", False),  # the overlay shows what is beneath it
        ("/opt/tools", True),  # a mount of its own beneath an overlay is not
        ("/opt/tools/python/bin", True),
        ("/run/user/1000/weavelab", True),
        ("/var/lib/dock", False),
        ("/sys/kernel", True),
    ],
)
def test_what_a_node_would_not_see(path: str, *, hidden: bool) -> None:
    assert concealed([Path(path)], POINTS) == ((Path(path),) if hidden else ())


def test_only_the_outermost_of_concealed_paths_is_bound_back() -> None:
    paths = [Path("/run/a/b/c"), Path("/run/a"), Path("/run/ab")]
    assert concealed(paths, POINTS) == (Path("/run/a"), Path("/run/ab"))


def test_our_code_and_interpreter_are_among_what_an_agent_needs() -> None:
    needed = needed_paths()
    assert ROOT in needed
    assert all(path.is_absolute() and path != Path("/") for path in needed)


def test_the_mount_table_is_read_with_its_escapes_and_optional_fields() -> None:
    text = (
        "42 27 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
        "43 42 0:4 net:[4026532177] /run/netns/a\\040b rw shared:2 master:1 - nsfs nsfs rw\n"
        "44 42 0:5 / /x rw - tmpfs weavelab rw\n"
    )
    assert mount_table(text) == [
        Mount(Path("/"), "ext4", "/dev/vda"),
        Mount(Path("/run/netns/a b"), "nsfs", "nsfs"),
        Mount(Path("/x"), "tmpfs", "weavelab"),
    ]


# ---- processes


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_a_process_is_known_by_pid_and_start(sleeper: "subprocess.Popen[bytes]") -> None:
    identity = processes.identify(sleeper.pid)
    assert identity is not None
    assert processes.is_alive(identity)
    assert not processes.is_alive(ProcessId(identity.pid, identity.start_ticks + 1))


def test_a_stranger_with_a_reused_pid_is_left_alone(sleeper: "subprocess.Popen[bytes]") -> None:
    identity = processes.identify(sleeper.pid)
    assert identity is not None
    assert processes.end([ProcessId(identity.pid, identity.start_ticks - 1)], grace_s=0.0) == []
    assert processes.is_alive(identity)


def test_ending_a_process_returns_when_it_is_gone(sleeper: "subprocess.Popen[bytes]") -> None:
    identity = processes.identify(sleeper.pid)
    assert identity is not None
    assert processes.end([identity], grace_s=5.0) == []
    assert not processes.is_alive(identity)
    assert processes.end([identity], grace_s=5.0) == []


def test_a_process_that_ignores_the_request_is_killed() -> None:
    ready, tell = os.pipe()
    stubborn = subprocess.Popen(["sh", "-c", "trap '' TERM; echo; exec sleep 60"], stdout=tell)
    os.close(tell)
    os.read(ready, 1)  # the trap is set
    os.close(ready)
    identity = processes.identify(stubborn.pid)
    assert identity is not None
    began_s = time.monotonic()
    assert processes.end([identity], grace_s=0.05) == []
    assert time.monotonic() - began_s < 3
    stubborn.wait()


# ---- the agent's API


def answering(path: Path, answer: bytes) -> threading.Thread:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            request = connection.recv(4096)
            assert request.startswith(b"GET /status HTTP/1.0\r\n")
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'HTTP/1.1 200 OK\r\nA: b\r\n\r\n{"ready": true}', (200, {"ready": True})),
        (b'HTTP/1.1 503 Not yet\r\n\r\n{"ready": false}', (503, {"ready": False})),
        (b"HTTP/1.1 200 OK\r\n\r\nplain", (200, "plain")),
    ],
)
def test_an_agents_answer_is_its_code_and_its_json(tmp_path: Path, answer: bytes, expected: tuple[int, object]) -> None:
    thread = answering(tmp_path / "s", answer)
    assert get(tmp_path / "s", "/status") == expected
    thread.join()


def test_an_answer_that_is_no_http_is_an_error(tmp_path: Path) -> None:
    thread = answering(tmp_path / "s", b"SSH-2.0-hello\r\n\r\n")
    with pytest.raises(AgentError, match="no HTTP"):
        get(tmp_path / "s", "/status")
    thread.join()


def test_an_agent_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="does not answer"):
        get(tmp_path / "s", "/status")
