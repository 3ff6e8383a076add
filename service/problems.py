"""Every error that a client can meet, and how it is answered (RFC 9457).

    Problem(code)                         raised anywhere, answered as application/problem+json
    ├── 4xx  what the caller can change
    └── 5xx  what it cannot; 503, as 429, says when to try again

`KINDS` is the whole list; `GET /problems/<code>` shows the paragraph of each.
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

from latchkey.service.database import driver
from latchkey.service.database.session import CommitUnknownError
from latchkey.service.database.transaction import TransactionEndedError

log = logging.getLogger("latchkey.problems")

RETRY_AFTER_S = 1

LOCK_WAIT = 1205  # a lock was waited for in vain
NO_SAVEPOINT = 1305
# The server broke the statement off: killed, over its time limit, over the user's limits.
BROKEN_OFF = frozenset({1203, 1226, 1317, 1969})
# Too many connections, cannot connect, gone, lost, shutting down, no quorum (Galera), read-only server.
UNREACHABLE = frozenset({1040, 1047, 1053, 1290, 2002, 2003, 2005, 2006, 2013, 2055})


class Kind(msgspec.Struct, frozen=True):
    """One code: its status, its title, and the paragraph that explains it to a client."""

    status: int
    title: str
    explanation: str


KINDS: Mapping[str, Kind] = {
    "malformed_request": Kind(
        400,
        "The request is not HTTP",
        "What arrived could not be read as an HTTP/1.1 request, or as the body of one. The connection was closed. "
        "Something between the client and this service may have changed it, or speaks another protocol.",
    ),
    "malformed_json": Kind(
        400,
        "The body is not JSON",
        "The body could not be read as JSON: it is cut off, nested too deeply, or not UTF-8. "
        "Nothing was changed. Mend the body and send it again.",
    ),
    "invalid_parameter": Kind(
        400,
        "A query parameter is wrong",
        "A parameter of the query is unknown, is there twice, or has a value of the wrong form; the detail names it. "
        "Parameters are never ignored, because a filter with a typo would answer too much.",
    ),
    "invalid_cursor": Kind(
        400,
        "The cursor is not one of ours",
        "A cursor is an opaque text that continues one list with the same filters. "
        "Use the next_cursor of the page before, unchanged and with the filters of that page, or start without one.",
    ),
    "invalid_idempotency_key": Kind(
        400,
        "The Idempotency-Key cannot be taken",
        "The header is there twice, is no string in quotes and no plain word either, has more than 255 characters, or "
        "was sent to an operation that takes none; the detail says which. Nothing was changed.",
    ),
    "two_credentials": Kind(
        400,
        "More than one credential",
        "The request carries credentials of more than one kind, for example an Authorization header and a signed "
        "query. Which one counts would be a guess, so none does. Send exactly one.",
    ),
    "unauthenticated": Kind(
        401,
        "Not authenticated",
        "No credential was sent, or it does not prove anything: it is unknown, mistyped, expired in its clock window, "
        "or its signature is of another request. All of these look the same on purpose. "
        "Check the key, the clock, and what exactly was signed.",
    ),
    "key_revoked": Kind(
        401,
        "The key was revoked",
        "The credential is right, but the key was revoked and will not work again. Ask the operator for a new one.",
    ),
    "key_expired": Kind(
        401,
        "The key has expired",
        "The credential is right, but the key's expires_at has passed. An operator can move it or make a new key.",
    ),
    "owner_inactive": Kind(
        401,
        "The key's owner is not active",
        "The credential is right, but the user that holds the key is blocked or deleted.",
    ),
    "replayed": Kind(
        401,
        "The signed call was sent before",
        "A signature is good for one call. Its nonce has been used, or, without a nonce, the very same signature. "
        "Sign every call anew, also when you repeat one that failed.",
    ),
    "digest_mismatch": Kind(
        401,
        "The body is not the signed one",
        "The body that arrived does not have the digest that the signature covers. "
        "Sign the bytes that are sent; something on the way, or a second serialisation, changed them.",
    ),
    "network_not_allowed": Kind(
        403,
        "The key may not be used from this address",
        "The credential is right, but the key's allowed_networks do not hold the address that the call came from. "
        "Call from an allowed one, or ask the operator to allow yours; a call whose address cannot be told is refused too.",
    ),
    "scope_missing": Kind(
        403,
        "The key lacks a scope",
        "The key is valid, but the endpoint needs a scope that the key was not given; the detail names it.",
    ),
    "scope_not_held": Kind(
        403,
        "A key cannot give what it does not hold",
        "Creating, changing or rotating a key needs every scope that the key has or gets; "
        "the detail names those that are missing.",
    ),
    "key_wider": Kind(
        403,
        "The key reaches further than the one that asks",
        "Under /v1/me/keys a key changes and rotates only keys that reach no further than itself: "
        "such a key never outlives it, nor is used from other networks. The detail names what is wider. Ask with another key, or ask the operator.",
    ),
    "coverage_required": Kind(
        403,
        "The signature covers too little",
        "A signed call that changes something must sign its method, its path and, with a body, its content_sha256; "
        "else the same signature would be good for another call. The detail names what is missing.",
    ),
    "cost_above_limit": Kind(
        403,
        "The call costs more than a limit ever allows",
        "The endpoint costs more units than a limit or a quota of the key or its owner has at all, so waiting does not help; "
        "the detail names it. An operator can raise it.",
    ),
    "not_found": Kind(
        404,
        "There is nothing here",
        "No such path, or no such row. An id that is not a positive 64-bit integer names no row either.",
    ),
    "method_not_allowed": Kind(
        405,
        "The path does not take this method",
        "The path exists, but not with this method; the Allow header lists those that it takes.",
    ),
    "body_timeout": Kind(
        408,
        "The body did not arrive in time",
        "The whole body has to arrive within a number of seconds, which is a setting of the operator. "
        "Nothing was changed, and the connection is closed. Send the request again, signed anew, on a faster connection.",
    ),
    "headers_timeout": Kind(
        408,
        "The headers took too long",
        "The headers of the request were not complete in time, and the connection was closed. "
        "Nothing was done. Send the request again, in one go.",
    ),
    "conflict": Kind(
        409,
        "The change contradicts what is stored",
        "The database refused the change because it would break a rule between rows. Read the row again and decide anew.",
    ),
    "changed_meanwhile": Kind(
        409,
        "The row was changed meanwhile",
        "Another call changed or deleted the row between the moment it was read here and the moment it was to be changed. "
        "Nothing was changed by this call. Read the row again and decide anew.",
    ),
    "email_taken": Kind(
        409,
        "The email is taken",
        "Another user has this email, in whatever letter case; that of a deleted user stays taken.",
    ),
    "too_many_keys": Kind(
        409,
        "The owner has too many keys",
        "An owner may have a limited number of keys, and revoked ones count. "
        "Rotate a key instead of creating a new one, or ask the operator to raise LATCHKEY_KEYS_PER_OWNER.",
    ),
    "user_deleted": Kind(
        409,
        "The user is deleted",
        "A deleted user can be read but no longer changed.",
    ),
    "key_not_active": Kind(
        409,
        "The key is revoked",
        "A revoked key can be read but no longer changed.",
    ),
    "version_changed": Kind(
        409,
        "The secret has another version",
        "The rotation names the version that it replaces, and the key's secret has another one: somebody was first. "
        "Nothing was changed. Read the key before you rotate it again.",
    ),
    "user_not_active": Kind(
        409,
        "The user is not active",
        "A key is only made for an active user; this one is blocked or deleted.",
    ),
    "idempotency_in_progress": Kind(
        409,
        "A call with this Idempotency-Key is under way",
        "Another call with the same key, method and path has not ended yet, and was waited for in vain. "
        "Send it again after Retry-After seconds, with the same Idempotency-Key: it is answered as the other one was, "
        "or runs if that one failed.",
    ),
    "body_too_large": Kind(
        413,
        "The body is too large",
        "The body is larger than this service accepts; the limit is a setting of its operator.",
    ),
    "uri_too_long": Kind(
        414,
        "The URL is too long",
        "The path and the query are longer than this service accepts. The connection was closed.",
    ),
    "unsupported_media_type": Kind(
        415,
        "The body is not application/json",
        "Bodies are JSON in UTF-8, and say so: Content-Type: application/json.",
    ),
    "invalid_body": Kind(
        422,
        "The body has the wrong shape",
        "The JSON is well-formed, but a field is missing, unknown, of the wrong type, or out of bounds. "
        "`errors` points at it with a JSON pointer (RFC 6901). Nothing was changed.",
    ),
    "idempotency_mismatch": Kind(
        422,
        "The Idempotency-Key was used for another call",
        "A call with the same key, method and path was answered before, and its query or body was another one. "
        "Nothing was changed. Take a new key for a new call; a key is forgotten after 24 hours.",
    ),
    "too_many_failures": Kind(
        429,
        "Too many calls proved nothing",
        "In the last minute too many calls from this address, with this public id or with bearer tokens, failed to "
        "prove who sent them. Until Retry-After seconds have passed none is looked at, a right one neither. "
        "Mend what fails: the key, the clock, or what is signed.",
    ),
    "too_many_stored_answers": Kind(
        429,
        "The key has too many stored answers",
        "The answers to calls with an Idempotency-Key are stored for 24 hours, and an access key may have a limited number of them. "
        "Nothing was changed. Send the call again after Retry-After seconds, or without the header if it may happen twice.",
    ),
    "rate_limited": Kind(
        429,
        "A limit is reached",
        "The key, or all keys of its owner together, may do no more within a stretch of time; the detail names the limit, "
        "and an `owner.` before its name says that it is the owner's. The call was charged to no limit. "
        "After Retry-After seconds it fits, unless other calls were faster.",
    ),
    "quota_exceeded": Kind(
        429,
        "A quota is spent",
        "The key, or all keys of its owner together, may do no more on this day or in this month, in UTC. "
        "The call was charged to no limit. Retry-After is how many seconds it is to the next one; an operator can raise the quota.",
    ),
    "headers_too_large": Kind(
        431,
        "The headers are too large",
        "The request line, the headers and what follows a body have more bytes or lines than this service accepts. "
        "The connection was closed. Send fewer or shorter headers.",
    ),
    "internal_error": Kind(
        500,
        "Something went wrong here",
        "An error that is ours. Tell the operator the request_id, which leads to the log.",
    ),
    "commit_unknown": Kind(
        500,
        "It is not known whether the change was kept",
        "The connection to the database was lost while the change was being committed. It may have been kept or not: "
        "read before you repeat it, or repeat it with the Idempotency-Key that it was sent with.",
    ),
    "server_busy": Kind(
        503,
        "The service has no space for the request",
        "The service holds as many connections, waiting requests or bytes of bodies as its settings allow, or gave the "
        "space of this connection, which sent nothing for a while, to another. The request was not taken. "
        "Try again after Retry-After seconds.",
    ),
    "unavailable": Kind(
        503,
        "Out of reach for the moment",
        "The database cannot be reached, or is too busy. Nothing was changed. Try again after Retry-After seconds.",
    ),
}


class ProblemType(Kind, frozen=True, kw_only=True):
    """A problem of a team's own; `create_app(problems=[...])` registers it.

    Args:
        code: lower-case words with an underscore between, as in `order_closed`.
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
    """Return all codes that may be raised: Latchkey's, then those of the team whose application was built last."""
    return {**KINDS, **_own}


