"""The gate for proxies: `/v1/gate`."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from latchkey.service.authentication.state import call_state
from latchkey.service.gate.original import (
    FORWARDED,
    ORIGINAL,
    OriginalRequest,
    headers_of_envoy,
    read_original,
)
from latchkey.service.parts import parts_of


async def ask_gate(request: Request) -> Response:
    """Decide about a request that a proxy received, such as Caddy or Traefik.

    The proxy describes the request in `X-Forwarded-Method`, `-Uri`, `-Host`, `-Proto` and `-For`, and passes its other
    headers on. The credential of the request is checked, charged and protected against replays by the rules of a call to
    this service. The headers of the response identify the caller.
    """
    return await decided(request, lambda scope: read_original(scope["headers"], FORWARDED))


async def ask_gate_for_nginx(request: Request) -> Response:
    """Decide about a request that nginx received, for `auth_request`.

    The proxy describes the request in `X-Original-Method`, `-URI`, `-Host` and `-Proto`, and in `X-Forwarded-For`.
    nginx turns every response other than 2xx, 401 and 403 into a 500, so every other refusal is a 403 here.
    `X-Latchkey-Status` is its real status, `X-Latchkey-Code` its code, and `X-Latchkey-Problem` its body, in ASCII.
    """
    return await decided(request, lambda scope: read_original(scope["headers"], ORIGINAL))


async def ask_gate_for_envoy(request: Request) -> Response:
    """Decide about a request that Envoy received, for its HTTP `ext_authz`.

    Envoy sends the method, the host and the headers of the request. Its `path_prefix` is `/v1/gate/envoy?uri=`, so that the
    path and the query of the request follow. Envoy takes only 200 for a permission.
    """
    return await decided(request, lambda scope: read_original(headers_of_envoy(scope), FORWARDED), status=200)


async def decided(
    request: Request, describe: Callable[[Scope], OriginalRequest], *, status: int = 204
) -> Response:
    """Return the permission, or raise the problem with which the request is refused."""
    body = await request.body() if call_state(request.scope).get("has_body") else b""
    headers = await parts_of(request.app).gate.permit(request.scope, describe, body)
    return Response(status_code=status, headers=headers)
