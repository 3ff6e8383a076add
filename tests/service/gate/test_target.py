"""The normal form of hosts and paths, and what has none."""

import pytest

from latchkey.service.gate.target import Ambiguous, Host, parse_host, segments_of, split_target


@pytest.mark.parametrize(
    "path, segments",
    [
        pytest.param("/", (), id="root"),
        pytest.param("/orders", ("orders",), id="one"),
        pytest.param("/orders/", ("orders",), id="a slash at the end"),
        pytest.param("/orders/7/lines", ("orders", "7", "lines"), id="three"),
        pytest.param("/%6frders", ("orders",), id="an escaped letter"),
        pytest.param("/orders%2D1", ("orders-1",), id="an escaped hyphen"),
        pytest.param("/m%C3%BCnchen", ("münchen",), id="UTF-8"),
        pytest.param("/a%20b", ("a b",), id="a space"),
        pytest.param("/100%25", ("100%",), id="a percent sign"),
        pytest.param("/.well-known/x", (".well-known", "x"), id="a dot at the start"),
        pytest.param("/a..b/v1.2.3", ("a..b", "v1.2.3"), id="dots inside"),
        pytest.param("/a+b&c=d,e@f:g!$'()*", ("a+b&c=d,e@f:g!$'()*",), id="other characters"),
        pytest.param('/{a}|"b"', ('{a}|"b"',), id="characters that clients should escape"),
    ],
)
def test_a_path_has_one_normal_form(path: str, segments: tuple[str, ...]) -> None:
    assert segments_of(path) == segments


@pytest.mark.parametrize(
    "path",
    [
        "//", "//admin", "/a//b", "/a//", "/./a", "/a/.", "/a/..", "/../a", "/a/../b", "/a/./b",
        "/%2e%2e/a", "/.%2e/a", "/a/%2E", "/a%2Fb", "/a%2fb", "/a%5Cb", "/a\\b", "/..\\a", "/a/..;/b", "/a;x=1", "/a%3Bx",
        "/a%00", "/a%0A", "/a%0d%0ab", "/a%7F", "/a%C2%80", "/a%252Fb", "/a%252e", "/a%2500", "/%c0%ae%c0%ae/a", "/%ff",
        "/a%", "/a%2", "/a%zz", "/a%u002f", "/a b", "/a\tb", "/a\x00", "/m\xfcnchen", "/a#b", "/a%23b", "/a%3Fb", "/...",
        "/admin.", "/admin%20", "/admin%2e", "/e%CC%81", "/%EF%BC%8E%EF%BC%8E/a", "/a%EF%BC%8Fb", "/a%E2%80%A6",
    ],
)  # fmt: skip
def test_a_path_that_servers_read_differently_has_none(path: str) -> None:
    with pytest.raises(Ambiguous):
        segments_of(path)


@pytest.mark.parametrize("target", ["", "*", "orders", "http://a.example/orders", "?a=1", "\\orders"])
def test_a_target_that_is_no_path_is_refused(target: str) -> None:
    with pytest.raises(Ambiguous):
        split_target(target)


def test_a_target_is_split_at_its_first_question_mark() -> None:
    assert split_target("/a?b=/../c?d") == ("/a", "b=/../c?d")


@pytest.mark.parametrize(
    "text, host",
    [
        ("api.example.com", Host("api.example.com", None)),
        ("API.Example.COM", Host("api.example.com", None)),
        ("api.example.com.", Host("api.example.com", None)),
        ("api.example.com:8443", Host("api.example.com", 8443)),
        ("10.0.0.1:80", Host("10.0.0.1", 80)),
        ("[::1]:80", Host("::1", 80)),
        ("[0:0:0:0:0:0:0:1]", Host("::1", None)),
        ("my_service", Host("my_service", None)),
    ],
)
def test_a_host_has_one_normal_form(text: str, host: Host) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text",
    ["", ".", "a..b", ".a", "a b", "a, b", "user@a", "a/b", "a:", "a:x", "a:123456", "[::1", "[1]", "::1", "a\\b", "münchen",
     "a%2eb", "a\n", "a.."],
)  # fmt: skip
def test_another_host_is_refused(text: str) -> None:
    with pytest.raises(Ambiguous):
        parse_host(text)
