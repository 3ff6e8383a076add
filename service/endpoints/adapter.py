"""The adapter between HTTP and an endpoint: decode → endpoint → flush and refresh → encode → commit (R4).

With an idempotency key the transaction begins with its claim and ends with storing its response.
"""

import asyncio
import contextlib
import random
import re
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm.exc import StaleDataError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from latchkey.middleware.excerpt import excerpt
from latchkey.middleware.measured import note_retry
from latchkey.middleware.request_scope import Compartment, RequestScope
from latchkey.middleware.session_errors import TransactionEndedError
from latchkey.models.bounds import is_beyond
from latchkey.models.errors import InvalidValueError
from latchkey.service import conversion, shapes
from latchkey.service.authentication.current_call import as_current_call, caller_of
from latchkey.service.authentication.state import call_state
from latchkey.service.authentication.wire.extraction import RESERVED_PARAMETERS
from latchkey.service.database.conflicts import is_conflict
from latchkey.service.database.session import RequestSession
from latchkey.service.idempotency.claims import Claim
from latchkey.service.idempotency.key import key_of
from latchkey.service.input_types import Decode, decoder_of, is_finite
from latchkey.service.invalid_values import raise_invalid_value, require_narrow
from latchkey.service.operation import Answer, Operation, Text
from latchkey.service.origin import ANONYMOUS, KEY, Origin, as_origin
from latchkey.service.parts import find_parts, parts_of
from latchkey.service.problems import FieldError, Problem, bounded_pointer, wrong_parameter

ATTEMPTS = 4  # the first run and at most three more
NO_CONTENT = 204  # such a response has no length, RFC 9110, section 8.6
LONGEST_PAUSE_S = 0.05  # doubled with each attempt; the actual pause is a random part of it

NO_VALUE = "the value is out of range or cannot be read"

# msgspec raises ValidationError for its own checks and for a ValueError or TypeError in `__post_init__`. Other errors of
# Python constructors pass through: `datetime` for the year 10000, `Decimal` for a text that is not a number.
UNREADABLE = (msgspec.ValidationError, ValueError, ArithmeticError)

Answered = tuple[int, Any, Mapping[str, str]]

_encoder = msgspec.json.Encoder()


class Adapter:
    """The ASGI application that runs one operation."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.decode = decoder_of(operation.body) if operation.body is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the operation for one request, and answer it."""
        with as_current_call(scope), as_origin(partial(origin_of, scope)):
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation = self.operation
        request_scope = RequestScope.current()
        if request_scope is None or request_scope.task is not asyncio.current_task():
            raise RuntimeError(
                f"{operation.name} runs in another task than its session: "
                "a middleware between them starts another task."
            )
        request = Request(scope, receive, send)
        arguments = decode_path(operation, request) if operation.parameters else {}
        if "request" in operation.arguments:
            arguments["request"] = request
        if "caller" in operation.arguments:
            arguments["caller"] = caller_of(scope)
        if operation.query is not None or (scope["query_string"] and not operation.any_request):
            query = decode_query(operation, request)
            if query is not None:
                arguments["query"] = query
        raw = await read_json(request) if self.decode is not None else b""
        session = call_state(scope)["session"]
        session.enter_endpoint(safe=operation.safe)
        if not operation.safe:
            request_scope.compartments = compartments_of(operation, request)
        key = None if operation.safe else await key_of(operation, request)
        async with (
            contextlib.nullcontext() if key is None else parts_of(request.app).idempotency.turn(key, scope)
        ) as claim:
            status, content, headers = await run_unit_of_work(
                operation,
                request_scope,
                session,
                arguments,
                path=request.path_params,
                decode=self.decode,
                raw=raw,
                claim=claim,
            )
        if operation.answers is Response:
            await content(scope, receive, send)
        else:
            await answer(send, status, content, headers)


def origin_of(scope: Scope) -> Origin:
    """Return the origin of what a call changes."""
    caller = caller_of(scope)
    parts = find_parts(scope.get("app"))  # None in an application that only has the session layer
    client = scope.get("client")
    address = client and client[0] if parts is None else parts.verifier.proxies.client_text(scope)
    return Origin(
        actor_kind=ANONYMOUS if caller is None else KEY,
        actor_id=None if caller is None else caller.key.access_key,
        actor_user_id=None if caller is None else caller.user.id,
        address=address,
        request_id=call_state(scope).get("request_id"),
    )


