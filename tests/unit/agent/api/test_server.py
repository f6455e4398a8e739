"""The API over a real unix socket: routes, bad requests, descriptors, slow clients."""

import asyncio
import json
import logging
import os
import socket
from pathlib import Path

import pytest

from plugin.agent.api.server import Request, Response, Server, json_response, unix_listener
from plugin.core.errors import CheckError, InputError


def echo(request: Request) -> Response:
    readable = b"" if request.descriptor is None else os.pread(request.descriptor, 10, 0)
    return Response(200, request.body + readable)


def fail(_request: Request) -> Response:
    raise ZeroDivisionError


def refuse(_request: Request) -> Response:
    raise CheckError("no", hint="later")


ROUTES = {
    ("GET", "/status"): lambda _request: json_response({"ready": True}),
    ("POST", "/echo"): echo,
    ("GET", "/fail"): fail,
    ("GET", "/refuse"): refuse,
}


def ask(path: Path, data: bytes, descriptor: int | None = None) -> tuple[int, bytes]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        socket.send_fds(client, [data], [] if descriptor is None else [descriptor])
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def served(tmp_path: Path, *requests: bytes, descriptor: int | None = None) -> list[tuple[int, bytes]]:
    async def main() -> list[tuple[int, bytes]]:
        path = tmp_path / "s"
        server = Server(unix_listener(path), ROUTES, logging.getLogger("test-api"))
        server.start()
        slow = socket.socket(socket.AF_UNIX)
        slow.connect(str(path))
        slow.sendall(b"GET /sta")  # never finishes its request; all others are served all the same
        try:
            return [await asyncio.to_thread(ask, path, request, descriptor) for request in requests]
        finally:
            slow.close()
            await server.stop()

    return asyncio.run(main())


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: w\r\n\r\n".encode()


def test_an_unknown_path_lists_the_known_ones(tmp_path: Path) -> None:
    ((status, body),) = served(tmp_path, get("/nothing"))
    assert status == 404
    assert json.loads(body)["known"] == ["/echo", "/fail", "/refuse", "/status"]


def test_what_is_no_http_is_answered_400(tmp_path: Path) -> None:
    answers = served(tmp_path, b"\x00rubbish\r\n\r\n", b"GET /sta", get("/status"))
    assert [status for status, _ in answers] == [400, 400, 200]


def test_a_handler_that_fails_is_a_500_and_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    failed, refused = served(tmp_path, get("/fail"), get("/refuse"))
    assert (failed[0], refused[0]) == (500, 500)
    assert json.loads(refused[1]) == {"error": "no", "hint": "later", "exit_code": 1}
    assert "ZeroDivisionError" in caplog.text


def test_a_descriptor_travels_with_the_request(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"inside")
    with (tmp_path / "file").open("rb") as file:
        request = b"POST /echo HTTP/1.1\r\nHost: w\r\nContent-Length: 2\r\n\r\nab"
        assert served(tmp_path, request, descriptor=file.fileno()) == [(200, b"abinside")]


def test_a_living_agents_socket_is_not_taken_a_dead_ones_is(tmp_path: Path) -> None:
    first = unix_listener(tmp_path / "s")
    with pytest.raises(InputError, match="another agent answers"):
        unix_listener(tmp_path / "s")
    first.close()
    unix_listener(tmp_path / "s").close()
