"""The public keys of GitHub, from a file or a URL, kept in the memory of a worker."""

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpcore2
from cryptography.hazmat.primitives.asymmetric import ec

from latchkey.service.leaks.github import PublicKeyMap, read_public_keys
from latchkey.service.settings import Settings, SettingsError
from latchkey.service.webhooks.sender import host_of, sentence_of

log = logging.getLogger("latchkey.leaks")

LARGEST_LIST_BYTES = 64 * 1024
TIMEOUT_S = 10.0
FRESH_S = 60 * 60.0
PAUSE_S = 60.0  # between two readings, whatever the reports name
LOOPBACK = frozenset({"127.0.0.1", "localhost"})

Read = Callable[[], Awaitable[bytes]]


class UnreadableKeysError(Exception):
    """The list of keys cannot be read; the message is the reason."""


class PublicKeys:
    """The keys of the list, which is read again after an hour, and for an unknown identifier at most once a minute.

    If it cannot be read, the keys that were read before stay in use.

    Args:
        read: returns the content of the list, or raises `UnreadableKeysError`.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, read: Read, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._keys: PublicKeyMap | None = None
        self._tried_at = float("-inf")
        self._reading = asyncio.Lock()

    async def find(self, identifier: str) -> ec.EllipticCurvePublicKey | None:
        """Return the key with an identifier; None if the list has none.

        Raises:
            UnreadableKeysError: the list could not be read yet.
        """
        async with self._reading:
            age_s = self._clock() - self._tried_at
            is_known = self._keys is not None and identifier in self._keys
            if age_s >= (FRESH_S if is_known else PAUSE_S):
                self._tried_at = self._clock()
                await self._refresh()
        if self._keys is None:
            raise UnreadableKeysError("the public keys of GitHub could not be read")
        return self._keys.get(identifier)

    async def _refresh(self) -> None:
        try:
            self._keys = read_public_keys(await self._read())
        except (UnreadableKeysError, ValueError) as error:
            log.warning("the public keys of GitHub could not be read: %s", error)


def open_public_keys(settings: Settings) -> PublicKeys | None:
    """Return the keys that the settings name; None if they name none.

    Raises:
        SettingsError: the file cannot be read or is no list of keys, or the URL is not one of https.
    """
    place = settings.github_public_keys
    if place is None:
        return None
    variable = "LATCHKEY_GITHUB_PUBLIC_KEYS"
    if "://" in place:
        try:
            parts = urlsplit(place)
            is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
        except ValueError:
            is_safe = False
        if not is_safe or not place.isascii():
            raise SettingsError(f"{variable}: it must be a file, or a URL that begins with https://.")
        return PublicKeys(partial(read_url, place))
    try:
        read_public_keys(read_file(Path(place)))
    except (UnreadableKeysError, ValueError) as error:
        raise SettingsError(f"{variable}: {place}: {error}.") from None
    return PublicKeys(partial(asyncio.to_thread, read_file, Path(place)))


def read_file(path: Path) -> bytes:
    """Return the content of a file, or raise `UnreadableKeysError`."""
    try:
        with path.open("rb") as file:
            return bounded(file.read(LARGEST_LIST_BYTES + 1))
    except OSError as error:
        raise UnreadableKeysError(error.strerror or str(error)) from None


async def read_url(url: str) -> bytes:
    """Return the content at a URL, without following redirects, or raise `UnreadableKeysError`."""
    headers = [
        ("host", host_of(url)),
        ("accept", "application/json"),
        ("user-agent", "Latchkey"),
        ("connection", "close"),
    ]
    content = b""
    try:
        context = await asyncio.to_thread(ssl.create_default_context)
        async with (
            asyncio.timeout(TIMEOUT_S),
            httpcore2.AsyncConnectionPool(ssl_context=context, max_keepalive_connections=0) as pool,
            pool.stream("GET", url, headers=headers) as answer,
        ):
            if answer.status != 200:  # noqa: PLR2004 - RFC 9110, section 15.3.1
                raise UnreadableKeysError(f"the server answered with {answer.status}")
            async for part in answer.aiter_stream():
                content = bounded(content + part)
    except TimeoutError:
        raise UnreadableKeysError(f"no response within {TIMEOUT_S:g} seconds") from None
    except (OSError, httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException) as error:
        raise UnreadableKeysError(sentence_of(error)) from None
    return content


def bounded(content: bytes) -> bytes:
    """Return a content, or raise `UnreadableKeysError` if it is larger than a list of keys."""
    if len(content) > LARGEST_LIST_BYTES:
        raise UnreadableKeysError(f"it has more than {LARGEST_LIST_BYTES} bytes")
    return content
