"""How much of a worker's memory and time its clients may hold."""

import msgspec

from latchkey.service.settings import Settings


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one worker; each is a setting, see `docs/settings.md`.

    Args:
        header_bytes: of one request, its request line included.
        header_lines: of one request.
        header_timeout_s: until the headers of a request are complete.
        keep_alive_s: how long a connection may wait for its next request; None leaves it to the server.
        connections: at one time.
        pipelined: requests of a connection that wait for the one before them.
        body_memory_bytes: of all bodies that are in memory.
    """

    header_bytes: int = 16 * 1024
    header_lines: int = 100
    header_timeout_s: float = 10.0
    keep_alive_s: int | None = None
    connections: int = 1024
    pipelined: int = 16
    body_memory_bytes: int = 16 * 1024 * 1024

    @classmethod
    def of(cls, settings: Settings) -> "Bounds":
        """Return the bounds that the settings ask for; one body of the largest size always fits."""
        return cls(
            header_bytes=settings.header_limit_bytes,
            header_lines=settings.header_limit_lines,
            header_timeout_s=settings.header_timeout_s,
            keep_alive_s=settings.keep_alive_s,
            connections=settings.connections,
            pipelined=settings.pipelined_requests,
            body_memory_bytes=max(settings.body_memory_bytes, settings.body_limit_bytes),
        )
