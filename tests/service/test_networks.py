"""Networks in CIDR notation, and the client address behind proxies."""

import ipaddress
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from latchkey.service.networks import (
    NetworkError,
    Proxies,
    client_address,
    contains,
    covered_by,
    parse_address,
    parse_networks,
)

ACCEPTED = [
    pytest.param("10.0.0.0/8", "10.0.0.0/8", id="IPv4"),
    pytest.param("10.1.2.3", "10.1.2.3/32", id="one IPv4 address"),
    pytest.param("10.1.2.3/32", "10.1.2.3/32", id="one IPv4 address with its length"),
    pytest.param("0.0.0.0/1", "0.0.0.0/1", id="half of IPv4"),
    pytest.param("2001:db8::/32", "2001:db8::/32", id="IPv6"),
    pytest.param("2001:DB8:0:0::/32", "2001:db8::/32", id="IPv6, another spelling"),
    pytest.param("::1", "::1/128", id="one IPv6 address"),
    pytest.param("64:ff9b::192.0.2.0/120", "64:ff9b::c000:200/120", id="IPv6 that ends as IPv4"),
    pytest.param("::/1", "::/1", id="half of IPv6"),
]


@pytest.mark.parametrize("text, canonical", ACCEPTED)
def test_a_block_has_one_canonical_form(text: str, canonical: str) -> None:
    (network,) = parse_networks([text])

    assert str(network) == canonical
    assert parse_networks([canonical]) == (network,)


NO_BLOCK = "it is not a block of addresses"
REFUSED = [
    pytest.param("10.0.0.1/8", "it has host bits set; the block around it is 10.0.0.0/8", id="host bits"),
    pytest.param("2001:db8::1/64", "it has host bits set; the block around it is 2001:db8::/64", id="host bits, IPv6"),
    pytest.param("0.0.0.0/0", "it contains every address", id="all of IPv4"),
    pytest.param("::/0", "it contains every address", id="all of IPv6"),
    pytest.param("10.0.0.1/0", "it contains every address", id="all, with host bits"),
    pytest.param("fe80::%eth0/64", "a block cannot have a zone", id="a zone"),
    pytest.param("fe80::1%1", "a block cannot have a zone", id="a zone of one address"),
    pytest.param("::ffff:10.0.0.0/104", "it is IPv4 written as IPv6", id="IPv4 in disguise"),
    pytest.param("::ffff:10.0.0.1", "it is IPv4 written as IPv6", id="an IPv4 address in disguise"),
    pytest.param("::ffff:0:0/96", "it is IPv4 written as IPv6", id="all of IPv4 in disguise"),
    pytest.param("", NO_BLOCK, id="nothing"),
    pytest.param("/8", NO_BLOCK, id="a length alone"),
    pytest.param("10.0.0.0/", NO_BLOCK, id="no length"),
    pytest.param("10.0.0.0/33", NO_BLOCK, id="a length too large"),
    pytest.param("::/129", NO_BLOCK, id="a length too large for IPv6"),
    pytest.param("10.0.0.0/-1", NO_BLOCK, id="a negative length"),
    pytest.param("10.0.0.0/08", NO_BLOCK, id="a length with a zero in front"),
    pytest.param("10.0.0.0/255.0.0.0", NO_BLOCK, id="a mask"),
    pytest.param("10.0.0.0/0.255.255.255", NO_BLOCK, id="a mask of the hosts"),
    pytest.param("10.0.0.0/8/8", NO_BLOCK, id="two lengths"),
    pytest.param("10.0.0/24", NO_BLOCK, id="three numbers"),
    pytest.param("10.0.0.0.0/8", NO_BLOCK, id="five numbers"),
    pytest.param("010.0.0.0/8", NO_BLOCK, id="a zero in front, perhaps octal"),
    pytest.param("256.0.0.0/8", NO_BLOCK, id="256"),
    pytest.param("0x0a000000", NO_BLOCK, id="hexadecimal"),
    pytest.param("167772160", NO_BLOCK, id="a number"),
    pytest.param("1::2::3", NO_BLOCK, id="two gaps"),
    pytest.param("[::1]", NO_BLOCK, id="brackets"),
    pytest.param("10.0.0.1:80", NO_BLOCK, id="a port"),
    pytest.param(" 10.0.0.1", NO_BLOCK, id="a blank in front"),
    pytest.param("10.0.0.0/8\n", NO_BLOCK, id="a newline at the end"),
    pytest.param("10.0.0.0 /8", NO_BLOCK, id="a blank"),
    pytest.param("10.0.0.0/8,10.0.0.0/9", NO_BLOCK, id="two in one"),
    pytest.param("\uff11\uff10.0.0.1", NO_BLOCK, id="full-width digits"),
    pytest.param("10.0.0.0/\uff18", NO_BLOCK, id="a full-width length"),
    pytest.param("10.0.0.*", NO_BLOCK, id="a star"),
    pytest.param("localhost", NO_BLOCK, id="a name"),
]  # fmt: skip


