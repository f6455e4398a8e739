"""What the API refuses and survives: too much of everything, the wrong listener, callers that go away."""

import asyncio
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TypeAlias

import pytest

from plugin.agent.api import server as api
from plugin.agent.api.routes import acting, reading
from plugin.agent.api.server import Limits, Request, Response, Server, tcp_listener, unix_listener
from plugin.agent.attachments.attachments import NotReadyError
from plugin.agent.attachments.leases import SpaceNeededError
from plugin.core.cni.types import BODY_BYTES_MAX, CniError
from plugin.core.errors import InputError
from plugin.core.ipam.council import Wish

LOG = logging.getLogger("test-api")


def count(request: Request) -> Response:
    return Response(200, str(len(request.body)).encode())


def ask(address: Path | tuple[str, int], data: bytes, fds: list[int]) -> tuple[int, bytes]:
    """One request; a server that answers before it has read everything is right to."""
    family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(10)
        client.connect(str(address) if isinstance(address, Path) else address)
        with suppress(BrokenPipeError, ConnectionResetError):
            if fds:
                socket.send_fds(client, [data[:1]], fds)
                data = data[1:]
            client.sendall(data)
        answer = b""
        with suppress(ConnectionResetError):
            while piece := client.recv(65536):
                answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


Asker: TypeAlias = Callable[[Path | tuple[str, int], bytes, list[int]], tuple[int, bytes]]


def served(
    listener: socket.socket,
    routes: api.Routes,
    *requests: bytes,
    fds: list[int] | None = None,
    how: Asker = ask,
    limits: Limits | None = None,
) -> list[tuple[int, bytes]]:
    name = listener.getsockname()
    address = Path(name) if isinstance(name, str) else name

    async def main() -> list[tuple[int, bytes]]:
        server = Server(listener, routes, LOG, limits=limits)
        server.start()
        try:
            return [await asyncio.to_thread(how, address, request, fds or []) for request in requests]
        finally:
            await server.stop()

    return asyncio.run(main())


def post(body: bytes, path: str = "/count") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: w\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(body: bytes) -> bytes:
    head = b"POST /count HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"


COUNT = {("POST", "/count"): count}
LARGEST, TOO_LARGE = bytes(BODY_BYTES_MAX), bytes(BODY_BYTES_MAX + 1)


@pytest.mark.parametrize("form", [post, chunked])
def test_the_largest_body_is_taken_and_one_byte_more_is_413(tmp_path: Path, form: Callable[[bytes], bytes]) -> None:
    answers = served(unix_listener(tmp_path / "s"), COUNT, form(LARGEST), form(TOO_LARGE), form(b"x"))
    assert [status for status, _ in answers] == [200, 413, 200]
    assert str(BODY_BYTES_MAX) in json.loads(answers[1][1])["error"]


def test_a_body_far_too_large_is_answered_while_it_is_still_being_sent(tmp_path: Path) -> None:
    ((status, _),) = served(unix_listener(tmp_path / "s"), COUNT, post(bytes(8 * BODY_BYTES_MAX)))
    assert status == 413


def test_endless_headers_are_refused(tmp_path: Path) -> None:
    head = b"GET /count HTTP/1.1\r\nHost: w\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\n"
    ((status, body),) = served(unix_listener(tmp_path / "s"), COUNT, head)
    assert 400 <= status < 500
    assert "bad HTTP request" in json.loads(body)["error"]


def test_a_body_that_ends_too_early_is_a_400(tmp_path: Path) -> None:
    listener = unix_listener(tmp_path / "s")

    def cut(address: Path | tuple[str, int], data: bytes, _fds: list[int]) -> tuple[int, bytes]:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(address))
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return int(client.recv(65536).split()[1]), b""

    assert served(listener, COUNT, post(b"abc")[:-1], how=cut) == [(400, b"")]


def test_descriptors_are_closed_however_many_came(tmp_path: Path) -> None:
    listener = unix_listener(tmp_path / "s")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with (tmp_path / "s.file").open("wb") as file:
        answers = served(listener, COUNT, *[post(b"abc")] * 20, fds=[file.fileno()] * 5)
    assert answers == [(200, b"3")] * 20
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


def test_a_caller_that_says_nothing_is_let_go(tmp_path: Path) -> None:
    limits = Limits(request_s=0.05)
    assert served(unix_listener(tmp_path / "s"), COUNT, b"POST /cou", limits=limits) == [(0, b"")]


def test_a_caller_that_goes_away_stops_nothing(tmp_path: Path) -> None:
    async def main() -> tuple[int, bytes]:
        server = Server(unix_listener(tmp_path / "s"), COUNT, LOG)
        server.start()
        for _ in range(50):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "s"))
                client.send(post(b"abc"))
        try:
            return await asyncio.to_thread(ask, tmp_path / "s", post(b"abc"), [])
        finally:
            await server.stop()

    assert asyncio.run(main()) == (200, b"3")


