"""The bounds on a worker's memory and time that its clients may use."""

import msgspec

from latchkey.service.settings import Settings

FIELD_MEMORY_BYTES = (
    150  # the overhead of a header beside its name and value: two `bytes`, a tuple and its place in the list
)


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one worker; each is a setting, see `docs/settings.md`.

    Args:
        header_bytes: of one request, including its request line.
        header_lines: of one request.
        header_timeout_s: until the headers of a request are complete.
        keep_alive_s: how long a connection may wait for its next request; None uses the server's default.
        connections: at one time.
        pipelined: requests of a connection that wait for earlier ones.
        request_memory_bytes: of the headers and bodies of all unanswered requests.
        root_path: in front of the type of a problem.
    """

    header_bytes: int = 16 * 1024
    header_lines: int = 100
    header_timeout_s: float = 10.0
    keep_alive_s: int | None = None
    connections: int = 512
    pipelined: int = 16
    request_memory_bytes: int = 8 * 1024 * 1024
    root_path: str = ""

    @classmethod
    def of(cls, settings: Settings) -> "Bounds":
        """Return the bounds for the settings; a single request of the largest size always fits."""
        head_bytes = 2 * settings.header_limit_bytes + settings.header_limit_lines * FIELD_MEMORY_BYTES
        return cls(
            header_bytes=settings.header_limit_bytes,
            header_lines=settings.header_limit_lines,
            header_timeout_s=settings.header_timeout_s,
            keep_alive_s=settings.keep_alive_s,
            connections=settings.connections,
            pipelined=settings.pipelined_requests,
            request_memory_bytes=max(settings.request_memory_bytes, settings.body_limit_bytes + head_bytes),
            root_path=settings.root_path or "",
        )
