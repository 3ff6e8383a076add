"""The transport that uvicorn writes one response to."""

import asyncio
from collections.abc import Callable


class ResponseTransport:
    """The transport of one response, whose `close` does not reset the connection while the client still sends.

    Args:
        transport: of the connection.
        close: closes the connection after this response.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close
