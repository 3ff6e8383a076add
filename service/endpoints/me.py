"""The caller: `/v1/me`."""

from starlette.requests import Request

from service import shapes


async def read_me(request: Request) -> shapes.Me:
    """Read who calls, and with which key."""
    return shapes.Me(user=request.user.user, key=request.user.key)