# --- the two listeners -------------------------------------------------------------------------------------------------
class FakeStatus(SimpleNamespace):
    def status(self) -> dict[str, object]:
        return {
            "ready": self.ready,
            "peers": [],
            "ipam": {"owners": [], "status": "awaiting"},
            "targets": ["192.0.2.1"],
        }

    def endpoints(self) -> list[str]:
        return []

    def attachments(self) -> list[str]:
        return []

    def report(self, forwarding: object) -> dict[str, object]:
        return {"forwarding": forwarding, "members": ["node1"]}

    def metrics(self) -> str:
        return "weave_ips 1\n"


READING = reading(FakeStatus(ready=True), SimpleNamespace(observe=dict))
PATHS = [
    "/endpoints", "/metrics", "/ps", "/report", "/status", "/status/connections", "/status/endpoints", "/status/ipam",
    "/status/peers", "/status/targets",
]  # fmt: skip


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: w\r\n\r\n".encode()


def test_the_tcp_listener_only_reads() -> None:
    answers = served(tcp_listener("127.0.0.1:0"), READING, *map(get, PATHS), post(b"x", "/cni"), post(b"", "/reset"))
    assert [status for status, _ in answers] == [200] * len(PATHS) + [404, 404]
    assert json.loads(answers[-2][1])["known"] == PATHS


def test_a_part_of_status_is_that_part_as_json() -> None:
    paths = ["/status/connections", "/status/ipam", "/status/targets", "/status/peers"]
    answers = served(tcp_listener("127.0.0.1:0"), READING, *map(get, paths))
    assert [json.loads(body) for _, body in answers] == [
        [], {"owners": [], "status": "awaiting"}, ["192.0.2.1"], ["node1"],
    ]  # fmt: skip


def test_who_asks_for_text_gets_the_table(tmp_path: Path) -> None:
    requests = [
        f"GET {path} HTTP/1.1\r\nHost: w\r\nAccept: text/plain\r\n\r\n".encode()
        for path in ("/status/ipam", "/status/targets", "/status/endpoints", "/ps")
    ]
    answers = served(unix_listener(tmp_path / "s"), READING, *requests)
    assert [body for _, body in answers] == [b"awaiting\n", b"192.0.2.1\n", b"ADDRESS  MAC  NODE  NAME\n", b""]


def test_status_is_503_until_the_node_is_ready() -> None:
    routes = reading(FakeStatus(ready=False), SimpleNamespace(observe=dict))
    ((status, body),) = served(tcp_listener("127.0.0.1:0"), routes, get("/status"))
    assert (status, json.loads(body)["ready"]) == (503, False)


@pytest.mark.parametrize("address", ["127.0.0.1", "nowhere:", "127.0.0.1:http", "127.0.0.1:99999", "127.0.0.1:-1"])
def test_an_address_that_is_none_is_a_sentence(address: str) -> None:
    with pytest.raises(InputError, match="cannot be used"):
        tcp_listener(address)


def test_a_taken_address_is_a_sentence() -> None:
    with tcp_listener("127.0.0.1:0") as first:
        port = first.getsockname()[1]
        with pytest.raises(InputError, match="Address already in use") as raised:
            tcp_listener(f"127.0.0.1:{port}")
    assert "another agent" in raised.value.hint


def test_the_socket_is_roots_alone(tmp_path: Path) -> None:
    with unix_listener(tmp_path / "run" / "s"):
        assert (tmp_path / "run" / "s").stat().st_mode & 0o777 == 0o600


# --- POST /cni: what the executable prints is always the error object of CNI ----------------------------------------------
class FakeAttachments:
    """Answers with one outcome after the other, the last one for ever."""

    def __init__(self, *outcomes: str | Exception) -> None:
        self.outcomes = list(outcomes)
        self.repeated: list[bool] = []

    async def handle(
        self,
        _body: bytes,
        _descriptor: int | None,
        *,
        repeated: bool,
        delegated: bytes | None,
        gone: Callable[[], bool],
    ) -> str:
        assert delegated is None
        assert not gone()
        self.repeated.append(repeated)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class FakeSpace:
    """`changes`: what waiting comes to, one after the other."""

    def __init__(self, *changes: bool, why: str = "") -> None:
        self.changes = list(changes)
        self.why = why
        self.status = "awaiting consensus (quorum 2, known 1)"
        self.wishes: list[Wish] = []
        self.withdrawn: list[Wish] = []

    @contextmanager
    def wanted(self, wish: Wish, *, until_s: float) -> Iterator[None]:
        self.wishes.append(wish)
        yield
        self.withdrawn.append(wish)

    async def change(self, *, until_s: float) -> bool:
        return self.changes.pop(0)

    def why_not(self, _wish: Wish) -> str:
        return self.why


