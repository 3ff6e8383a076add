"""The declaration of an endpoint: its URL, its scope, its input and its responses.

`route(...)` creates one; Latchkey's are listed in `service/routes.py`, and a team passes its own to
`create_app(routes=...)`. Everything that the adapter, the authentication and OpenAPI need is derived from the
endpoint's signature once, at the start::

    async def rename_user(id: PathId, body: Rename) -> User: ...

    route("POST", "/v1/users/{id}/rename", rename_user, scope="users:write", answers=shapes.User)
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
from starlette.responses import Response

from latchkey.service import conversion, input_types
from latchkey.service.authentication.principal import Principal
from latchkey.service.authentication.wire.extraction import RESERVED_PARAMETERS
from latchkey.service.methods import METHODS, SAFE_METHODS

SCOPE_SHAPE = re.compile(r"[a-z][a-z0-9_.-]{0,39}:[a-z][a-z0-9_-]{0,39}")
NO_CONTENT = frozenset({204, 205, 304})  # RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5
FIRST_WORD = re.compile(r"/(?:v[0-9]+/)?([^/{]+)")

Endpoint = Callable[..., Awaitable[Any]]


class RouteError(TypeError):
    """The declaration of a route cannot work; the service does not start with it."""


class Answer(msgspec.Struct, kw_only=True):
    """The response of an endpoint, for content with headers: `Answer(content=row, headers={"etag": tag})`."""

    content: Any
    headers: Mapping[str, str] = {}


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a response in UTF-8, in a media type that the route declares in `also`."""

    content: str
    media_type: str


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method on one path."""

    method: str
    path: str
    endpoint: Endpoint
    scope: str | None
    public: bool
    optional_key: bool
    """Calls without a credential are accepted; a credential that is sent must be valid."""
    status: int
    retry: bool
    idempotent: bool
    cost: int
    """The number of units that a call is charged to limits and quotas."""
    body: type[msgspec.Struct] | None
    query: type[msgspec.Struct] | None
    parameters: Mapping[str, Any]
    """The path parameters, each with its type."""
    arguments: frozenset[str]
    """The names of the other parameters that the endpoint takes: `request`, `caller`, `body`, `query`."""
    answers: Any
    """The type of the content; None for no content, `Response` when the endpoint creates the response itself."""
    media_type: str
    """The media type of the content; `*/*` for a `Response` whose class does not set it."""
    also: tuple[str, ...]
    """Further media types of the content, which the endpoint returns as `Text`."""
    problems: tuple[str, ...]
    """The codes that only this operation raises."""
    example: Any
    """A valid body, for OpenAPI."""
    path_example: Mapping[str, str]
    """Values of the path parameters, for OpenAPI."""
    tag: str
    """The group of operations that it belongs to, for OpenAPI."""
    page: Callable[[Mapping[str, Any]], str] | None
    """Returns the response as HTML, from its JSON, for a client that asks for it."""
    any_request: bool
    """Every method and any query are accepted: a request is about another one, whose method a proxy may keep."""

    @property
    def name(self) -> str:
        """Return the endpoint's name, which is the operation's id."""
        name: str = self.endpoint.__name__
        return name

    @property
    def summary(self) -> str:
        """Return the first line of the endpoint's docstring."""
        return (inspect.getdoc(self.endpoint) or self.name).partition("\n")[0]

    @property
    def description(self) -> str:
        """Return the rest of the endpoint's docstring."""
        return (inspect.getdoc(self.endpoint) or "").partition("\n")[2].strip()

    @property
    def one_time(self) -> frozenset[str]:
        """Return the fields of the response that are shown only once, and never in a replay."""
        names: frozenset[str] = getattr(self.answers, "one_time", frozenset())
        return names

    @property
    def answered_fields(self) -> tuple[str, ...]:
        """Return the names of the response's fields, if it is a Struct."""
        return struct_fields(self.answers)

    @property
    def safe(self) -> bool:
        """Return whether the method is safe."""
        return self.method in SAFE_METHODS


