"""The rules of the gate: their file, and the request that each fits."""

from pathlib import Path

import pytest

from latchkey.service.gate.rules import GateRulesError, Rules, parse_rules, read_rules
from latchkey.service.gate.target import parse_host, segments_of

RULES = b"""
[[rules]]
name = "health"
paths = ["/health"]
methods = ["GET"]
public = true

[[rules]]
hosts = ["api.example.com"]
methods = ["GET"]
paths = ["/orders", "/orders/*"]
scope = "orders:read"

[[rules]]
hosts = ["api.example.com", "*.shops.example.com"]
methods = ["POST", "DELETE"]
paths = ["/orders", "/orders/*"]
scope = "orders:write"
cost = 5

[[rules]]
hosts = ["api.example.com:8443"]
paths = ["/files/**"]
any_key = true

[[rules]]
hosts = ["cafe.internal", "[::1]"]
paths = ["/"]
any_key = true
"""


def found(rules: Rules, method: str, url: str) -> int | None:
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    rule = rules.find(method, scheme, parse_host(host), segments_of(slash + path))
    return None if rule is None else rule.number


@pytest.mark.parametrize(
    "method, url, number",
    [
        ("GET", "https://anything/health", 1),
        ("HEAD", "https://anything/health", 1),
        ("POST", "https://anything/health", None),
        ("GET", "https://api.example.com/orders", 2),
        ("GET", "https://api.example.com/orders/", 2),
        ("GET", "https://api.example.com/%6frders", 2),
        ("GET", "https://API.example.com./orders/7", 2),
        ("GET", "http://api.example.com:8000/orders/7", 2),
        ("GET", "https://api.example.com/orders/7/lines", None),
        ("GET", "https://api.example.com/Orders", None),
        ("GET", "https://other.example.com/orders", None),
        ("GET", "https://api.example.com.evil.example/orders", None),
        ("DELETE", "https://api.example.com/orders/7", 3),
        ("POST", "https://a.shops.example.com/orders", 3),
        ("POST", "https://a.b.shops.example.com/orders", 3),
        ("POST", "https://shops.example.com/orders", None),
        ("POST", "https://evilshops.example.com/orders", None),
        ("PATCH", "https://api.example.com/orders", None),
        ("PUT", "https://api.example.com:8443/files", 4),
        ("PUT", "https://api.example.com:8443/files/a/b/c", 4),
        ("PUT", "https://api.example.com/files/a", None),
        ("PUT", "https://api.example.com:8443/filesystem", None),
        ("OPTIONS", "http://[0::1]/", 5),
        ("OPTIONS", "http://[0::1]/x", None),
        ("GET", "https://cafe.internal/", 5),
    ],
)
def test_the_first_rule_that_fits_decides(method: str, url: str, number: int | None) -> None:
    assert found(parse_rules(RULES), method, url) == number


def test_a_pattern_is_written_in_decoded_characters() -> None:
    rules = parse_rules('[[rules]]\npaths = ["/münchen/*/a b/**"]\nany_key = true'.encode())

    assert found(rules, "GET", "http://a/m%C3%BCnchen/x/a%20b/1/2") == 1


def test_an_earlier_rule_decides_even_if_a_later_one_names_more() -> None:
    rules = parse_rules(
        b'[[rules]]\npaths = ["/*/x"]\npublic = true\n[[rules]]\npaths = ["/a/x"]\nany_key = true'
    )

    assert found(rules, "GET", "http://a/a/x") == 1


def test_a_port_is_the_default_of_the_scheme() -> None:
    rules = parse_rules(b'[[rules]]\nhosts = ["a:443"]\npaths = ["/**"]\npublic = true')

    assert [found(rules, "GET", url) for url in ("https://a/", "http://a/", "https://a:443/")] == [1, None, 1]


@pytest.mark.parametrize(
    "text, fault",
    [
        ("rules = 1", "Expected `array`"),
        ("[[rules]]\npaths = ['/a']", "rule 1: set exactly one of"),
        ("[[rules]]\npaths = ['/a']\npublic = true\nscope = 'a:b'", "rule 1: set exactly one of"),
        ("[[rules]]\npaths = ['/a']\npublic = true\ncost = 2", "rule 1: a public request"),
        ("[[rules]]\npaths = ['/a']\nscope = 'orders'", "rule 1.scope"),
        ("[[rules]]\npaths = []\npublic = true", "rule 1.paths"),
        ("[[rules]]\npublic = true", "missing required field `paths`"),
        ("[[rules]]\npaths = ['a']\npublic = true", "'a': it does not begin with a slash"),
        ("[[rules]]\npaths = ['/a/{id}']\npublic = true", "'/a/{id}': it has `%`, `{` or `?`"),
        ("[[rules]]\npaths = ['/a%20b']\npublic = true", "it has `%`"),
        ("[[rules]]\npaths = ['/a/*.png']\npublic = true", "one whole segment"),
        ("[[rules]]\npaths = ['/**/a']\npublic = true", "one whole segment"),
        ("[[rules]]\npaths = ['/a//b']\npublic = true", "two slashes"),
        ("[[rules]]\npaths = ['//a']\npublic = true", "two slashes"),
        ("[[rules]]\npaths = ['/a/../b']\npublic = true", "ends with a dot"),
        ("[[rules]]\npaths = ['/a;b']\npublic = true", "semicolon"),
        ("[[rules]]\nhosts = ['a b']\npaths = ['/a']\npublic = true", "'a b': the host"),
        ("[[rules]]\nhosts = ['*']\npaths = ['/a']\npublic = true", "'*': the host"),
        ("[[rules]]\nmethods = ['get']\npaths = ['/a']\npublic = true", "rule 1.methods"),
        ("[[rules]]\npaths = ['/a']\npublic = true\nscopes = ['a:b']", "unknown field `scopes`"),
        ("[[rules]]\npaths = ['/a']\npublic = true\n" * 2, "rule 2: it is the same as an earlier rule"),
        ("[[rules]", "(at line 1"),
        ("[[rules]]\npaths = ['/a']\ncost = -1\nany_key = true", "rule 1.cost"),
    ],
)
def test_wrong_rules_are_refused_with_their_place(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "gate.toml"
    file.write_text(text)

    with pytest.raises(GateRulesError) as caught:
        read_rules(str(file))

    assert fault in str(caught.value)
    assert str(caught.value).startswith(f"{file}: ")


def test_a_file_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "gate.toml"
    file.write_bytes(b"#" * (1024 * 1024 + 1))

    with pytest.raises(GateRulesError, match="more than 1048576 bytes"):
        read_rules(str(file))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(GateRulesError, match=r"none\.toml: No such file"):
        read_rules(str(tmp_path / "none.toml"))