def compartments_of(operation: Operation, request: Request) -> tuple[Compartment, ...]:
    """Return the row that a call changes, as its path names it, and the owner of its key: it may wait for their locks."""
    found: list[Compartment] = []
    if operation.parameters:
        row, _, _ = operation.path.rpartition("}")
        found.append(("row", (row, *request.path_params.values())))
    caller = caller_of(request.scope)
    if caller is not None:
        found.append(("owner", caller.user.id))
    return tuple(found)


async def answer(send: Send, status: int, content: bytes, headers: Mapping[str, str]) -> None:
    """Send a complete response."""
    raw = [] if status == NO_CONTENT else [(b"content-length", b"%d" % len(content))]
    if content and "content-type" not in headers:
        raw.append((b"content-type", b"application/json"))
    raw += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": content})


async def run_unit_of_work(
    operation: Operation,
    request_scope: RequestScope,
    session: RequestSession,
    arguments: dict[str, Any],
    *,
    path: Mapping[str, str],
    decode: Decode | None,
    raw: bytes,
    claim: Claim | None = None,
) -> Answered:
    """Run the endpoint as one unit of work, and repeat it from the start when it lost a conflict with another transaction.

    With a claim, the claim and the stored response are part of the unit, unless there is a response already.
    Returns status, content and headers; the content is a Response if the endpoint returned one.
    """
    for attempt in range(ATTEMPTS):
        if decode is not None:
            arguments["body"] = decode_body(decode, raw)
        try:
            if claim is not None and (replay := await claim.take(session)) is not None:
                return replay.again()
            session.forbid_commit(operation.idempotent)
            found = await operation.endpoint(**arguments)
            session.forbid_commit(False)
            if operation.answers is Response:
                if found.status_code < 400:  # noqa: PLR2004 - as in `RequestScope.settle`
                    request_scope.require_written()
                    await session.settle(is_streamed=not hasattr(found, "body"))
                return found.status_code, found, {}
            await session.flush_and_refresh()
            content, headers = encode(operation, found)
            request_scope.require_written()
            if claim is not None:
                await claim.keep(session, operation, content, headers)
            await session.settle()
        except (DBAPIError, InvalidValueError, StaleDataError, TransactionEndedError) as error:
            raise_invalid_value(error, arguments, path)
            last = attempt + 1 == ATTEMPTS
            if last or not operation.retry or request_scope.commits or not is_conflict(error):
                raise
            await session.reset_for_retry()
            note_retry()
            await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_S * 2**attempt))  # noqa: S311 - no secret
        else:
            return operation.status, content, headers
    raise AssertionError  # the last attempt returned or raised


def encode(operation: Operation, found: Any) -> tuple[bytes, dict[str, str]]:
    """Return the bytes of the declared response for the endpoint's result, and the headers."""
    headers: dict[str, str] = {}
    if isinstance(found, Answer):
        found, headers = found.content, dict(found.headers)
    if operation.answers is None:
        return b"", headers
    if isinstance(found, Text):
        if found.media_type not in operation.also:
            raise RuntimeError(f"{operation.name}: the route does not declare {found.media_type} in `also`.")
        return found.content.encode(), {**headers, "content-type": f"{found.media_type}; charset=utf-8"}
    return _encoder.encode(conversion.converter(operation.answers)(found)), headers


def decode_path(operation: Operation, request: Request) -> dict[str, Any]:
    """Convert the path parameters; a value of the wrong form means that the resource does not exist."""
    arguments: dict[str, Any] = {}
    for name, kind in operation.parameters.items():
        try:
            arguments[name] = msgspec.convert(request.path_params[name], kind, strict=False)
        except UNREADABLE:
            raise Problem("not_found") from None
        if is_beyond(arguments[name]) or not is_finite(arguments[name]):
            raise Problem("not_found")
    return arguments


