"""The sockets on which a server listens, the same for one worker, for several, and with reload."""

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

EVERYWHERE = "::"  # every address of this machine, IPv4 included
ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})  # this machine has no address of the kind


@contextmanager
def bound(host: str, port: int, *, advice: str) -> Iterator[list[socket.socket]]:
    """Bind sockets as `bind` does, and close them at the end of the block."""
    sockets = bind(host, port, advice=advice)
    try:
        yield sockets
    finally:
        close(sockets)


def bind(host: str, port: int, *, advice: str) -> list[socket.socket]:
    """Return sockets that are bound to every address of a host; a server listens on them when it is ready.

    Args:
        host: an address or a name. `::` includes IPv4, whatever the default of the system is.
        port: the port.
        advice: what the error suggests when the port cannot be used.
    """
    bound: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, address in addresses(host, port):
            try:
                bound.append(bind_one(family, address, is_dual=host == EVERYWHERE))
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
                absent = error
        if absent is not None and not bound:
            raise absent
    except (OSError, UnicodeError) as error:
        close(bound)
        reason = getattr(error, "strerror", None) or "it is not the name of a host"
        raise click.ClickException(f"cannot listen on port {port} of {host}: {reason}; {advice}.") from error
    return bound


def addresses(host: str, port: int) -> list[tuple[int, tuple[object, ...]]]:
    """Return the different addresses of a host, each with its family."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def bind_one(family: int, address: tuple[object, ...], *, is_dual: bool) -> socket.socket:
    """Return a socket that is bound to one address."""
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not is_dual)
        made.bind(address)
    except BaseException:
        made.close()
        raise
    return made


def close(sockets: Sequence[socket.socket]) -> None:
    """Close sockets."""
    for one in sockets:
        one.close()
