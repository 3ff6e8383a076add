"""Free ports of this machine."""

import socket


def free_port() -> int:
    """Return a port on which nothing listens at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port