def decode_query(operation: Operation, request: Request) -> msgspec.Struct | None:
    """Convert the query; unknown and repeated parameters are refused.

    The parameters of a signed query are ignored if a signature was verified, and on public routes, which check no
    credential.
    """
    kind = operation.query
    known = dict(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True)) if kind else {}
    caller = caller_of(request.scope)
    signs = operation.public or (caller is not None and caller.signed_by_query)
    given: dict[str, str] = {}
    try:
        pairs = parse_qsl(
            request.scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict"
        )
    except ValueError:
        raise Problem("invalid_parameter", "The query is not percent-encoded UTF-8.") from None
    for name, value in pairs:
        if name in RESERVED_PARAMETERS and signs:
            continue
        shown = excerpt(name, 64).encode("ascii", "backslashreplace").decode()
        if name not in known:
            takes = f"this path takes {', '.join(known)}" if known else "this path takes none"
            raise Problem("invalid_parameter", f"There is no parameter {shown!r}; {takes}.")
        if name in given:
            raise Problem("invalid_parameter", f"The parameter {shown!r} is given more than once.")
        given[name] = value
    if kind is None:
        return None
    query = convert_query(given, kind)
    require_narrow(query)
    for name, value in given.items():
        if not is_plain(getattr(query, known[name]), value):
            raise wrong_parameter(name, f"{excerpt(value)!r} is not its plain form")
    return query


def convert_query(given: Mapping[str, str], kind: type[msgspec.Struct]) -> msgspec.Struct:
    """Convert the values of a query together, or raise a Problem that names the wrong parameter."""
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        text, pointer = describe_validation_error(error)
        place = f"The parameter {pointer[1:]!r}" if pointer else "The query"
    except UNREADABLE:
        text, place = NO_VALUE, unreadable(given, kind)
    raise Problem("invalid_parameter", f"{place} is wrong: {text}.")


def unreadable(given: Mapping[str, str], kind: type[msgspec.Struct]) -> str:
    """Return the parameter that cannot be converted; the error itself does not name it."""
    for field in msgspec.structs.fields(kind):
        if field.encode_name in given:
            try:
                msgspec.convert(given[field.encode_name], field.type, strict=False)
            except UNREADABLE:
                return f"The parameter {field.encode_name!r}"
    return "The query"  # each value alone is valid: the Struct refuses their combination


DATE = re.compile(r"[0-9]{4}-")


def is_plain(value: Any, text: str) -> bool:
    """Return whether a parameter has its plain form: the decoder also accepts `5.0`, `1e1` and `null`."""
    if isinstance(value, datetime):
        return DATE.match(text) is not None  # and not seconds since 1970
    return value is not None and (type(value) is not int or str(value) == text)


async def read_json(request: Request) -> bytes:
    """Return the body of a request whose content type is JSON."""
    kinds = request.headers.getlist("content-type")
    if len(kinds) != 1 or not JSON_TYPE.fullmatch(kinds[0].strip()):
        raise Problem("unsupported_media_type")
    return await request.body()


JSON_TYPE = re.compile(r'application/json(\s*;\s*charset\s*=\s*"?utf-8"?)?', re.IGNORECASE | re.ASCII)


def decode_body(decode: Decode, raw: bytes) -> Any:
    """Decode a body; every fault in it is the client's, and a body that is not JSON is not reported as a wrong shape."""
    try:
        try:
            return decode(raw)
        except msgspec.ValidationError as error:
            text, pointer = describe_validation_error(error)
        except UnicodeDecodeError:
            raise
        except UNREADABLE:
            text, pointer = NO_VALUE, ""
        # The decoder stopped at the first wrong field; the rest may not even be JSON.
        with contextlib.suppress(msgspec.ValidationError):
            msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else "it cannot be read"
        raise Problem("malformed_json", f"The body is not JSON in UTF-8: {reason}.") from None
    raise Problem(
        "invalid_body",
        f"The body is wrong at {pointer or 'its root'!r}: {text}.",
        errors=[FieldError(pointer, text)],
    )


FAULT = re.compile(r"(?P<text>.*?)(?: - at `(?:key` in `)?\$(?P<path>[^`]*)`)?", re.DOTALL)
NAMED_FIELD = re.compile(r"(?:unknown|required) field `(?P<name>.*)`", re.DOTALL)


def describe_validation_error(error: msgspec.ValidationError) -> tuple[str, str]:
    """Split msgspec's message into the fault and its place, a JSON pointer (RFC 6901).

    Both are bounded in length, because the message quotes the names of unknown fields and the values of enums.
    """
    found = FAULT.fullmatch(str(error))
    assert found is not None  # noqa: S101 - the pattern matches any text
    text, path = shapes.in_words(found["text"]), found["path"] or ""
    steps = [first or second for first, second in re.findall(r"\.([^.\[]+)|\[([^\]]+)\]", path)]
    if named := NAMED_FIELD.search(text):
        steps.append(named["name"])
    pointer = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
    return excerpt(text), bounded_pointer(pointer)
