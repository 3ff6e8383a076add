"""Webhooks cannot reach the operator's own network."""

from ipaddress import ip_address, ip_network

import pytest

from latchkey.service.rule_error import RuleError
from latchkey.service.webhooks.addresses import AddressRules

PUBLIC = AddressRules()
INSIDE = AddressRules(allowed=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")), plain_http=True)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1", "172.31.255.255",
        "192.0.2.1", "192.168.1.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1",
        "2001::1", "2001:db8::1", "2002:7f00:1::", "fc00::1", "fd12::1", "fe80::1", "fec0::1", "ff02::1",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not PUBLIC.permits(ip_address(address))
    with pytest.raises(RuleError, match="not public"):
        PUBLIC.permitted([ip_address("8.8.8.8"), ip_address(address)])


@pytest.mark.parametrize("address", ["1.1.1.1", "172.32.0.1", "::ffff:8.8.8.8", "2606:4700::1111", "2a00::1"])
def test_a_public_address_is_permitted(address: str) -> None:
    assert PUBLIC.permitted([ip_address(address)] * 2) == (ip_address(address),)


@pytest.mark.parametrize(
    "address, permitted",
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("fd00::1", True),
        ("192.168.1.1", False),
        ("::1", False),
    ],
)
def test_a_setting_permits_networks(address: str, permitted: bool) -> None:
    assert INSIDE.permits(ip_address(address)) is permitted


def test_a_host_without_an_address_is_refused() -> None:
    with pytest.raises(RuleError, match="no address"):
        PUBLIC.permitted([])


@pytest.mark.parametrize(
    "url, reason",
    [
        pytest.param("http://example.com/", "must be https", id="plain http"),
        pytest.param("ftp://example.com/", "begin with https", id="another scheme"),
        pytest.param("//example.com/", "begin with https", id="no scheme"),
        pytest.param("https:///path", "host is wrong", id="no host"),
        pytest.param("https://127.0.0.1/", "not a public address", id="loopback"),
        pytest.param("https://[::1]/", "not a public address", id="loopback of IPv6"),
        pytest.param("https://[::ffff:10.0.0.1]/", "not a public address", id="mapped"),
        pytest.param("https://[fe80::1%25eth0]/", "host is wrong", id="a zone"),
        pytest.param("https://user:word@example.com/", "user or a password", id="a password"),
        pytest.param("https://example.com/#part", "fragment", id="a fragment"),
        pytest.param("https://example.com:0/", "port is wrong", id="port 0"),
        pytest.param("https://example.com:70000/", "host or the port", id="a large port"),
        pytest.param("https://exa mple.com/", "percent-encoded", id="a space"),
        pytest.param("https://example.com/\r\nx: y", "percent-encoded", id="a line break"),
        pytest.param("https://example.com\\@evil.example/", "percent-encoded", id="a backslash"),
        pytest.param("https://ex%61mple.com/", "host is wrong", id="an encoded host"),
        pytest.param("https://exämple.com/", "percent-encoded", id="not ASCII"),
        pytest.param("https://[::1/", "host or the port", id="half a bracket"),
        pytest.param("https://example.com/" + "x" * 2048, "more than 2048", id="too long"),
    ],
)
def test_a_url_that_cannot_be_is_refused(url: str, reason: str) -> None:
    with pytest.raises(RuleError, match=reason):
        PUBLIC.check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com:8443/a?b=%20#"[:-1],
        "https://1.1.1.1/x",
        "https://a_b.example./",
    ],
)
def test_a_url_of_the_internet_is_permitted(url: str) -> None:
    PUBLIC.check_url(url)


@pytest.mark.parametrize("url", ["http://10.0.0.1/", "http://receiver:8080/", "https://[fd00::1]:8443/"])
def test_settings_permit_a_url_of_the_own_network(url: str) -> None:
    INSIDE.check_url(url)