def route(
    method: str,
    path: str,
    endpoint: Endpoint,
    *,
    scope: str | None = None,
    any_key: bool = False,
    public: bool = False,
    optional_key: bool = False,
    status: int = 200,
    answers: Any = None,
    retry: bool = True,
    idempotent: bool = False,
    cost: int = 1,
    also: tuple[str, ...] = (),
    problems: tuple[str, ...] = (),
    example: Any = None,
    path_example: Mapping[str, str] | None = None,
    tag: str | None = None,
    any_request: bool = False,
    page: Callable[[Mapping[str, Any]], str] | None = None,
) -> Operation:
    """Declare an endpoint.

    Args:
        method: GET (which includes HEAD), POST, PUT, PATCH or DELETE.
        path: as in Starlette, `/v1/users/{id}`.
        endpoint: an `async def` that takes `request` and, by their names, `body`, `query` and the path parameters, each
            with its type; and `caller: Principal`, or `caller: Principal | None` with `optional_key`. The type of
            `query` is a Struct, whose fields are the query parameters.
        scope: the scope that a key needs, `noun:verb`.
        any_key: every valid key may call it.
        public: calls need no credential; one that is sent is ignored.
        optional_key: calls need no credential; one that is sent must be valid, and then every rule for keys applies.
            Without one the caller is None.
        status: of a successful response; 204, 205 and 304 have no content.
        answers: the type of the content: a Struct, also a generic one, `Page[Item]`, or a list or dict of them. The
            endpoint may return it, an object with the same fields, such as a model, or an `Answer` around either; the
            same holds for every Struct inside it. None derives it from the endpoint's return annotation: a Struct, or a
            list or dict of them; None for no content; or a Starlette `Response`, which is sent unchanged.
        retry: run the endpoint again when it lost a conflict with another transaction; use False if its effects outside
            the database must not happen twice.
        idempotent: accept an `Idempotency-Key`. The endpoint must then make changes only through the request's session,
            and leave COMMIT to the adapter; its response, without the fields in `one_time`, is stored for a day.
        cost: the number of units that a call is charged to the limits and quotas of its key and owner; 0 charges none.
        also: further media types of the content, such as `text/csv`: the endpoint may return
            `Answer(content=Text(content="…", media_type="text/csv"))` in place of the declared content.
        problems: codes that only this endpoint raises; `not_found` is added to a path with parameters.
        example: a valid body.
        path_example: values for all or some path parameters.
        tag: the group of operations in OpenAPI. None takes the first word of the path, after a version such as `/v1`.
        any_request: accept every method and any query, for an endpoint that a proxy asks about another request. The
            method must be GET, and the endpoint public: it checks what it is asked about.
        page: a function that returns the response as an HTML page, from its JSON, for a client that asks for HTML. The
            endpoint must be public and safe.

    Raises:
        RouteError: the declaration does not state the permitted callers, or cannot work.
    """
    where = f"{method} {path}"
    _require_words(where, method, path, problems)
    _require_caller(where, scope=scope, any_key=any_key, public=public, optional_key=optional_key, cost=cost)
    _require_gate(where, any_request=any_request, method=method, public=public)
    if page is not None and (not public or method not in SAFE_METHODS):
        raise RouteError(f"{where}: page= is for public endpoints that change nothing.")
    if not inspect.iscoroutinefunction(endpoint):
        raise RouteError(
            f"{where}: {getattr(endpoint, '__name__', endpoint)!r} is not `async def`; "
            "any other function would run in a thread or a task without the request's session."
        )
    hints = get_type_hints(endpoint, include_extras=True)
    in_path = re.findall(r"{(\w+)(?::\w+)?}", path)
    taken = set(inspect.signature(endpoint).parameters)
    if unknown := taken - {"request", "body", "query", "caller", *in_path}:
        raise RouteError(
            f"{where}: the endpoint takes {', '.join(sorted(unknown))}, but it can only take request, caller, body, "
            "query, a Struct with the query parameters, and the parameters of the path."
        )
    if left := set(in_path) - taken:
        raise RouteError(
            f"{where}: the endpoint does not take {', '.join(sorted(left))}, which is in its path."
        )
    if untyped := sorted({"body", "query"} & taken - hints.keys()):
        raise RouteError(f"{where}: the endpoint's {untyped[0]} has no type.")
    if "caller" in taken - set(in_path):
        _require_caller_type(hints.get("caller"), where, public=public, optional_key=optional_key)
    query = hints.get("query")
    _require_query(where, query)
    parameters = {name: hints.get(name, str) for name in in_path}
    if fault := input_types.fault_of(hints.get("body"), query, parameters, example):
        raise RouteError(f"{where}: {fault}.")
    media_type = _media_type(hints.get("return") if answers is None else answers)
    answers = _declared(answers) if answers is not None else _answers(hints.get("return"), where)
    _require_answerable(where, answers, status)
    if idempotent:
        _require_storable(method, public or optional_key, answers, where)
    return Operation(
        method=method,
        path=path,
        endpoint=endpoint,
        scope=scope,
        public=public,
        optional_key=optional_key,
        status=status,
        retry=retry,
        idempotent=idempotent,
        cost=cost,
        body=hints.get("body"),
        query=query,
        parameters=parameters,
        arguments=frozenset(taken.difference(in_path)),
        answers=answers,
        media_type=media_type,
        also=also,
        # A value in the path that fits no row is answered so, whatever the endpoint does.
        problems=(*problems, "not_found") if in_path and "not_found" not in problems else problems,
        example=example,
        path_example=path_example or {},
        tag=tag or tag_of(path),
        any_request=any_request,
        page=page,
    )


def tag_of(path: str) -> str:
    """Return the first word of a path, after a version; a path without one belongs to the service itself."""
    found = FIRST_WORD.match(path)
    return found[1] if found else "service"


