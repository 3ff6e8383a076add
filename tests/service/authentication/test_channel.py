"""The channel: the address of its Redis, its messages, and the reports of its failures."""

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latchkey.service.key_cache.channel import Channel, Listener, open_channel
from latchkey.service.redis.client import (
    TIMEOUT_S,
    UnreachableError,
    client_arguments,
    installation_name,
)
from latchkey.service.settings import Settings, SettingsError
from tests.redis import PrivateRedis

PLAIN = {"host": "h", "port": 6379, "db": 0, "ssl": False, "username": None, "password": None}
CHECKED = {"ssl": True, "ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": None}


@pytest.mark.parametrize(
    "url, arguments",
    [
        ("redis://h", PLAIN),
        ("redis://h/", PLAIN),
        ("redis://h:7/3", PLAIN | {"port": 7, "db": 3}),
        ("redis://[::1]:7", PLAIN | {"host": "::1", "port": 7}),
        ("redis://:p%40ss@h", PLAIN | {"password": "p@ss"}),
        ("redis://ann:hush@h", PLAIN | {"username": "ann", "password": "hush"}),
        ("rediss://h", PLAIN | CHECKED),
        ("redis://h:7?sentinel=m", PLAIN | {"port": 7, "master": "m", "sentinels": []}),
        (
            "redis://h:7/?sentinel=m&also=i:8,[::1]:9",
            PLAIN | {"port": 7, "master": "m", "sentinels": [("i", 8), ("::1", 9)]},
        ),
    ],
)
def test_a_url_says_where_and_tls_verifies_the_server(url: str, arguments: dict[str, Any]) -> None:
    assert client_arguments(url) == arguments


def test_the_authority_of_the_server_is_a_file(certificate: Path) -> None:
    found = client_arguments(f"rediss://h?ssl_ca={certificate}")

    assert found == PLAIN | CHECKED | {"ssl_ca_certs": str(certificate)}


@pytest.mark.parametrize(
    "url",
    [
        "hush",
        "http://hush@h",
        "redis://",
        "redis://ann:hush/x@h",
        "redis://ann:hush@h:port",
        "redis://ann:hush@h/name",
        "redis://ann:hush@h/1/2",
        "redis://ann:hush@h#1",
        "redis://ann:hush@h?ssl_ca=/ca.pem",
        "redis://ann:hush@h?hush",
        "redis://ann:hush@h?also=i:7",
        "redis://ann:hush@h?sentinel=",
        "redis://ann:hush@h?sentinel=m&also=i",
        "rediss://ann:hush@h?ssl_cert_reqs=none",
        "rediss://ann:hush@h?ssl_ca=/ca.pem&ssl_check_hostname=false",
    ],
)
def test_an_unusable_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        client_arguments(url)

    assert str(refused.value).startswith("LATCHKEY_REDIS_URL")
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    "one, other, same",
    [
        pytest.param(
            ("mysql+asyncmy://a:b@db.example.com/keys", 0), ("mysql+asyncmy://c@127.0.0.1:3307/keys", 0), True,
            id="another way to the same database",
        ),
        pytest.param(("sqlite+aiosqlite:////srv/keys.db", 0), ("sqlite+aiosqlite:///keys.db", 0), True,
            id="another way to the same file",
        ),
        pytest.param(("mysql+asyncmy://a@h/keys", 0), ("mysql+asyncmy://a@h/test", 0), False, id="another database"),
        pytest.param(("mysql+asyncmy://a@h/keys", 0), ("mysql+asyncmy://a@h/keys", 1), False, id="another Redis database"),
    ],
)  # fmt: skip
def test_an_installation_has_one_channel(one: tuple[str, int], other: tuple[str, int], same: bool) -> None:
    assert (installation_name(*one) == installation_name(*other)) is same


def test_without_a_url_there_is_no_channel_and_redis_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)

    assert open_channel(Settings()) is None


def test_without_the_package_the_start_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("redis.asyncio", "redis.backoff", "redis.asyncio.retry"):
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(SettingsError, match=r"LATCHKEY_REDIS_URL needs .* pip install 'latchkey\[redis\]'"):
        open_channel(Settings(redis_url="redis://h"))


def made(url: str, database: str = "keys") -> Channel:
    channel = open_channel(Settings(database_url=f"mysql+asyncmy://a@h/{database}", redis_url=url))
    assert channel is not None
    return channel


async def hear(listener: Listener) -> tuple[int, str]:
    async with asyncio.timeout(5):
        while (said := await listener.next(1)) is None:
            pass
        return said


async def test_messages_are_numbered_and_received_by_the_channel(redis: PrivateRedis) -> None:
    speaker, hearer, unknown = made(redis.url), made(redis.url), made(redis.url, database="other")

    async with hearer.listening() as listener, unknown.listening() as elsewhere:
        before = await hearer.count()
        await speaker.publish("api_keys 1")
        await speaker.publish("users 2")
        heard = [await hear(listener), await hear(listener)]
        nothing = await elsewhere.next(0.05)
        counts = await hearer.count(), await unknown.count()

    for one in (speaker, hearer, unknown):
        await one.close()
    assert before == 0
    assert heard == [(1, "api_keys 1"), (2, "users 2")]
    assert nothing is None
    assert counts == (2, 0)


@pytest.mark.parametrize(
    "act", [Channel.count, lambda channel: channel.publish("x")], ids=["count", "publish"]
)
async def test_a_redis_that_is_gone_is_unreachable(redis: PrivateRedis, act: Callable[..., Any]) -> None:
    channel = made(redis.url)
    await act(channel)
    redis.kill()

    with pytest.raises(UnreachableError):
        await act(channel)

    await channel.close()


async def test_a_redis_that_does_not_answer_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """It accepts the connection, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        channel = made(f"redis://:hush@127.0.0.1:{silent.getsockname()[1]}")
        async with asyncio.timeout(TIMEOUT_S + 1):
            with pytest.raises(UnreachableError) as unreachable:
                await channel.publish("x")
        await channel.close()

    assert "hush" not in str(unreachable.value)


async def test_a_password_that_is_wrong_is_unreachable_and_not_shown(redis: PrivateRedis) -> None:
    redis.command("CONFIG", "SET", "requirepass", "right")
    channel = made(redis.url.replace("//", "//:hush@"))

    with pytest.raises(UnreachableError) as unreachable:
        await channel.count()

    await channel.close()
    assert "hush" not in str(unreachable.value)


async def test_a_cancellation_that_redis_py_loses_is_none_the_less_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before Python 3.12 its `wait_for` loses a cancellation that arrives as it completes."""
    channel = open_channel(Settings(redis_url="redis://127.0.0.1:1"))

    async def lose(_name: str) -> bytes:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return b"5"
        raise AssertionError

    monkeypatch.setattr(channel._client, "get", lose)
    counting = asyncio.create_task(channel.count())
    await asyncio.sleep(0)
    counting.cancel()
    await asyncio.wait([counting])

    assert counting.cancelled()


async def test_a_deadline_around_it_that_redis_py_loses_is_none_the_less_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hooks of a commit have such a deadline."""
    channel = open_channel(Settings(redis_url="redis://127.0.0.1:1"))

    async def lose(*_arguments: object) -> None:
        try:
            await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            return

    monkeypatch.setattr(channel._client, "eval", lose)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await channel.publish("users 1")
