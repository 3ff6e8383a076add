"""The connection to the Redis server of an installation: its address, its time limit and its failures."""

import asyncio
import contextlib
import hashlib
import importlib
import re
from collections.abc import AsyncIterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from sqlalchemy.engine import make_url

from latchkey.service.settings import Settings, SettingsError
from latchkey.service.tls import verifying_context
from latchkey.service.urls import ESCAPES, has_reserved_character

if TYPE_CHECKING:
    from redis.asyncio import Redis

VARIABLE = "LATCHKEY_REDIS_URL"
FORM = (
    "use redis://user:password@host:6379/0, or rediss:// for TLS, with ?ssl_ca=FILE for a private authority; "
    "?sentinel=NAME makes it the address of a Sentinel, and &also=host:port,host:port names others; "
    "a port is from 1 to 65535"
)
DEFAULT_PORT = 6379
TIMEOUT_S = 1.0  # for each request to Redis
SENTINEL_TIMEOUT_S = 0.3  # for each of the Sentinels, the first of which may be down
SERVER = re.compile(r"([A-Za-z0-9._-]{1,255}|\[[0-9a-fA-F:.]{2,45}\]):([0-9]{1,5})")


class UnreachableError(Exception):
    """A request to Redis failed; the text says how."""


@contextlib.asynccontextmanager
async def redis_request(timeout_s: float = TIMEOUT_S) -> AsyncIterator[None]:
    """Bound a request to Redis in time, raise `UnreachableError` for any failure, and keep cancellations.

    redis-py sends by `asyncio.wait_for`, which before Python 3.12 loses a cancellation that arrives as it completes.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in one
    cancelled_before = task.cancelling()
    try:
        async with asyncio.timeout(timeout_s):
            yield
        if task.cancelling() > cancelled_before:
            raise asyncio.CancelledError
    except (redis_package("redis.exceptions").RedisError, OSError) as error:
        words = f"no answer within {timeout_s:g} seconds" if isinstance(error, TimeoutError) else str(error)
        raise UnreachableError(words or type(error).__name__) from error


def open_client(settings: Settings) -> "tuple[Redis, str] | None":
    """Return a client, and the name of this installation on its server; None without `LATCHKEY_REDIS_URL`.

    It does not connect yet.

    Raises:
        SettingsError: the URL cannot be used, or the extra `redis` is not installed.
    """
    if settings.redis_url is None:
        return None
    arguments = client_arguments(settings.redis_url)
    # Failures are handled by the caller: redis-py would retry for seconds.
    retry = redis_package("redis.asyncio.retry").Retry(redis_package("redis.backoff").NoBackoff(), 0)
    sentinels = arguments.pop("sentinels", [])
    master = arguments.pop("master", None)
    options = {"retry": retry, "socket_connect_timeout": TIMEOUT_S, "socket_timeout": TIMEOUT_S}
    name = installation_name(settings.database_url, arguments["db"])
    if master is None:
        return redis_package("redis.asyncio").Redis(**arguments, **options), name
    of_sentinels = {key: value for key, value in arguments.items() if key.startswith("ssl")}
    found = redis_package("redis.asyncio.sentinel").Sentinel(
        [(arguments.pop("host"), arguments.pop("port")), *sentinels],
        sentinel_kwargs={**of_sentinels, **options, "socket_timeout": SENTINEL_TIMEOUT_S},
        **arguments,
        **options,
    )
    return found.master_for(master), name


async def close_client(client: "Redis") -> None:
    """Close all connections of a client, also those to its Sentinels."""
    await client.aclose()
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for sentinel in () if manager is None else manager.sentinels:
        await sentinel.aclose()


def redis_package(module: str) -> Any:
    """Import a module of redis-py, an optional dependency.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise SettingsError(f"{VARIABLE} needs the extra `redis`: pip install 'latchkey[redis]'.") from None


def client_arguments(url: str) -> dict[str, Any]:
    """Parse the URL of a Redis server; errors never show it, since it may contain a password.

    Raises:
        SettingsError: the URL is invalid, or asks for TLS that would not verify the server.
    """
    if has_reserved_character(url):
        raise SettingsError(f"{VARIABLE}: {ESCAPES}.")
    try:
        parts = urlsplit(url)
        port = DEFAULT_PORT if parts.port is None else parts.port
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise SettingsError(f"{VARIABLE} is no URL: {FORM}.") from None
    if not port:
        raise SettingsError(f"{VARIABLE} is no URL: {FORM}.")
    tls = parts.scheme == "rediss"
    number = parts.path.removeprefix("/") or "0"
    parameters = {"sentinel", "also"} if "sentinel" in query else set()
    parameters |= {"ssl_ca"} if tls else set()
    others = [SERVER.fullmatch(one) for one in query.get("also", "").split(",") if one]
    known = parts.scheme in {"redis", "rediss"} and parts.hostname and not parts.fragment
    if (
        not (known and re.fullmatch("[0-9]{1,5}", number) and set(query) <= parameters and None not in others)
        or query.get("sentinel") == ""
    ):
        raise SettingsError(f"{VARIABLE} cannot be used: {FORM}.")
    arguments: dict[str, Any] = {"host": parts.hostname, "port": port, "db": int(number), "ssl": tls}
    if "sentinel" in query:
        arguments["master"] = query["sentinel"]
        arguments["sentinels"] = [(one[1].strip("[]"), int(one[2])) for one in others if one is not None]
    for name in ("username", "password"):
        arguments[name] = unquote(getattr(parts, name) or "") or None
    if tls:
        try:
            verifying_context(query.get("ssl_ca") or "system")
        except ValueError as error:
            raise SettingsError(f"{VARIABLE}: {error}.") from None
        arguments |= {
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
            "ssl_ca_certs": query.get("ssl_ca"),
        }
    return arguments


def installation_name(database_url: str, number: int) -> str:
    """Return the name of an installation: the number of the Redis database, and the name of its own database.

    The host is not part of it, because processes may know one server by different names.
    """
    database = PurePath(make_url(database_url).database or "").name
    return f"{number}:{hashlib.sha256(database.encode()).hexdigest()[:16]}"
