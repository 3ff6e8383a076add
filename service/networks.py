"""Where a call comes from: blocks of addresses, and the address of the client behind proxies.

Everything here is pure. An address is never one of IPv6's `::ffff:0:0/96`: those are IPv4 addresses in
disguise (RFC 4291, section 2.5.5.2), seen by a socket that takes both, and are turned back first.
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

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LARGEST_LIST = 100
MAPPED = IPv6Network("::ffff:0:0/96")

# `ip_network` also takes a mask instead of a length, a length with zeros in front, and a zone.
_BLOCK = re.compile(r"[0-9A-Fa-f.:]+(?:/(?:0|[1-9][0-9]{0,2}))?", re.ASCII)

_NO_BLOCK = "it is no block of addresses, as in 192.0.2.0/24 or 2001:db8::/32"

# What proxies write into X-Forwarded-For: an address, of IPv6 perhaps in brackets, perhaps with a port.
_HOP = re.compile(
    r"(?:(?P<v4>[0-9.]{7,15})|\[(?P<v6>(?=[^\]]*:)[0-9A-Fa-f.:]{2,45})\])(?::[0-9]{1,5})?|(?P<bare>[0-9A-Fa-f.:]{2,45})",
    re.ASCII,
)


class NetworkError(ValueError):
    """A block of a list is wrong; `place` says which, from 0, and `reason` why."""

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(f"block {place + 1}: {reason}")
        self.place = place
        self.reason = reason


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Read blocks in CIDR notation, IPv4 and IPv6; a bare address is a block of one.

    Raises:
        NetworkError: one is no block, has host bits set, holds every address there is, is IPv4 in the
            disguise of IPv6, or is there twice; or there are more than 100.
    """
    found: dict[Network, None] = {}
    for place, text in enumerate(texts):
        if place == LARGEST_LIST:
            raise NetworkError(place, f"there are more than {LARGEST_LIST} blocks")
        network = _parse_network(text, place)
        if network in found:
            raise NetworkError(place, "the block is there twice")
        found[network] = None
    return tuple(found)


@functools.lru_cache(maxsize=1024)
def read_networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Read blocks that were checked when they were stored; a key's are read once, not at each call."""
    return parse_networks(texts)


def _parse_network(text: str, place: int) -> Network:
    if "%" in text:
        raise NetworkError(place, "a block has no zone")
    if not _BLOCK.fullmatch(text):
        raise NetworkError(place, _NO_BLOCK)
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise NetworkError(place, _NO_BLOCK) from None
    if network.prefixlen == 0:
        raise NetworkError(place, "it holds every address; an empty list means anywhere")
    if network.network_address != ip_address(text.partition("/")[0]):
        raise NetworkError(place, f"it has host bits set; the block around it is {network}")
    if isinstance(network, IPv6Network) and network.subnet_of(MAPPED):
        raise NetworkError(place, "it is IPv4 written as IPv6; write it as IPv4")
    return network


@functools.lru_cache(maxsize=4096)
def parse_address(text: str) -> Address | None:
    """Read one address, IPv4 where it is IPv4 in disguise; None for anything else."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return unmapped(address)


def unmapped(address: Address) -> Address:
    """Return the IPv4 address of `::ffff:192.0.2.1`, and any other as it is."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def contains(networks: Iterable[Network], address: Address) -> bool:
    """Return whether an address is in one of the blocks."""
    plain = unmapped(address)
    return any(plain in network for network in networks)


def covered_by(inner: Sequence[Network], outer: Sequence[Network]) -> bool:
    """Return whether whatever `inner` allows, `outer` allows; an empty list allows every address.

    Blocks of `outer` that stand side by side count as the one that they make together.
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
    """Return the client address, or None when no trusted proxy names one.

    It is the peer's. While that is a trusted proxy, it is whom this proxy names, which is the last
    entry of `X-Forwarded-For` that was not looked at yet. What stands left of the first address that is not
    trusted was written by whoever is there, and is never looked at.

    When the list ends, the leftmost trusted proxy called on its own behalf. When a trusted proxy names no
    address (`unknown`, say, or nothing between two commas), the client is unknown, rather than the
    proxy: a key that may be used from the proxy's network must not be open to whom the proxy cannot name.

    Args:
        peer: the other end of the connection; None where it has no address, as at a Unix socket.
        forwarded_for: the values of every `X-Forwarded-For` header, in their order: together, one list.
        trusted: the blocks in which the proxies are.
    """
    # A zone is only known to this machine, and says nothing about the address.
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
    """The proxies that may say who the client is; without any, the peer is the client."""

    trusted: tuple[Network, ...] = ()

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read blocks with commas between, blanks around them allowed.

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
        """Return the address as text, for a log line."""
        address = self.client(scope)
        return None if address is None else str(address)