def register(types: Iterable[ProblemType]) -> None:
    """Register the problems of a team's own, in the place of those that were registered before.

    Raises:
        ProblemTypeError: one has a wrong form, is there twice, or has a code of Latchkey's.
    """
    found: dict[str, Kind] = {}
    for one in types:
        if not isinstance(one, ProblemType):
            raise ProblemTypeError(f"{one!r} is no ProblemType.")
        if not CODE.fullmatch(one.code):
            raise ProblemTypeError(f"{one.code!r}: a code is lower-case words with an underscore between.")
        if one.code in KINDS or one.code in found:
            raise ProblemTypeError(f"{one.code!r}: there is a problem of this code already.")
        if one.status not in set(HTTPStatus) or one.status < 400:  # noqa: PLR2004 - RFC 9110, section 15.5
            raise ProblemTypeError(
                f"{one.code!r}: the status of a problem is one of 400 to 599, not {one.status}."
            )
        if not one.title.strip() or one.title.endswith(".") or not one.explanation.strip():
            raise ProblemTypeError(
                f"{one.code!r}: a problem has a title without a full stop, and an explanation."
            )
        found[one.code] = one
    _own.clear()
    _own.update(found)


CODE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


class FieldError(msgspec.Struct, frozen=True):
    """One fault of a body: where, as a JSON pointer, and what."""

    pointer: str
    detail: str


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """An error that answers itself: an ASGI application.

    Args:
        code: one of `KINDS`, or of a team's own.
        detail: a sentence about this occurrence; the kind's title when None. No secret, no SQL.
        errors: faults of the body.
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
        self.detail = detail or f"{self.kind.title}."
        self.errors = errors
        self.headers = dict(headers or {})

    def response(self, request_id: str | None) -> Response:
        """Render for one request."""
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
        """Answer."""
        await self.response(scope.get("state", {}).get("request_id"))(scope, receive, send)


def field_problem(pointer: str, detail: str) -> Problem:
    """A fault of the body that its type could not tell."""
    return Problem(
        "invalid_body", f"The body is wrong at {pointer!r}: {detail}.", errors=[FieldError(pointer, detail)]
    )


def is_conflict(error: BaseException | None) -> bool:
    """Return whether a unit of work lost against another one: running it again may work.

    The database ended its transaction, or a row did not have the version any more that was read.
    """
    if isinstance(error, StaleDataError | TransactionEndedError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    number = error_number(error)
    if number == NO_SAVEPOINT:
        return is_conflict(behind(error))
    return (
        number == LOCK_WAIT
        or driver.is_conflict(error.orig)
        or "40001" in str(getattr(error.orig, "sqlstate", ""))
    )


def behind(error: DBAPIError) -> BaseException | None:
    """Return what made the server forget a SAVEPOINT: it went with its transaction, and rolling back to it failed."""
    found = error.__context__
    while found is not None and not (isinstance(found, DBAPIError) and error_number(found) != NO_SAVEPOINT):
        found = found.__context__
    return found


def is_locked(error: DBAPIError) -> bool:
    """Return whether SQLite waited in vain for its one writer; it has waited for long, so nothing is run again."""
    return getattr(error.orig, "sqlite_errorname", "").startswith("SQLITE_BUSY")


def is_unreachable(error: DBAPIError) -> bool:
    """Return whether the server, or the way to it, is in trouble, so that the same call may succeed later."""
    return (
        error.connection_invalidated
        or isinstance(error.orig, driver.ConnectError)
        or error_number(error) in UNREACHABLE | BROKEN_OFF
    )


def error_number(error: DBAPIError) -> int | None:
    """Return the server's error number, where the driver gives one."""
    arguments = getattr(error.orig, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else None


def of_exception(error: BaseException) -> Problem | None:  # noqa: PLR0911 - a table, read line by line
    """Turn what a request ran into into its problem; None for what is not the database's doing."""
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
            return Problem("unavailable", "The change lost against other changes.")
        case DBAPIError() if is_locked(error):
            return Problem("unavailable", "The database is busy with another change.")
        case DBAPIError() if is_unreachable(error):
            return Problem("unavailable", "The database cannot be reached.")
        case _:
            return None


def answer_failure(error: Exception) -> Problem | None:
    """Turn what the database caused into its problem, and tell the operator what the client is not told."""
    problem = of_exception(error)
    if problem is not None and problem.kind.status >= 500:  # noqa: PLR2004 - RFC 9110, section 15.6
        # The driver's own words: an error of SQLAlchemy's would show the statement and its values.
        log.warning("%s: %s", problem.code, getattr(error, "orig", error))
    return problem


async def answer_problem(request: Request, error: Exception) -> Response:
    """Return the response for a Problem that was raised; a Starlette exception handler."""
    assert isinstance(error, Problem)  # noqa: S101 - registered for Problem
    return error.response(request.scope["state"].get("request_id"))


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Return the response for a 404 or 405 of the router. Endpoints raise `Problem`, so any other is their fault."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for HTTPException
    match error.status_code:
        case 404:
            problem = Problem("not_found")
        case 405:
            allowed = ", ".join(sorted(allowed_methods(request)))
            problem = Problem("method_not_allowed", f"This path takes {allowed}.", headers={"allow": allowed})
        case _:
            raise error
    return problem.response(request.scope["state"].get("request_id"))


def allowed_methods(request: Request) -> set[str]:
    """Collect the methods of every route at this path; Starlette's own list stops at the first route."""
    found: set[str] = set()
    for route in request.app.routes:
        if route.path_regex.match(request.scope["path"]):
            found |= route.methods or set()
    return found
