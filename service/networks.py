"""Networks in CIDR notation, and the address of the client behind proxies.

All functions are pure. An address is never in IPv6's `::ffff:0:0/96`: those are IPv4-mapped addresses (RFC 4291,
section 2.5.5.2) of a socket that accepts both versions, and are converted to IPv4 first.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)
from typing import Self

import msgspec
from starlette.types import Scope

from latchkey.service.rule_error import RuleError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LARGEST_LIST = 100
MAPPED = IPv6Network("::ffff:0:0/96")

# `ip_network` also accepts a mask instead of a length, a length with leading zeros, and a zone.
_BLOCK = re.compile(r"[0-9A-Fa-f.:]+(?:/(?:0|[1-9][0-9]{0,2}))?", re.ASCII)

_NO_BLOCK = "it is not a block of addresses, such as 192.0.2.0/24 or 2001:db8::/32"

# An entry of X-Forwarded-For: an address, for IPv6 optionally in brackets, optionally with a port.
_HOP = re.compile(
    r"(?:(?P<v4>[0-9.]{7,15})|\[(?P<v6>(?=[^\]]*:)[0-9A-Fa-f.:]{2,45})\])(?::[0-9]{1,5})?|(?P<bare>[0-9A-Fa-f.:]{2,45})",
    re.ASCII,
)


class NetworkError(RuleError):
    """A block in a list is invalid; `place` is its position, from 0, and `reason` the fault."""

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(reason, place)
        self.place = place

    def __str__(self) -> str:
        return f"block {self.place + 1}: {self.reason}"


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Parse IPv4 and IPv6 blocks in CIDR notation; a single address is a block of one.

    Raises:
        NetworkError: one is not a block, has host bits set, contains every address, is an IPv4-mapped IPv6 block, or is
            given twice; or there are more than 100.
    """
    found: dict[Network, None] = {}
    for place, text in enumerate(texts):
        if place == LARGEST_LIST:
            raise NetworkError(place, f"there are more than {LARGEST_LIST} blocks")
        network = _parse_network(text, place)
        if network in found:
            raise NetworkError(place, "the block is given twice")
        found[network] = None
    return tuple(found)


@functools.lru_cache(maxsize=1024)
def read_networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Return blocks that were checked when they were stored; the result is cached for later calls."""
    return parse_networks(texts)


def _parse_network(text: str, place: int) -> Network:
    if "%" in text:
        raise NetworkError(place, "a block cannot have a zone")
    if not _BLOCK.fullmatch(text):
        raise NetworkError(place, _NO_BLOCK)
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise NetworkError(place, _NO_BLOCK) from None
    if network.prefixlen == 0:
        raise NetworkError(place, "it contains every address; an empty list means anywhere")
    if network.network_address != ip_address(text.partition("/")[0]):
        raise NetworkError(place, f"it has host bits set; the block around it is {network}")
    if isinstance(network, IPv6Network) and network.subnet_of(MAPPED):
        raise NetworkError(place, "it is IPv4 written as IPv6; write it as IPv4")
    return network


@functools.lru_cache(maxsize=4096)
def parse_address(text: str) -> Address | None:
    """Parse one address, converting an IPv4-mapped one to IPv4; None for anything else."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return unmapped(address)


def unmapped(address: Address) -> Address:
    """Return the IPv4 address for an IPv4-mapped one such as `::ffff:192.0.2.1`, and any other address unchanged."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def contains(networks: Iterable[Network], address: Address) -> bool:
    """Return whether an address is in one of the blocks."""
    plain = unmapped(address)
    return any(plain in network for network in networks)


def covered_by(inner: Sequence[Network], outer: Sequence[Network]) -> bool:
    """Return whether `outer` allows every address that `inner` allows; an empty list allows every address.

    Adjacent blocks of `outer` count as the block that they form together.
    """
    if not outer:
        return True
    if not inner:
        return False
    wide_v4 = list(collapse_addresses(one for one in outer if isinstance(one, IPv4Network)))
    wide_v6 = list(collapse_addresses(one for one in outer if isinstance(one, IPv6Network)))
    return all(
        any(map(one.subnet_of, wide_v4)) if isinstance(one, IPv4Network) else any(map(one.subnet_of, wide_v6))
        for one in inner
    )


def client_address(
    peer: str | None, forwarded_for: Sequence[str], trusted: Sequence[Network]
) -> Address | None:
    """Return the client address, or None when it is unknown.

    It is the address of the peer. As long as that is a trusted proxy, it is replaced by the last entry of
    `X-Forwarded-For` that was not used yet. Entries to the left of the first untrusted address were written by the client
    and are ignored.

    When the list ends, the leftmost trusted proxy made the call itself. When a trusted proxy names no address (such as
    `unknown`, or nothing between two commas), the client is unknown instead of being the proxy: a key that may be used from
    the proxy's network must not be usable by a client that the proxy cannot name.

    Args:
        peer: the address of the connection; None where it has none, as at a Unix socket.
        forwarded_for: the values of every `X-Forwarded-For` header, in their order; together they are one list.
        trusted: the networks of the proxies.
    """
    # A zone is local to this machine, and not part of the address.
    address = None if peer is None else parse_address(peer.partition("%")[0])
    left = ",".join(forwarded_for)
    more = bool(forwarded_for)
    while more and address is not None and contains(trusted, address):
        left, comma, hop = left.rpartition(",")
        address = _parse_hop(hop.strip(" \t"))
        more = bool(comma)
    return address


def _parse_hop(text: str) -> Address | None:
    found = _HOP.fullmatch(text)
    return None if found is None else parse_address(found["v4"] or found["v6"] or found["bare"])


class Proxies(msgspec.Struct, frozen=True):
    """The proxies that may set the client address; without any, the peer is the client."""

    trusted: tuple[Network, ...] = ()

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse blocks that are separated by commas and optional blanks.

        Raises:
            NetworkError: as `parse_networks`.
        """
        return cls(parse_networks([one.strip() for one in text.split(",")]))

    def client(self, scope: Scope) -> Address | None:
        """Return the client address of a request; None when it is unknown."""
        client = scope.get("client")
        peer = client[0] if client else None
        if not self.trusted:
            return client_address(peer, (), ())
        forwarded_for = [
            value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"
        ]
        return client_address(peer, forwarded_for, self.trusted)

    def client_text(self, scope: Scope) -> str | None:
        """Return the client address as text, for a log line."""
        address = self.client(scope)
        return None if address is None else str(address)