def _require_storable(method: str, has_anonymous: bool, answers: Any, where: str) -> None:
    if method in SAFE_METHODS:
        raise RouteError(f"{where}: idempotent=True is for methods that change something.")
    if has_anonymous:
        raise RouteError(
            f"{where}: idempotent=True needs a key, to distinguish the calls of different callers."
        )
    if answers is Response:
        raise RouteError(
            f"{where}: idempotent=True stores the response, so the endpoint must return a Struct or None."
        )
    unknown: set[str] = set(getattr(answers, "one_time", ())).difference(struct_fields(answers))
    if unknown:
        raise RouteError(
            f"{where}: one_time names {', '.join(sorted(unknown))}, which the response does not have."
        )


def _require_caller(
    where: str, *, scope: str | None, any_key: bool, public: bool, optional_key: bool, cost: int
) -> None:
    """Raise an error for a declaration that does not state the permitted callers and the cost."""
    if (scope is not None) + any_key + public + optional_key != 1:
        raise RouteError(
            f"{where}: set exactly one of scope=, any_key=True, optional_key=True and public=True."
        )
    if scope is not None:
        checked_scope(scope, where)
    if cost < 0 or (public and cost != 1):
        raise RouteError(f"{where}: cost must be 0 or more units, and a public route has none.")


def _require_words(where: str, method: str, path: str, problems: Any) -> None:
    if method not in METHODS:
        raise RouteError(f"{where}: the method must be one of {', '.join(sorted(METHODS))}.")
    if not path.startswith("/"):
        raise RouteError(f"{where}: the path must begin with a slash.")
    if isinstance(problems, str):
        raise RouteError(f"{where}: problems={problems!r} is one text; declare a tuple, ({problems!r},).")


def _require_query(where: str, query: Any) -> None:
    if query is not None and not hasattr(query, "__struct_fields__"):
        raise RouteError(
            f"{where}: the endpoint's query is {query!r}; declare a Struct with the query parameters."
        )
    if query is not None and (reserved := RESERVED_PARAMETERS & set(query.__struct_fields__)):
        raise RouteError(f"{where}: {', '.join(sorted(reserved))} is reserved for signed queries.")


def _require_gate(where: str, *, any_request: bool, method: str, public: bool) -> None:
    if any_request and not (method == "GET" and public):
        raise RouteError(f"{where}: any_request=True is for public endpoints that are declared with GET.")


def _require_caller_type(kind: Any, where: str, *, public: bool, optional_key: bool) -> None:
    if public:
        raise RouteError(f"{where}: a public endpoint does not authenticate, so it has no caller.")
    wanted, words = (Principal | None, "Principal | None") if optional_key else (Principal, "Principal")
    if kind != wanted:
        raise RouteError(f"{where}: the endpoint's caller must have the type {words}, not {kind}.")


def checked_scope(scope: str, where: str = "create_app") -> str:
    """Return a scope, or raise an error if its form is wrong."""
    if not SCOPE_SHAPE.fullmatch(scope):
        raise RouteError(f"{where}: the scope {scope!r} is not of the form noun:verb.")
    return scope


def struct_fields(kind: Any) -> tuple[str, ...]:
    """Return the field names of a Struct, also of a generic one with types; none for other types."""
    names: tuple[str, ...] = getattr(get_origin(kind) or kind, "__struct_fields__", ())
    return names


def _require_answerable(where: str, answers: Any, status: int) -> None:
    """Raise an error for a response that could not be sent."""
    if status not in set(HTTPStatus) or not 200 <= status < 400:  # noqa: PLR2004 - RFC 9110, section 15
        raise RouteError(f"{where}: status={status} is not a success status; raise a Problem for an error.")
    if answers is None or answers is Response:
        return
    if status in NO_CONTENT:
        raise RouteError(
            f"{where}: a response of status {status} has no content, so the endpoint must return None."
        )
    try:
        conversion.converter(answers)
    except (TypeError, NameError) as error:
        first = str(error).partition("\n")[0]
        raise RouteError(f"{where}: {answers} cannot be encoded as JSON: {first}") from error


def _media_type(kind: Any) -> str:
    """Return the media type of a response of a type."""
    if isinstance(kind, type) and issubclass(kind, Response):
        return kind.media_type or "*/*"
    return "application/json"


def _declared(kind: Any) -> Any:
    return Response if isinstance(kind, type) and issubclass(kind, Response) else kind


def _answers(annotation: Any, where: str) -> Any:
    if annotation is None:
        raise RouteError(
            f"{where}: the response is not declared: set the endpoint's return type or answers=."
        )
    if annotation is type(None):
        return None
    kind = get_origin(annotation) or annotation
    if isinstance(kind, type) and issubclass(kind, Response):
        return Response
    if _is_of_structs(annotation):
        return annotation
    raise RouteError(
        f"{where}: the endpoint returns {annotation}; declare the Struct of the response with answers=."
    )


def _is_of_structs(annotation: Any) -> bool:
    """Return whether it is a Struct, or a list or dict of Structs at any depth."""
    kind, inner = get_origin(annotation) or annotation, get_args(annotation)
    if kind in {list, dict} and inner:
        return _is_of_structs(inner[-1])
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind is not Answer
