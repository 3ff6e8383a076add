"""All errors that a client can receive, and their answers (RFC 9457).

    Problem(code)                         raised anywhere, answered as application/problem+json
    ├── 4xx  the caller can correct the request
    └── 5xx  the caller cannot; 503, like 429, has a Retry-After

`KINDS` is the whole list; `GET /problems/<code>` returns the paragraph of each.
"""

import difflib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from latchkey.middleware.excerpt import excerpt
from latchkey.middleware.session_errors import CommitUnknownError, TransactionEndedError
from latchkey.service.database import driver

log = logging.getLogger("latchkey.problems")

RETRY_AFTER_S = 1

NO_SAVEPOINT = 1305


class Kind(msgspec.Struct, frozen=True):
    """One code: its status, its title, and the paragraph that explains it to a client."""

    status: int
    title: str
    explanation: str


KINDS: Mapping[str, Kind] = {
    "malformed_request": Kind(
        400,
        "The request is not valid HTTP",
        "The service could not parse the request, or its body framing, as HTTP/1.1. The connection was "
        "closed. A proxy in between may have changed the request, or the client speaks another protocol.",
    ),
    "malformed_json": Kind(
        400,
        "The body is not JSON",
        "The body is not valid JSON: it is truncated, nested too deeply, or not UTF-8. Nothing was changed. "
        "Correct the body and send it again.",
    ),
    "invalid_parameter": Kind(
        400,
        "A query parameter is invalid",
        "A query parameter is unknown, repeated, or has a value in the wrong format; the detail names it. "
        "Unknown parameters are refused, because a misspelled filter would return too much.",
    ),
    "invalid_cursor": Kind(
        400,
        "The cursor is invalid",
        "A cursor is an opaque text that continues one list with the same filters. Use the next_cursor of the "
        "previous page unchanged and with the same filters, or start without a cursor.",
    ),
    "invalid_idempotency_key": Kind(
        400,
        "The Idempotency-Key is invalid",
        "The header is repeated, is neither a quoted string nor a plain token, has more than 255 characters, "
        "or was sent to an operation that does not accept it; the detail says which. Nothing was changed.",
    ),
    "two_credentials": Kind(
        400,
        "The request has more than one credential",
        "The request contains credentials of more than one kind, for example an Authorization header and a "
        "signed query. The service does not guess which one is meant. Send exactly one.",
    ),
    "unauthenticated": Kind(
        401,
        "Not authenticated",
        "The request has no credential, or the credential is not valid. If it has a wrong shape, the detail names the "
        "part and the expected form. Otherwise it is unknown, outside the clock window, or its signature belongs to "
        "another request or secret: these cases have the same answer on purpose. Check the key, the clock, and the "
        "text that was signed, or let the service explain the signature.",
    ),
    "key_revoked": Kind(
        401,
        "The key was revoked",
        "The credential is valid, but the key was revoked and cannot be used again. Ask the operator for a "
        "new key.",
    ),
    "key_expired": Kind(
        401,
        "The key has expired",
        "The credential is valid, but the expires_at of the key has passed. An operator can extend it or "
        "create a new key.",
    ),
    "owner_inactive": Kind(
        401,
        "The owner of the key is not active",
        "The credential is valid, but the user that owns the key is blocked or deleted.",
    ),
    "replayed": Kind(
        401,
        "The signed call was sent before",
        "A signature is accepted once. Its nonce was used before, or, without a nonce, the same signature "
        "was. Sign every call again, including the retry of a call that failed.",
    ),
    "digest_mismatch": Kind(
        401,
        "The body does not match the signature",
        "The body does not have the digest that the signature covers. Sign the exact bytes that are sent. A "
        "proxy, or a second serialization, may have changed them.",
    ),
    "network_not_allowed": Kind(
        403,
        "The key cannot be used from this address",
        "The credential is valid, but the client address is not in the allowed_networks of the key. Call from "
        "an allowed network, or ask the operator to add yours. A call from an unknown address is refused as "
        "well.",
    ),
    "scope_missing": Kind(
        403,
        "The key lacks a scope",
        "The key is valid, but it does not have the scope that the endpoint requires; the detail names the "
        "scope.",
    ),
    "scope_not_held": Kind(
        403,
        "A key cannot grant a scope that it does not have",
        "To create, change or rotate a key, the calling key needs every scope that the key has or gets; the "
        "detail names the missing scopes.",
    ),
    "key_wider": Kind(
        403,
        "The key has wider permissions than the calling key",
        "Under /v1/me/keys a key can change and rotate only keys that are not wider than itself: they must "
        "not expire later, have other networks, or have higher limits. The detail names what is wider. Use "
        "another key, or ask the operator.",
    ),
    "coverage_required": Kind(
        403,
        "The signature covers too little",
        "A signed call with an unsafe method must sign its method, its path and, with a body, its "
        "content_sha256. Otherwise the same signature would be valid for another call. The detail names what "
        "is missing.",
    ),
    "cost_above_limit": Kind(
        403,
        "The call costs more than a limit allows",
        "The call costs more units than a limit or a quota of the key or its owner ever allows, so waiting "
        "does not help. The detail names the limit. An operator can raise it.",
    ),
    "not_found": Kind(
        404,
        "Not found",
        "The path or the row does not exist. An id that is not a positive 64-bit integer identifies no row.",
    ),
    "method_not_allowed": Kind(
        405,
        "Method not allowed",
        "The path exists, but it does not support this method; the Allow header lists the supported methods.",
    ),
    "body_timeout": Kind(
        408,
        "The body did not arrive in time",
        "The body must arrive completely within a number of seconds that the operator sets. Nothing was "
        "changed, and the connection was closed. Sign the request again and send it on a faster connection.",
    ),
    "headers_timeout": Kind(
        408,
        "The headers did not arrive in time",
        "The headers of the request were not complete in time, and the connection was closed. Nothing was "
        "changed. Send the request again without pauses.",
    ),
    "conflict": Kind(
        409,
        "The change conflicts with stored data",
        "The database refused the change because it would violate a constraint. Read the row again before you "
        "retry.",
    ),
    "changed_meanwhile": Kind(
        409,
        "The row was changed by another call",
        "Another call changed or deleted the row after this call had read it. This call changed nothing. Read "
        "the row again before you retry.",
    ),
    "email_taken": Kind(
        409,
        "The email is taken",
        "Another user has this email; upper and lower case are the same. The email of a deleted user stays "
        "taken.",
    ),
    "too_many_keys": Kind(
        409,
        "The owner has too many keys",
        "The number of keys of an owner is limited, and revoked keys count. Rotate a key instead of creating "
        "a new one, or ask the operator to raise LATCHKEY_KEYS_PER_OWNER.",
    ),
    "user_deleted": Kind(
        409,
        "The user is deleted",
        "A deleted user can be read but not changed.",
    ),
    "key_not_active": Kind(
        409,
        "The key is revoked",
        "A revoked key can be read but not changed.",
    ),
    "version_changed": Kind(
        409,
        "The secret has another version",
        "The rotation names the version that it replaces, but the secret of the key has another version: it "
        "was rotated before. Nothing was changed. Read the key before you rotate it again.",
    ),
    "user_owns_caller": Kind(
        409,
        "The user owns the key of this call",
        "To delete or block this user would end the key that makes this call, and all other keys of the user. "
        "Nothing was changed. Send the call again with `?force=true` to do it all the same. Only another operator "
        "key or the command line can then unblock the user, and nothing restores a deleted one.",
    ),
    "user_not_active": Kind(
        409,
        "The user is not active",
        "Keys are created for active users only; this user is blocked or deleted.",
    ),
    "idempotency_in_progress": Kind(
        409,
        "A call with this Idempotency-Key is in progress",
        "Another call with the same key, method and path has not finished yet. Send the call again after "
        "Retry-After seconds with the same Idempotency-Key. It gets the answer of the other call, or runs if "
        "that call failed.",
    ),
    "body_too_large": Kind(
        413,
        "The body is too large",
        "The body is larger than the limit that the operator has set.",
    ),
    "uri_too_long": Kind(
        414,
        "The URL is too long",
        "The path and the query are longer than the service accepts. The connection was closed.",
    ),
    "unsupported_media_type": Kind(
        415,
        "The body is not application/json",
        "Bodies are JSON in UTF-8 with the header Content-Type: application/json.",
    ),
    "invalid_body": Kind(
        422,
        "The body has the wrong shape",
        "The JSON is valid, but a field is missing, unknown, of the wrong type, or out of range. `errors` "
        "contains a JSON pointer (RFC 6901) to the field. Nothing was changed.",
    ),
    "idempotency_mismatch": Kind(
        422,
        "The Idempotency-Key was used for another call",
        "A call with the same key, method and path was answered before, with another query or body. Nothing "
        "was changed. Use a new key for a new call. A key expires after 24 hours.",
    ),
    "too_many_failures": Kind(
        429,
        "Too many failed authentications",
        "In the last minute too many calls from this address, with this access key or with bearer tokens, "
        "failed to authenticate. Until Retry-After seconds have passed all such calls are refused, even valid "
        "ones. Correct the key, the clock, or the text that is signed.",
    ),
    "too_many_stored_answers": Kind(
        429,
        "The key has too many stored answers",
        "Answers to calls with an Idempotency-Key are stored for 24 hours, and their number for one access "
        "key is limited. Nothing was changed. Send the call again after Retry-After seconds, or without the "
        "header if it may take effect twice.",
    ),
    "rate_limited": Kind(
        429,
        "A rate limit is reached",
        "The key, or all keys of its owner together, have reached a rate limit. The detail names the limit; "
        "the prefix `owner.` marks a limit of the owner. The call was not charged. It fits after Retry-After "
        "seconds, unless other calls use the units first.",
    ),
    "quota_exceeded": Kind(
        429,
        "A quota is used up",
        "The key, or all keys of its owner together, have used up the quota of this day or month, in UTC. The "
        "call was not charged. Retry-After is the number of seconds until the next period. An operator can "
        "raise the quota.",
    ),
    "headers_too_large": Kind(
        431,
        "The headers are too large",
        "The request line, the headers or the trailers have more bytes or lines than the service accepts. The "
        "connection was closed. Send fewer or shorter headers.",
    ),
    "internal_error": Kind(
        500,
        "Internal error",
        "The service failed. Give the request_id to the operator, who finds the cause in the log.",
    ),
    "upgrade_with_body": Kind(
        501,
        "A request with a body cannot ask for another protocol",
        "The request has the headers Upgrade and Connection: upgrade, and a body. This service does not support that, "
        "and the connection was closed. Nothing was done. Send the request again without these headers; "
        "a client that offers HTTP/2 in this way has a setting for HTTP/1.1.",
    ),
    "commit_unknown": Kind(
        500,
        "It is unknown whether the change was committed",
        "The connection to the database was lost during COMMIT, so the change may be stored or not. Read the "
        "row before you retry, or retry with the same Idempotency-Key.",
    ),
    "server_busy": Kind(
        503,
        "The service is at its capacity",
        "The service has reached its limit of connections, waiting requests or memory for bodies, or closed "
        "this idle connection in favour of another one. The request was not processed. Try again after "
        "Retry-After seconds.",
    ),
    "server_not_started": Kind(
        503,
        "The server has not started the application",
        "The service runs in a server that has not started it; the operator must correct this. Until then, requests "
        "with Transfer-Encoding or Upgrade are refused, because that server may parse them wrongly. Nothing was done. "
        "A request with Content-Length is accepted.",
    ),
    "unavailable": Kind(
        503,
        "The service is temporarily unavailable",
        "The database cannot be reached or is too busy. Nothing was changed. Try again after Retry-After "
        "seconds.",
    ),
}