@pytest.mark.parametrize("text, reason", REFUSED)
def test_an_invalid_block_is_refused_with_its_place(text: str, reason: str) -> None:
    with pytest.raises(NetworkError) as refused:
        parse_networks(["192.0.2.0/24", text])

    assert refused.value.place == 1
    assert refused.value.reason.startswith(reason)
    assert str(refused.value) == f"block 2: {refused.value.reason}"


@pytest.mark.parametrize("again", ["10.0.0.1", "10.0.0.1/32"])
def test_a_block_is_there_once_however_it_is_written(again: str) -> None:
    with pytest.raises(NetworkError) as refused:
        parse_networks(["10.0.0.1", "::1", again])

    assert (refused.value.place, refused.value.reason) == (2, "the block is given twice")


def test_there_are_at_most_a_hundred() -> None:
    hundred = [f"10.0.{n}.0/24" for n in range(100)]

    assert len(parse_networks(hundred)) == 100
    with pytest.raises(NetworkError) as refused:
        parse_networks([*hundred, "192.0.2.1"])
    assert (refused.value.place, refused.value.reason) == (100, "there are more than 100 blocks")


@pytest.mark.parametrize(
    "address, inside",
    [
        ("10.255.255.255", True),
        ("11.0.0.0", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:11.0.0.1", False),
        ("2001:db8:ffff::1", True),
        ("2001:db9::", False),
        ("::10.0.0.1", False),
    ],
)
def test_an_address_is_in_a_block_or_it_is_not(address: str, inside: bool) -> None:
    networks = parse_networks(["192.0.2.1", "10.0.0.0/8", "2001:db8::/32"])

    assert contains(networks, ipaddress.ip_address(address)) is inside


# ---------------------------------------------------------------------- one list within another


@pytest.mark.parametrize(
    "inner, outer, covered",
    [
        pytest.param([], [], True, id="anywhere within anywhere"),
        pytest.param(["10.0.0.0/8"], [], True, id="a block within anywhere"),
        pytest.param([], ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"], False, id="anywhere within all there is"),
        pytest.param([], ["10.0.0.0/8"], False, id="anywhere within a block"),
        pytest.param(["10.0.0.0/8"], ["10.0.0.0/8"], True, id="the same"),
        pytest.param(["10.2.0.0/16", "10.1.2.3"], ["10.0.0.0/8"], True, id="narrower"),
        pytest.param(["10.0.0.0/7"], ["10.0.0.0/8"], False, id="wider by a bit"),
        pytest.param(["10.0.0.0/8", "11.0.0.1"], ["10.0.0.0/8"], False, id="one too many"),
        pytest.param(["10.0.0.0/8"], ["10.0.0.0/9", "10.128.0.0/9"], True, id="two halves make a block"),
        pytest.param(["10.0.0.0/8"], ["10.0.0.0/9", "10.128.0.0/10"], False, id="three quarters do not"),
        pytest.param(["2001:db8::1"], ["10.0.0.0/8"], False, id="IPv6 within IPv4"),
        pytest.param(["10.0.0.1"], ["::/1"], False, id="IPv4 within IPv6"),
        pytest.param(["2001:db8::/33", "10.0.0.1"], ["10.0.0.0/8", "2001:db8::/32"], True, id="both kinds"),
    ],
)  # fmt: skip
def test_a_list_is_within_another_or_it_is_not(inner: list[Any], outer: list[Any], covered: bool) -> None:
    assert covered_by(parse_networks(inner), parse_networks(outer)) is covered


V4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
V6 = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)
ADDRESSES = V4 | V6


@st.composite
def blocks(draw: Any) -> Any:
    """Return a small or large block near the other ones that are drawn."""
    if draw(st.booleans()):
        number, length = draw(st.integers(0, 255)), draw(st.integers(24, 32))
        return ipaddress.ip_network((0x0A000000 + number, length), strict=False)
    number, length = draw(st.integers(0, 255)), draw(st.integers(120, 128))
    return ipaddress.ip_network(((0x20010DB8 << 96) + number, length), strict=False)


LISTS = st.lists(blocks(), max_size=5, unique=True)


@given(LISTS, LISTS)
def test_a_list_is_within_another_when_every_address_of_it_is(inner: list[Any], outer: list[Any]) -> None:
    """The rule is compared with its definition, address by address."""
    assume(inner)

    every = all(not outer or contains(outer, address) for network in inner for address in network)

    assert covered_by(inner, outer) is every


@given(LISTS)
def test_blocks_survive_being_written_and_read(networks: list[Any]) -> None:
    assert list(parse_networks([str(one) for one in networks])) == networks


@given(st.text(alphabet="0123456789abcdefg.:/%[] \n", max_size=40))
def test_any_text_is_a_block_or_a_fault(text: str) -> None:
    try:
        found = parse_networks([text])
    except NetworkError:
        return

    assert found[0].prefixlen > 0
    assert parse_networks([str(found[0])]) == found


@given(V4, st.integers(1, 32))
def test_ipv4_in_the_disguise_of_ipv6_is_where_it_is_without(address: IPv4Address, length: int) -> None:
    network = ipaddress.ip_network((int(address) >> (32 - length) << (32 - length), length))

    assert contains([network], ipaddress.IPv6Address(f"::ffff:{address}"))


# ---------------------------------------------------------------------- the client behind proxies

TRUSTED = parse_networks(["10.0.0.0/8", "2001:db8::/32"])
WALKS = [
    pytest.param("198.51.100.7", [], "198.51.100.7", id="no proxy"),
    pytest.param("198.51.100.7", ["203.0.113.9"], "198.51.100.7", id="a peer that is not trusted is not believed"),
    pytest.param("198.51.100.7", ["10.0.0.1"], "198.51.100.7", id="a trusted name does not make a peer trusted"),
    pytest.param("10.0.0.1", [], "10.0.0.1", id="a proxy on its own behalf"),
    pytest.param("10.0.0.1", ["203.0.113.9"], "203.0.113.9", id="behind a proxy"),
    pytest.param("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9", id="what the client wrote is not read"),
    pytest.param("10.0.0.1", ["x, 203.0.113.9"], "203.0.113.9", id="nor is its garbage"),
    pytest.param("10.0.0.1", [", ,203.0.113.9"], "203.0.113.9", id="nor are its commas"),
    pytest.param("10.0.0.1", ["203.0.113.9, 10.0.0.2"], "203.0.113.9", id="behind two proxies"),
    pytest.param("10.0.0.1", ["1.1.1.1,203.0.113.9,10.0.0.3\t, 10.0.0.2"], "203.0.113.9", id="behind three"),
    pytest.param("10.0.0.1", ["10.0.0.3, 203.0.113.9, 10.0.0.2"], "203.0.113.9", id="a trusted name on the left"),
    pytest.param("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3", id="proxies all the way"),
    pytest.param("10.0.0.1", ["1.1.1.1", "203.0.113.9"], "203.0.113.9", id="two headers are one list"),
    pytest.param("10.0.0.1", ["203.0.113.9", "10.0.0.2"], "203.0.113.9", id="two headers, walked over both"),
    pytest.param("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9", id="a port"),
    pytest.param("10.0.0.1", ["[2a00::7]:4711"], "2a00::7", id="brackets and a port"),
    pytest.param("10.0.0.1", ["[2a00::7]"], "2a00::7", id="brackets"),
    pytest.param("10.0.0.1", ["2a00::7"], "2a00::7", id="IPv6 as it is"),
    pytest.param("10.0.0.1", ["203.0.113.9, [2001:db8::2]:443"], "203.0.113.9", id="a trusted IPv6 proxy"),
    pytest.param("10.0.0.1", ["203.0.113.9, 10.0.0.2:443"], "203.0.113.9", id="a trusted proxy with a port"),
    pytest.param("10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9", id="a client in disguise"),
    pytest.param("10.0.0.1", ["[::ffff:203.0.113.9]:1"], "203.0.113.9", id="a client in disguise, brackets"),
    pytest.param("10.0.0.1", ["203.0.113.9, ::ffff:10.0.0.2"], "203.0.113.9", id="a proxy in disguise"),
    pytest.param("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9", id="a peer in disguise"),
    pytest.param("::ffff:198.51.100.7", [], "198.51.100.7", id="a peer in disguise that is no proxy"),
    pytest.param("fe80::1%eth0", [], "fe80::1", id="a peer with a zone"),
    pytest.param("2001:db8::1%3", ["203.0.113.9"], "203.0.113.9", id="a proxy with a zone"),
    pytest.param(None, [], None, id="a Unix socket"),
    pytest.param(None, ["203.0.113.9"], None, id="a Unix socket that says something"),
    pytest.param("testclient", ["203.0.113.9"], None, id="a peer that is no address"),
    pytest.param("10.0.0.1", ["unknown"], None, id="a proxy that cannot tell"),
    pytest.param("10.0.0.1", ["203.0.113.9, unknown"], None, id="and the left is not asked instead"),
    pytest.param("10.0.0.1", ["203.0.113.9,"], None, id="nothing behind a comma"),
    pytest.param("10.0.0.1", [""], None, id="an empty header"),
    pytest.param("10.0.0.1", ["203.0.113.9", ""], None, id="an empty header behind another"),
    pytest.param("10.0.0.1", ["203.0.113.9, x, 10.0.0.2"], None, id="garbage among proxies"),
    pytest.param("10.0.0.1", ["203.0.113.9 10.0.0.2"], None, id="a blank for a comma"),
    pytest.param("10.0.0.1", ["[203.0.113.9]"], None, id="IPv4 in brackets"),
    pytest.param("10.0.0.1", ["[2a00::7"], None, id="a bracket alone"),
    pytest.param("10.0.0.1", ["203.0.113.9:"], None, id="a port without digits"),
    pytest.param("10.0.0.1", ["203.0.113.9:123456"], None, id="a port too long"),
    pytest.param("10.0.0.1", ["fe80::1%eth0"], None, id="a zone of another machine"),
    pytest.param("10.0.0.1", ["010.0.0.2"], None, id="a zero in front"),
    pytest.param("10.0.0.1", ["\uff11\uff10.0.0.2"], None, id="full-width digits"),
    pytest.param("10.0.0.1", ["203.0.113.0/24"], None, id="a block"),
    pytest.param("10.0.0.1", ["proxy.example"], None, id="a name"),
]  # fmt: skip


@pytest.mark.parametrize("peer, forwarded_for, client", WALKS)
def test_the_client_is_who_the_last_trusted_proxy_names(
    peer: str | None, forwarded_for: list[Any], client: str | None
) -> None:
    found = client_address(peer, forwarded_for, TRUSTED)

    assert (None if found is None else str(found)) == client


@given(ADDRESSES, st.lists(st.text(max_size=30), max_size=3))
def test_without_a_trusted_proxy_nothing_that_is_sent_matters(
    peer: IPv6Address | IPv4Address, forwarded_for: list[Any]
) -> None:
    assert client_address(str(peer), forwarded_for, ()) == parse_address(str(peer))


@given(ADDRESSES, st.text(max_size=60), st.integers(0, 3), st.booleans())
def test_nothing_that_a_client_sends_hides_its_address(
    client: IPv4Address | IPv6Address, said: str, proxies: int, in_headers: bool
) -> None:
    """The proxies append the address of their peer; the client may have sent anything before."""
    assume(not contains(TRUSTED, client))
    seen = [said, str(client), *(f"10.0.0.{n}" for n in range(proxies))]

    found = client_address("10.9.9.9", seen if in_headers else [", ".join(seen)], TRUSTED)

    assert found == parse_address(str(client))


@given(st.lists(st.text(alphabet="0123456789abcdef.:[]%, \t", max_size=60), max_size=4))
def test_any_text_of_a_trusted_proxy_is_an_address_or_none(forwarded_for: list[Any]) -> None:
    found = client_address("10.0.0.1", forwarded_for, TRUSTED)

    assert found is None or found == parse_address(str(found))


# ---------------------------------------------------------------------- of a request


def test_the_headers_of_a_request_are_read_in_their_order() -> None:
    scope = {
        "client": ("10.0.0.1", 5),
        "headers": [
            (b"x-forwarded-for", b"203.0.113.9"),
            (b"host", b"10.0.0.9"),
            (b"x-forwarded-for", b"10.0.0.2"),
        ],
    }

    assert Proxies.from_text(" 10.0.0.0/8 ,2001:db8::/32").client_text(scope) == "203.0.113.9"
    assert Proxies().client_text(scope) == "10.0.0.1"
    assert Proxies().client_text({**scope, "client": None}) is None
    assert Proxies().client_text({"headers": []}) is None


def test_a_header_that_is_not_ascii_names_nobody() -> None:
    scope = {"client": ("10.0.0.1", 5), "headers": [(b"x-forwarded-for", b"\xff")]}

    assert Proxies.from_text("10.0.0.0/8").client(scope) is None


@pytest.mark.parametrize("text", ["", ",", "10.0.0.0/8,", "10.0.0.0/8;::1", "*", "0.0.0.0/0"])
def test_proxies_that_are_no_list_of_blocks_are_refused(text: str) -> None:
    with pytest.raises(NetworkError):
        Proxies.from_text(text)
