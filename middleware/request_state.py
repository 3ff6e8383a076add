"""The state of a request, `scope["state"]`, as a typed dict: this module declares the keys of the middleware.

A package that stores more extends the type: `latchkey.service.authentication.state`, `latchkey.service.limits.call`.
"""

from typing import TypedDict, cast

from starlette.types import Scope


class RequestState(TypedDict, total=False):
    """What the middleware stores; `SessionMiddleware` also stores `session`, whose type the application chooses."""

    request_id: str
    has_body: bool
    """Whether the body has any bytes; stored by `WholeBodyMiddleware`."""
    claimed_key: str | None
    """The access key that a refused request names, for the access log."""
    problem_code: str
    """The code of the problem that is the response."""


def request_state(scope: Scope) -> RequestState:
    """Return the state of a request, which is created if the server passed none."""
    return cast(RequestState, scope.setdefault("state", {}))
