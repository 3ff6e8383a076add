"""The caller of an endpoint that creates or changes keys."""

from starlette.requests import Request

from latchkey.service.authentication.principal import Principal
from latchkey.service.parts import parts_of
from latchkey.service.problems import Problem


async def hold_caller(request: Request) -> Principal:
    """Lock the caller's own key and owner until COMMIT, and return the caller with its current state.

    Between authentication and COMMIT another call may revoke or narrow the caller's key.
    A call that creates or changes keys must not take effect after that.

    Raises:
        Problem: the key or its owner may no longer make this call; or there is no key, where a key is optional.
    """
    if not request.user.is_authenticated:
        raise Problem("unauthenticated")
    return await parts_of(request.app).verifier.hold(request.scope)
