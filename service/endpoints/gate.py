"""The gate for proxies: `/v1/gate`."""

from starlette.requests import Request
from starlette.responses import Response

from latchkey.service.authentication.state import call_state
from latchkey.service.gate.original import FORWARDED, ORIGINAL, Description
from latchkey.service.parts import parts_of


async def ask_gate(request: Request) -> Response:
    """Decide about a request that a proxy received, such as Caddy or Traefik.

    The proxy describes the request in `X-Forwarded-Method`, `-Uri`, `-Host`, `-Proto` and `-For`, and passes its other
    headers on. The credential of the request is checked, charged and protected against replays by the rules of a call to
    this service. The headers of the response identify the caller.
    """
    return await decided(request, FORWARDED)


async def ask_gate_for_nginx(request: Request) -> Response:
    """Decide about a request that nginx received, for `auth_request`.

    The proxy describes the request in `X-Original-Method`, `-URI`, `-Host` and `-Proto`, and in `X-Forwarded-For`.
    nginx turns every response other than 2xx, 401 and 403 into a 500, so every other refusal is a 403 here.
    `X-Latchkey-Status` is its real status, `X-Latchkey-Code` its code, and `X-Latchkey-Problem` its body, in ASCII.
    """
    return await decided(request, ORIGINAL)


async def decided(request: Request, described_by: Description) -> Response:
    """Return the permission, or raise the problem with which the request is refused."""
    body = await request.body() if call_state(request.scope).get("has_body") else b""
    headers = await parts_of(request.app).gate.permit(request.scope, described_by, body)
    return Response(status_code=204, headers=headers)