class ProblemType(Kind, frozen=True, kw_only=True):
    """A team's own problem; `create_app(problems=[...])` registers it.

    Args:
        code: lower-case words separated by underscores, as in `order_closed`.
        status: 400 to 599.
        title: a sentence without its full stop, the same for every occurrence.
        explanation: the paragraph at `/problems/<code>`.
    """

    code: str


class UnknownProblemError(LookupError):
    """A code was used that is not registered."""

    def __init__(self, code: str) -> None:
        near = difflib.get_close_matches(code, known(), 1)
        meant = f"; did you mean {near[0]!r}?" if near else "."
        super().__init__(
            f"there is no problem {code!r}: register it, `create_app(problems=[ProblemType(code={code!r}, ...)])`{meant}"
        )


class ProblemTypeError(TypeError):
    """A problem type cannot be registered; the service does not start with it."""


_own: dict[str, Kind] = {}


def known() -> Mapping[str, Kind]:
    """Return all codes that may be raised: Latchkey's, then those of the application that was built last."""
    return {**KINDS, **_own}


def register(types: Iterable[ProblemType]) -> None:
    """Register a team's own problems, replacing those that were registered before.

    Raises:
        ProblemTypeError: one has a wrong form, is given twice, or has a code of Latchkey's.
    """
    found: dict[str, Kind] = {}
    for one in types:
        if not isinstance(one, ProblemType):
            raise ProblemTypeError(f"{one!r} is not a ProblemType.")
        if not CODE.fullmatch(one.code):
            raise ProblemTypeError(f"{one.code!r}: a code must be lower-case words separated by underscores.")
        if one.code in KINDS or one.code in found:
            raise ProblemTypeError(f"{one.code!r}: a problem with this code exists already.")
        if one.status not in set(HTTPStatus) or one.status < 400:  # noqa: PLR2004 - RFC 9110, section 15.5
            raise ProblemTypeError(
                f"{one.code!r}: the status of a problem must be from 400 to 599, not {one.status}."
            )
        if not one.title.strip() or one.title.endswith(".") or not one.explanation.strip():
            raise ProblemTypeError(
                f"{one.code!r}: a problem must have a title without a full stop, and an explanation."
            )
        found[one.code] = one
    _own.clear()
    _own.update(found)


