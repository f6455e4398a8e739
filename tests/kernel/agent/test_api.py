"""The API of a real agent: what is documented is there, TCP only reads, no caller on the node can starve the plugin."""

import contextlib
import json
import os
import re
import resource
import socket
from pathlib import Path

import pytest

from plugin.core.cni.types import BODY_BYTES_MAX
from testbed.machine.space import call, run
from tests.support.cluster import ROOT, Cluster, wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
DOCUMENT = Path(ROOT, "docs", "reference", "agent.md").read_text(encoding="utf-8")
PUBLIC = ("127.0.0.1", 6784)
READABLE = [
    "/endpoints", "/metrics", "/ps", "/report", "/status", "/status/connections", "/status/endpoints", "/status/ipam",
    "/status/peers", "/status/targets",
]  # fmt: skip


def documented(heading: str) -> set[str]:
    """The names in the first column of the table below a heading."""
    text = re.split(r"\n##", DOCUMENT[DOCUMENT.index(heading) + len(heading) :])[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def over_tcp(cluster: Cluster, request: str) -> tuple[int, str]:
    def ask() -> bytes:
        with socket.create_connection(PUBLIC, timeout=10) as client:
            client.sendall(request.encode())
            answer = b""
            while piece := client.recv(65536):
                answer += piece
            return answer

    head, _, body = call(cluster.nodes[1], ask).partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


def get(path: str) -> str:
    return f"GET {path} HTTP/1.1\r\nHost: w\r\n\r\n"


def test_both_listeners_tell_the_documented_keys(cluster: Cluster) -> None:
    cluster.mesh()
    red, _ = cluster.add(1, "redpod")
    run(red, ["ip", "address", "add", "10.44.4.4/12", "dev", "eth0"], timeout_s=10)
    assert cluster.ping(red, "10.32.0.1", "-I", "10.44.4.4") != 0, "it pretends, which has a metric of its own"
    refused = "weave_guard_refused_frames_total{"
    wait_for(lambda: refused in over_tcp(cluster, get("/metrics"))[1], "what was refused is counted")
    round_trip = "weave_path_round_trip_seconds{"
    wait_for(lambda: round_trip in over_tcp(cluster, get("/metrics"))[1], "the overlay was probed")
    status, text = over_tcp(cluster, get("/status"))
    assert status == 200
    assert set(json.loads(text)) == documented("### `/status`")
    report = json.loads(over_tcp(cluster, get("/report"))[1])
    assert set(report) - set(json.loads(text)) == documented("### `/report`, beyond `/status`")
    names = set(re.findall(r"^(\w+)", over_tcp(cluster, get("/metrics"))[1].replace("# ", "#"), re.MULTILINE))
    assert names == documented("## Metrics")
    assert {one["label"] for one in json.loads(over_tcp(cluster, get("/endpoints"))[1])} > {"node1/weave"}


def test_tcp_only_reads(cluster: Cluster) -> None:
    cluster.start(1)
    status, text = over_tcp(cluster, "POST /cni HTTP/1.1\r\nHost: w\r\nContent-Length: 3\r\n\r\nADD")
    assert (status, json.loads(text)["known"]) == (404, READABLE)
    for verb in ("connect", "forget", "rmpeer", "recover", "reset", "expose", "hide"):
        request = f"POST /{verb} HTTP/1.1\r\nHost: w\r\nContent-Length: 2\r\n\r\n{{}}"
        assert over_tcp(cluster, request)[0] == 404, verb
    assert [over_tcp(cluster, get(path))[0] for path in READABLE] == [200] * len(READABLE)


def test_what_is_too_large_or_no_call_is_answered_and_forgotten(cluster: Cluster) -> None:
    cluster.start(1)
    assert cluster.api(1, "/cni", b"x" * (BODY_BYTES_MAX + 1))[0] == 413
    for body in (b"\0", b"\0" * 100, b"ADD", b"\xff" * 50, b"DEL\0\0\0\0\0\0{}"):
        status, text = cluster.api(1, "/cni", body)
        assert status == 400
        assert {"code", "msg", "cniVersion"} <= set(json.loads(text)), text
    assert cluster.held(1) == set()
    cluster.add(1, "redpod")


def test_no_event_is_logged_that_is_not_documented(cluster: Cluster) -> None:
    cluster.mesh()
    pod, _ = cluster.add(1, "redpod")
    cluster.cni(1, "DEL", pod)
    cluster.cni(1, "DEL", pod)
    cluster.kill(2)
    cluster.kill(1)
    events = {json.loads(line)["event"] for number in (1, 2) for line in cluster.log(number).splitlines()}
    assert events <= documented("## Log")


def test_idle_callers_of_the_open_listener_do_not_keep_the_plugin_out(cluster: Cluster) -> None:
    agent = cluster.start(1)
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (256, 256))  # so that a test's worth of callers uses it up

    def crowd() -> list[socket.socket]:
        callers = []
        for _ in range(300):
            caller = socket.socket()
            caller.settimeout(1)
            callers.append(caller)
            with contextlib.suppress(OSError):
                caller.connect(PUBLIC)
        return callers

    log = cluster.tmp / "d1" / "log"
    cluster.timeout_s = 1.0  # a log that is flooded grows by megabytes a second
    flooded_bytes = log.stat().st_size + 100_000
    callers = call(cluster.nodes[1], crowd)
    try:
        pod = cluster.space("redpod")
        wait_for(lambda: log.stat().st_size > flooded_bytes or cluster.ready(1), "an answer on the unix socket")
        assert log.stat().st_size < flooded_bytes, "the log is flooded"
        assert cluster.cni(1, "ADD", pod)[0] == 200
    finally:
        for caller in callers:
            caller.close()
