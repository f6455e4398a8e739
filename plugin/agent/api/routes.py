"""What the API answers: one table of handlers for reading, one for acting.

Everything that can be read is JSON, and for who asks for `text/plain` the table that `weave status` prints.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from plugin.agent.api import layouts
from plugin.agent.api.actions import Actions, object_of
from plugin.agent.api.server import Handler, Request, Response, json_response
from plugin.agent.api.status import Status
from plugin.agent.attachments.attachments import Attachments, NotReadyError
from plugin.agent.attachments.leases import SpaceNeededError
from plugin.agent.dataplane.forwarder import Forwarder
from plugin.agent.driver import Driver
from plugin.agent.space import SPACE_WAIT_S, Space
from plugin.core.cni.ipam import IpamPlan
from plugin.core.cni.types import INTERNAL, NO_ADDRESS, CniError

_TEXT: Final = "text/plain; charset=utf-8"


def reading(status: Status, forwarder: Forwarder) -> dict[tuple[str, str], Handler]:
    """What anybody on the node may read."""

    def metrics(_request: Request) -> Response:
        return Response(200, status.metrics().encode(), "text/plain; version=0.0.4; charset=utf-8")

    def overview(request: Request) -> Response:
        # 503 until ready, as Weave answers: a readiness probe needs no more than this.
        found = status.status()
        return _either(request, found, layouts.overview, code=200 if status.ready else 503)

    def report() -> dict[str, Any]:
        return status.report(forwarder.observe())

    return {
        ("GET", "/status"): overview,
        ("GET", "/status/connections"): lambda request: _either(
            request, status.status(), layouts.connections, part=lambda found: found["peers"]
        ),
        ("GET", "/status/peers"): lambda request: _either(
            request, report(), layouts.peers, part=lambda found: found["members"]
        ),
        ("GET", "/status/ipam"): lambda request: _either(
            request, status.status(), layouts.ipam, part=lambda found: found["ipam"]
        ),
        ("GET", "/status/targets"): lambda request: _either(
            request, status.status(), layouts.targets, part=lambda found: found["targets"]
        ),
        ("GET", "/status/endpoints"): lambda request: _either(request, status.endpoints(), layouts.endpoints),
        ("GET", "/endpoints"): lambda _request: json_response(status.endpoints()),
        ("GET", "/ps"): lambda request: _either(request, status.attachments(), layouts.attachments),
        ("GET", "/report"): lambda _request: json_response(report()),
        ("GET", "/metrics"): metrics,
    }


def _either(
    request: Request,
    found: Any,
    layout: Callable[[Any], str],
    *,
    part: Callable[[Any], Any] = lambda found: found,
    code: int = 200,
) -> Response:
    if request.headers.get("accept", "").startswith("text/plain"):
        return Response(code, layout(found).encode(), _TEXT)
    return json_response(part(found), code)


def acting(
    attachments: Attachments, actions: Actions, space: Space, driver: Driver, log: logging.Logger
) -> dict[tuple[str, str], Handler]:
    """What only root may do, over the unix socket."""

    async def cni(request: Request) -> Response:
        repeated = request.headers.get("weave-attempt", "1") != "1"
        try:
            answer = await _with_patience(attachments, space, request, repeated=repeated)
        except CniError as error:
            return Response(400, error.to_json().encode())
        except Exception as error:
            # The executable prints what it gets, and a runtime understands nothing but the error object of CNI.
            log.exception("CNI call failed, this is a bug")
            return Response(
                500, CniError(INTERNAL, f"the agent failed: {type(error).__name__}", str(error)).to_json().encode()
            )
        finally:
            driver.flush()  # peers learn of the pod before the runtime does
        if isinstance(answer, IpamPlan):
            return Response(202, answer.to_json().encode())
        return Response(200, answer.encode())

    def verb(action: Callable[[dict[str, Any]], Any]) -> Handler:
        async def act(request: Request) -> Response:
            return json_response(await action(object_of(request.body)))

        return act

    verbs = (
        actions.connect,
        actions.forget,
        actions.rmpeer,
        actions.recover,
        actions.reset,
        actions.expose,
        actions.hide,
        actions.hold,
        actions.release,
    )
    return {("POST", "/cni"): cni} | {("POST", f"/{action.__name__}"): verb(action) for action in verbs}


async def _with_patience(attachments: Attachments, space: Space, request: Request, *, repeated: bool) -> str | IpamPlan:
    """Carry out a CNI call; when addresses are missing, wait for some for SPACE_WAIT_S, then say what is the matter.

    Raises:
        CniError: As `Attachments.handle`.
    """
    until_s = asyncio.get_running_loop().time() + SPACE_WAIT_S
    body, delegated = _parted(request)
    while True:
        try:
            return await attachments.handle(
                body, request.descriptor, repeated=repeated, delegated=delegated, gone=request.gone
            )
        except NotReadyError as error:
            if not await space.change(until_s=until_s):
                raise NotReadyError(error.code, f"{error.message}: {space.status}", error.details) from None
        except SpaceNeededError as error:
            with space.wanted(error.wish, until_s=until_s):
                waited = await space.change(until_s=until_s)
                why = space.why_not(error.wish)
            if not waited or why.startswith("no member"):
                raise _told(error, why) from None
        repeated = False


def _parted(request: Request) -> tuple[bytes, bytes | None]:
    """The call, and what another IPAM plugin printed, which the executable sends behind it."""
    header = request.headers.get("weave-delegated", "")
    if not header.isdecimal():
        return request.body, None
    end = max(0, len(request.body) - int(header))
    return request.body[:end], request.body[end:]


def _told(error: SpaceNeededError, why: str) -> CniError:
    told = CniError(NO_ADDRESS, f"{error.message}; {why}" if why else error.message, error.details)
    told.cni_version = error.cni_version
    return told