CODE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


class FieldError(msgspec.Struct, frozen=True):
    """One fault in a body: its place, as a JSON pointer, and its description."""

    pointer: str
    detail: str


LONGEST_POINTER = 300  # characters
LONGEST_DETAIL = 2000  # characters


def bounded_pointer(pointer: str) -> str:
    """Return a JSON pointer of at most `LONGEST_POINTER` characters.

    A longer one is cut between two of its steps, so that it points to a value that contains the fault, such as the object
    with a long field name.
    """
    if len(pointer) <= LONGEST_POINTER:
        return pointer
    return pointer[: LONGEST_POINTER + 1].rpartition("/")[0]


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """An error that is an ASGI application, which sends it as the answer.

    Args:
        code: one of `KINDS`, or one of the team's own.
        detail: a sentence about this occurrence; None uses the title. It must not contain secrets or SQL. It may quote
            the client: a text with more than 2000 characters loses its middle, here and in `errors`.
        errors: faults in the body; a pointer with more than 300 characters is cut to a value that contains the fault.
        headers: further headers of the answer.
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
        kind = KINDS.get(code) or _own.get(code)
        if kind is None:
            raise UnknownProblemError(code)
        self.code = code
        self.kind = kind
        self.detail = excerpt(detail or f"{self.kind.title}.", LONGEST_DETAIL)
        self.errors = [
            FieldError(bounded_pointer(one.pointer), excerpt(one.detail, LONGEST_DETAIL)) for one in errors
        ]
        self.headers = dict(headers or {})

    def response(self, request_id: str | None) -> Response:
        """Return the response for one request."""
        content: dict[str, Any] = {
            "type": f"/problems/{self.code}",
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
            headers["www-authenticate"] = 'Bearer realm="latchkey"'
        # RFC 6585, section 4, and RFC 9110, section 10.2.3
        if self.kind.status in {429, 503} or self.code == "idempotency_in_progress":
            headers.setdefault("retry-after", str(RETRY_AFTER_S))
        return Response(
            msgspec.json.encode(content), self.kind.status, headers, media_type="application/problem+json"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        await self.response(scope.get("state", {}).get("request_id"))(scope, receive, send)


def field_problem(pointer: str, detail: str) -> Problem:
    """Return the problem for a fault in the body that its type could not express."""
    return Problem(
        "invalid_body", f"The body is wrong at {pointer!r}: {detail}.", errors=[FieldError(pointer, detail)]
    )


def is_conflict(error: BaseException | None) -> bool:
    """Return whether a unit of work lost a conflict with another one, so that running it again may succeed.

    The database ended its transaction, or a row no longer had the version that was read.
    """
    if isinstance(error, StaleDataError | TransactionEndedError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    number = error_number(error)
    if number == NO_SAVEPOINT:
        return is_conflict(behind(error))
    return driver.is_conflict(error.orig) or "40001" in str(getattr(error.orig, "sqlstate", ""))


def behind(error: DBAPIError) -> BaseException | None:
    """Return the error that made the server drop a SAVEPOINT together with its transaction, before the rollback to it failed."""
    found = error.__context__
    while found is not None and not (isinstance(found, DBAPIError) and error_number(found) != NO_SAVEPOINT):
        found = found.__context__
    return found


def is_locked(error: DBAPIError) -> bool:
    """Return whether a wait for a lock timed out; it may last as long again, so nothing is run again.

    On SQLite the lock is that of the single writer.
    """
    return error_number(error) in driver.LOCKED or getattr(error.orig, "sqlite_errorname", "").startswith(
        "SQLITE_BUSY"
    )


def is_unreachable(error: DBAPIError) -> bool:
    """Return whether the server or the network has a fault, so that the same call may succeed later."""
    return error.connection_invalidated or driver.is_unavailable(error.orig)


def error_number(error: DBAPIError) -> int | None:
    """Return the server's error number, if the driver provides one."""
    arguments = getattr(error.orig, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else None


def of_exception(error: BaseException) -> Problem | None:  # noqa: PLR0911 - a table, read line by line
    """Return the problem for an exception; None if the database did not cause it."""
    match error:
        case Problem():
            return error
        case BaseExceptionGroup():
            return next((found for one in error.exceptions if (found := of_exception(one))), None)
        case CommitUnknownError():
            return Problem("commit_unknown")
        case IntegrityError():
            return Problem("conflict")
        case StaleDataError():
            return Problem("changed_meanwhile")
        case PoolTimeoutError():
            return Problem("unavailable", "Every connection to the database is in use.")
        case DBAPIError() | TransactionEndedError() if is_conflict(error):
            return Problem("unavailable", "The change conflicted with other changes.")
        case DBAPIError() if is_locked(error):
            return Problem("unavailable", "Another change holds a lock that the call needs.")
        case DBAPIError() if is_unreachable(error):
            return Problem("unavailable", "The database cannot be reached.")
        case _:
            return None


def answer_failure(error: Exception) -> Problem | None:
    """Return the problem for an exception of the database, and log the details that the client does not get."""
    problem = of_exception(error)
    if problem is not None and problem.kind.status >= 500:  # noqa: PLR2004 - RFC 9110, section 15.6
        # Only the driver's message: an error of SQLAlchemy would show the statement and its values.
        log.warning("%s: %s", problem.code, getattr(error, "orig", error))
    return problem


async def answer_problem(request: Request, error: Exception) -> Response:
    """Return the response for a Problem that was raised; a Starlette exception handler."""
    assert isinstance(error, Problem)  # noqa: S101 - registered for Problem
    return error.response(request.scope["state"].get("request_id"))


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Return the response for a 404 or 405 of the router; any other HTTPException is raised again.

    Endpoints raise `Problem`, so another status is their fault.
    """
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for HTTPException
    match error.status_code:
        case 404:
            problem = Problem("not_found")
        case 405:
            allowed = ", ".join(sorted(allowed_methods(request)))
            problem = Problem(
                "method_not_allowed", f"This path supports {allowed}.", headers={"allow": allowed}
            )
        case _:
            raise error
    return problem.response(request.scope["state"].get("request_id"))


def allowed_methods(request: Request) -> set[str]:
    """Return the methods of all routes at this path; Starlette's own list stops at the first route."""
    found: set[str] = set()
    for route in request.app.routes:
        if route.path_regex.match(request.scope["path"]):
            found |= route.methods or set()
    return found
