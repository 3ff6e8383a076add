"""The addresses that a webhook may have: pure rules against requests to the operator's own network (SSRF)."""

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from urllib.parse import urlsplit

import msgspec

from latchkey.models.webhook import URL_BYTES
from latchkey.service.networks import (
    Address,
    Network,
    NetworkError,
    contains,
    parse_address,
    parse_networks,
    unmapped,
)
from latchkey.service.rule_error import RuleError
from latchkey.service.settings import Settings, SettingsError

SPECIAL: tuple[Network, ...] = (
    *map(
        IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
            "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
            "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        ),
    ),
    *map(IPv6Network, ("::/3", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "4000::/2", "8000::/1")),
)  # fmt: skip
"""Every block that is not a public unicast address: RFC 6890 and IANA's registries of special-purpose addresses.

Of IPv6 only `2000::/3` is allocated as public unicast; the blocks outside it include the private and the link-local ones,
and those of NAT64, which lead to an IPv4 address.
"""

_PRINTABLE = re.compile(r"[!-~]+")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\.?")
_V6_HOST = re.compile(r"[0-9A-Fa-f:.]{2,45}")


class AddressRules(msgspec.Struct, frozen=True):
    """Which addresses requests may be sent to."""

    allowed: tuple[Network, ...] = ()
    """Blocks that are permitted although they are not public."""
    plain_http: bool = False

    def permits(self, address: Address) -> bool:
        """Return whether requests may be sent to an address."""
        plain = unmapped(address)
        return contains(self.allowed, plain) or not contains(SPECIAL, plain)

    def check_url(self, url: str) -> None:
        """Check the URL of a webhook; a host that is a name is checked again each time that it is resolved.

        Raises:
            RuleError: it cannot be the URL of a webhook.
        """
        scheme, host = parts_of_url(url)
        if scheme != "https" and not self.plain_http:
            raise RuleError("the scheme must be https")
        address = parse_address(host)
        if address is not None and not self.permits(address):
            raise RuleError(f"{address} is not a public address, and requests to it are not permitted")

    def permitted(self, addresses: Sequence[Address]) -> tuple[Address, ...]:
        """Return the addresses of a host, each once.

        Raises:
            RuleError: there are none, or requests to one of them are not permitted.
        """
        found = tuple(dict.fromkeys(addresses))
        if not found:
            raise RuleError("the host has no address")
        if not all(map(self.permits, found)):
            raise RuleError("the host has an address that is not public, to which requests are not permitted")
        return found


def read_addresses(settings: Settings) -> AddressRules:
    """Return which addresses webhooks may have; without settings, public ones by https.

    Raises:
        SettingsError: a network is not a block of addresses.
    """
    texts = [one.strip() for one in (settings.webhook_networks or "").split(",") if one.strip()]
    try:
        return AddressRules(parse_networks(texts), settings.webhook_http == "allow")
    except NetworkError as error:
        raise SettingsError(f"LATCHKEY_WEBHOOK_NETWORKS: {error}.") from None


def parts_of_url(url: str) -> tuple[str, str]:
    """Return the scheme and the host of a URL.

    Raises:
        RuleError: it is not an absolute URL of http or https, or has a part that no request sends.
    """
    if len(url) > URL_BYTES:
        raise RuleError(f"it has more than {URL_BYTES} characters")
    if not _PRINTABLE.fullmatch(url) or "\\" in url:
        raise RuleError("it has a character that must be percent-encoded")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise RuleError("the host or the port is wrong") from None
    if parts.scheme not in {"http", "https"}:
        raise RuleError("it must begin with https://")
    if "@" in parts.netloc:
        raise RuleError("it cannot have a user or a password")
    if "#" in url:
        raise RuleError("it cannot have a fragment")
    is_v6 = parts.netloc.startswith("[")
    if not (_V6_HOST if is_v6 else _HOST).fullmatch(host) or (is_v6 and parse_address(host) is None):
        raise RuleError("the host is wrong")
    if port == 0:
        raise RuleError("the port is wrong")
    return parts.scheme, host
