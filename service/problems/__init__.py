"""An error that a client receives: `Problem`, answered as `application/problem+json` (RFC 9457).

`kinds.py` lists the codes, and `registry.py` adds those of a team.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from latchkey.middleware.excerpt import excerpt, without_secrets
from latchkey.middleware.request_state import request_state
from latchkey.middleware.root_path import root_path
from latchkey.service.problems.registry import kind_of
from latchkey.service.rule_error import RuleError

T = TypeVar("T")

RETRY_AFTER_S = 1

CHALLENGE = 'Bearer realm="latchkey", Signature realm="latchkey", forms="query message"'
"""The schemes of credentials (RFC 9110, section 11.6.1): a bearer token, and the two forms of signatures."""
INSUFFICIENT_SCOPE = 'Bearer realm="latchkey", error="insufficient_scope"'  # RFC 6750, section 3.1
LONGEST_POINTER = 300  # characters  # characters
LONGEST_DETAIL = 2000  # characters  # characters


class FieldError(msgspec.Struct, frozen=True):
    """One fault in a body: its place, as a JSON pointer, and its description."""

    pointer: str
    detail: str


def bounded_pointer(pointer: str) -> str:
    """Return a JSON pointer of at most `LONGEST_POINTER` characters, without secrets.

    A longer one is cut between two of its steps, so that it points to a value that contains the fault, such as the object
    with a long field name.
    """
    pointer = without_secrets(pointer)
    if len(pointer) <= LONGEST_POINTER:
        return pointer
    return pointer[: LONGEST_POINTER + 1].rpartition("/")[0]


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """An error that is an ASGI application, which sends it as the response.

    Args:
        code: one of `KINDS`, or one of the team's own.
        detail: a sentence about this occurrence; None uses the title. It must not contain secrets or SQL. It may quote
            the client: a text with more than 2000 characters loses its middle, here and in `errors`.
        errors: faults in the body; a pointer with more than 300 characters is cut to a value that contains the fault.
        headers: further headers of the response.
    """

    def __init__(
        self,
        code: str,
        detail: str | None = None,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, detail)
        self.code = code
        self.kind = kind_of(code)
        self.detail = excerpt(detail or f"{self.kind.title}.", LONGEST_DETAIL)
        self.errors = [
            FieldError(bounded_pointer(one.pointer), excerpt(one.detail, LONGEST_DETAIL)) for one in errors
        ]
        self.headers = dict(headers or {})

    def response(self, request_id: str | None) -> "ProblemResponse":
        """Return the response for one request."""
        content: dict[str, Any] = {
            "type": f"{root_path.get()}/problems/{self.code}",
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        if self.errors:
            content["errors"] = self.errors
        headers = {"cache-control": "no-store", **self.headers}
        if self.kind.status == 401:  # noqa: PLR2004 - RFC 9110, section 11.6.1
            headers.setdefault("www-authenticate", CHALLENGE)
        if self.code == "scope_missing":
            headers.setdefault("www-authenticate", INSUFFICIENT_SCOPE)
        # RFC 6585, section 4, and RFC 9110, section 10.2.3
        if self.kind.status in {429, 503} or self.code == "idempotency_in_progress":
            headers.setdefault("retry-after", str(RETRY_AFTER_S))
        return ProblemResponse(self.code, msgspec.json.encode(content), self.kind.status, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        await self.response(request_state(scope).get("request_id"))(scope, receive, send)


class ProblemResponse(Response):
    """The response for a problem, which leaves its code in the state of the request."""

    media_type = "application/problem+json"

    def __init__(self, code: str, content: bytes, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(content, status, headers)
        self.code = code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        request_state(scope)["problem_code"] = self.code
        await super().__call__(scope, receive, send)


def scope_missing(scope: str) -> Problem:
    """Return the problem for a key that lacks a scope, which the challenge names too (RFC 6750, section 3)."""
    return Problem(
        "scope_missing",
        f"The key lacks the scope {scope}.",
        headers={"www-authenticate": f'{INSUFFICIENT_SCOPE}, scope="{scope}"'},
    )


@contextmanager
def invalid_field(pointer: str) -> Iterator[None]:
    """Turn a `RuleError` of the block into the problem 422 `invalid_body`; `pointer` leads to the whole value."""
    try:
        yield
    except RuleError as error:
        raise field_problem(pointer + "".join(f"/{step}" for step in error.path), error.reason) from None


def field_problem(pointer: str, detail: str) -> Problem:
    """Return the problem for a fault in the body that its type could not express."""
    return Problem(
        "invalid_body", f"The body is wrong at {pointer!r}: {detail}.", errors=[FieldError(pointer, detail)]
    )


def wrong_parameter(name: str, reason: str) -> Problem:
    """Return the problem for a parameter of the query whose value breaks a rule."""
    return Problem("invalid_parameter", f"The parameter {name!r} is wrong: {reason}.")


def or_not_found(value: T | None, detail: str | None = None) -> T:
    """Return a value, or raise the problem `not_found` for None: `or_not_found(await Article.get(id))`.

    Args:
        value: what a query has found.
        detail: a sentence about what is missing; None uses the title of the problem.
    """
    if value is None:
        raise Problem("not_found", detail)
    return value
