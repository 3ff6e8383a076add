"""The Redis channel on which the processes of one installation announce changes.

Messages are numbered by a counter beside the channel: a listener that compares the two notices a missed message.
"""

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
    from redis.asyncio.client import PubSub

VARIABLE = "LATCHKEY_REDIS_URL"
FORM = (
    "use redis://user:password@host:6379/0, or rediss:// for TLS, with ?ssl_ca=FILE for a private authority; "
    "a port is from 1 to 65535"
)
DEFAULT_PORT = 6379
TIMEOUT_S = 1.0  # for each request to Redis

# One script, so that the messages arrive in the order of their numbers.
PUBLISH = """
local number = redis.call('INCR', KEYS[1])
redis.call('PUBLISH', KEYS[1], string.format('%d ', number) .. ARGV[1])
return number
"""
MESSAGE = re.compile(rb"(\d{1,16}) (.+)", re.DOTALL)


class UnreachableError(Exception):
    """A request to Redis failed; the text says how."""


class Channel:
    """One counter and one channel of the same name. Every failure is an `UnreachableError`, after at most one second.

    Args:
        client: of redis-py.
        name: the same for all processes of an installation.
    """

    def __init__(self, client: "Redis", name: str) -> None:
        self._client = client
        self.name = name

    async def publish(self, what: str) -> None:
        """Publish a message to all current listeners."""
        async with redis_request():
            await self._client.eval(PUBLISH, 1, self.name, what)

    async def count(self) -> int:
        """Return the number of messages published so far."""
        async with redis_request():
            return int(await self._client.get(self.name) or 0)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["Listener"]:
        """Listen until the end of the block."""
        subscription = self._client.pubsub(ignore_subscribe_messages=True)
        try:
            async with redis_request():
                await subscription.subscribe(self.name)
            yield Listener(subscription)
        finally:
            await subscription.aclose()  # type: ignore[no-untyped-call]  # redis-py left it out

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


class Listener:
    """The messages of a channel, one by one."""

    def __init__(self, subscription: "PubSub") -> None:
        self._subscription = subscription

    async def next(self, wait_s: float) -> tuple[int, str] | None:
        """Return the next message and its number; None when none arrives within the timeout, in seconds."""
        async with redis_request(wait_s + TIMEOUT_S):
            message = await self._subscription.get_message(timeout=wait_s)
        parsed = MESSAGE.fullmatch(message["data"]) if message is not None else None
        return None if parsed is None else (int(parsed[1]), parsed[2].decode(errors="replace"))


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
        raise UnreachableError(str(error) or type(error).__name__) from error


def open_channel(settings: Settings) -> Channel | None:
    """Return the channel of this installation; None without `LATCHKEY_REDIS_URL`. It does not connect yet.

    Raises:
        SettingsError: the URL cannot be used, or the extra `redis` is not installed.
    """
    if settings.redis_url is None:
        return None
    arguments = client_arguments(settings.redis_url)
    # Failures are handled by the caller: redis-py would retry for seconds.
    retry = redis_package("redis.asyncio.retry").Retry(redis_package("redis.backoff").NoBackoff(), 0)
    client = redis_package("redis.asyncio").Redis(
        **arguments, retry=retry, socket_connect_timeout=TIMEOUT_S, socket_timeout=TIMEOUT_S
    )
    return Channel(client, channel_name(settings.database_url, arguments["db"]))


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
    known = parts.scheme in {"redis", "rediss"} and parts.hostname and not parts.fragment
    if not known or not re.fullmatch("[0-9]{1,5}", number) or set(query) - ({"ssl_ca"} if tls else set()):
        raise SettingsError(f"{VARIABLE} cannot be used: {FORM}.")
    arguments: dict[str, Any] = {"host": parts.hostname, "port": port, "db": int(number), "ssl": tls}
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


def channel_name(database_url: str, number: int) -> str:
    """Return the channel name of an installation: the name of its database and the number of the Redis database.

    The host is not part of it: processes may know one server by different names, and would miss each other's
    messages. Two installations that share a channel only invalidate more than they need to.
    """
    database = PurePath(make_url(database_url).database or "").name
    return f"latchkey:{number}:{hashlib.sha256(database.encode()).hexdigest()[:16]}"