class FakeActions:
    """Says which verb came with what."""

    def __getattr__(self, name: str) -> Callable[[dict[str, object]], object]:
        async def act(body: dict[str, object]) -> dict[str, object]:
            return {"verb": name, "body": body}

        act.__name__ = name
        return act


def table(attachments: FakeAttachments, space: FakeSpace, flushed: list[str]) -> api.Routes:
    driver = SimpleNamespace(flush=lambda: flushed.append("flush"))
    return acting(attachments, FakeActions(), space, driver, LOG)


def cni(
    *outcomes: str | Exception, space: FakeSpace | None = None, **headers: str
) -> tuple[Response, FakeAttachments, list[str]]:
    flushed: list[str] = []
    attachments = FakeAttachments(*outcomes)
    handler = table(attachments, space or FakeSpace(), flushed)["POST", "/cni"]

    async def main() -> Response:
        return await handler(Request("POST", "/cni", b"x", headers, None))

    return asyncio.run(main()), attachments, flushed


def needed() -> SpaceNeededError:
    return SpaceNeededError(Wish(), "no address is left", "delete pods")


def test_a_cni_error_is_400_and_peers_are_told_all_the_same() -> None:
    answer, _, flushed = cni(CniError(101, "no address is left", "delete pods"))
    assert answer.status == 400
    assert json.loads(answer.body).items() >= {"code": 101, "msg": "no address is left"}.items()
    assert flushed == ["flush"]


def test_a_defect_is_an_error_object_too_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    answer, _, flushed = cni(ZeroDivisionError("half"))
    assert answer.status == 500
    assert json.loads(answer.body).items() >= {"code": 999, "msg": "the agent failed: ZeroDivisionError"}.items()
    assert "this is a bug" in caplog.text
    assert flushed == ["flush"]


def test_a_second_attempt_is_recognised() -> None:
    assert cni("done")[1].repeated == [False]
    assert cni("done", **{"weave-attempt": "2"})[1].repeated == [True]


def test_an_add_waits_for_addresses_and_is_carried_out_when_they_come() -> None:
    space = FakeSpace(True, True)
    answer, attachments, _ = cni(needed(), needed(), "done", space=space, **{"weave-attempt": "2"})
    assert (answer.status, answer.body) == (200, b"done")
    assert space.wishes == space.withdrawn == [Wish(), Wish()]
    assert attachments.repeated == [True, False, False], "what it left behind itself is not removed twice"


def test_an_add_that_waited_in_vain_says_why() -> None:
    space = FakeSpace(True, False, why="node2: it has none to spare")
    answer, attachments, _ = cni(needed(), space=space)
    assert answer.status == 400
    told = json.loads(answer.body)
    assert (told["code"], told["msg"]) == (101, "no address is left; node2: it has none to spare")
    assert len(attachments.repeated) == 2


def test_an_add_does_not_wait_when_all_have_said_no() -> None:
    space = FakeSpace(True, why="no member of the ring that answers has an address to spare: node2 4")
    answer, _, _ = cni(needed(), space=space)
    assert answer.status == 400
    assert json.loads(answer.body)["msg"].endswith("to spare: node2 4")


def test_a_call_before_the_switch_has_an_address_waits_and_then_says_what_is_awaited() -> None:
    error = NotReadyError(11, "this node has no addresses yet", "weave status ipam says why")
    answer, _, _ = cni(error, error, "done", space=FakeSpace(True, True))
    assert answer.status == 200
    answer, _, _ = cni(error, space=FakeSpace(False))
    assert answer.status == 400
    told = json.loads(answer.body)
    assert (told["code"], told["msg"]) == (
        11,
        "this node has no addresses yet: awaiting consensus (quorum 2, known 1)",
    )


# --- the verbs ---------------------------------------------------------------------------------------------------------
def test_a_verb_takes_a_json_object_or_nothing_and_refuses_the_rest(tmp_path: Path) -> None:
    routes = table(FakeAttachments(""), FakeSpace(), [])
    requests = [
        post(b'{"peer": "node3"}', "/rmpeer"),
        post(b"", "/hide"),
        post(b"[]", "/connect"),
        post(b"{", "/reset"),
    ]
    answers = served(unix_listener(tmp_path / "s"), routes, *requests)
    assert [status for status, _ in answers] == [200, 200, 400, 400]
    assert json.loads(answers[0][1]) == {"verb": "rmpeer", "body": {"peer": "node3"}}
    assert json.loads(answers[1][1]) == {"verb": "hide", "body": {}}
    for _, body in answers[2:]:
        assert json.loads(body)["error"] == "wanted a JSON object as the body of the request"
