"""The rules of the gate: which request needs which scope, read from a file in TOML.

    [[rules]]
    hosts = ["api.example.com"]
    methods = ["GET"]
    paths = ["/orders", "/orders/*"]
    scope = "orders:read"

The first rule that fits decides. A request that fits none is refused.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Self, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Meta

from latchkey.service.gate.target import DEFAULT_PORTS, Ambiguous, Host, parse_host, segments_of
from latchkey.service.rule_error import RuleError
from latchkey.service.shapes import END, Name, RoleName, ScopeName

MOST_RULES = 1000
LARGEST_FILE_BYTES = 1024 * 1024
ONE, REST = "*", "**"

P = TypeVar("P")

Method = Annotated[str, Meta(pattern=r"^[A-Z][A-Z-]{0,31}" + END)]
Pattern = Annotated[str, Meta(min_length=1, max_length=1000)]


class GateRulesError(ValueError):
    """The rules are wrong; the message names the rule and the fault."""


class RuleText(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A rule as it is written."""

    paths: Annotated[tuple[Pattern, ...], Meta(min_length=1, max_length=100)]
    hosts: Annotated[tuple[Pattern, ...], Meta(max_length=100)] = ()
    """Empty fits every host."""
    methods: Annotated[tuple[Method, ...], Meta(max_length=20)] = ()
    """Empty fits every method; GET fits HEAD too."""
    scope: ScopeName | None = None
    any_key: bool = False
    public: bool = False
    cost: Annotated[int, Meta(ge=0, le=1_000_000)] = 1
    name: Name | None = None
    """For people, in the log and in explanations."""


class NamedRule(RuleText, frozen=True, kw_only=True):
    """A rule that calls store and change by its name: the requests that it fits, and what they need.

    Exactly one of `scope`, `any_key` and `public` must be set. An empty list of `hosts` or `methods` fits all of them.
    """

    name: RoleName


class RulesText(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file of the rules."""

    rules: Annotated[tuple[RuleText, ...], Meta(max_length=MOST_RULES)]


class HostPattern(msgspec.Struct, frozen=True):
    """A host, or with `*.` all hosts below it."""

    host: Host
    below: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a pattern, or raise `Ambiguous`."""
        return cls(parse_host(text.removeprefix("*.")), text.startswith("*."))

    def fits(self, host: Host, scheme: str) -> bool:
        """Return whether a host fits; a pattern without a port fits every port."""
        if self.host.port is not None and self.host.port != (host.port or DEFAULT_PORTS[scheme]):
            return False
        return host.name.endswith(f".{self.host.name}") if self.below else host.name == self.host.name


class PathPattern(msgspec.Struct, frozen=True):
    """Segments, of which `*` fits one; `**` at the end fits the rest, which may be nothing."""

    segments: tuple[str, ...]
    is_open: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a pattern, or raise `Ambiguous`."""
        if not text.startswith("/"):
            raise Ambiguous("it does not begin with a slash")
        if "%" in text or "{" in text or "?" in text:
            raise Ambiguous(
                "it has `%`, `{` or `?`: write characters as they are, and `*` for any one segment"
            )
        inner = text[1:].removesuffix("/")
        written = inner.split("/") if inner else []
        is_open = bool(written) and written[-1] == REST
        segments = tuple(written[:-1] if is_open else written)
        for segment in segments:
            if ONE in segment and segment != ONE:
                raise Ambiguous("`*` stands for one whole segment, and `**` for the rest at the end")
        return cls(segments_of("/" + "/".join(quote(one, safe="") for one in segments)), is_open)

    def fits(self, segments: Sequence[str]) -> bool:
        """Return whether the decoded segments of a path fit."""
        length = len(self.segments)
        if len(segments) < length or (not self.is_open and len(segments) > length):
            return False
        return all(want in {ONE, has} for want, has in zip(self.segments, segments, strict=False))

    @property
    def first(self) -> str | None:
        """Return the first segment, if it is not a wildcard."""
        return self.segments[0] if self.segments and self.segments[0] != ONE else None


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule: the requests that it fits, and what they need."""

    number: int
    """Its place in the file or among the stored rules, from 1."""
    text: RuleText
    is_stored: bool
    hosts: tuple[HostPattern, ...]
    methods: frozenset[str]
    paths: tuple[PathPattern, ...]

    @classmethod
    def of(cls, text: RuleText, number: int, *, is_stored: bool = False) -> Self:
        """Return the rule that a text describes.

        Raises:
            RuleError: it cannot work.
        """
        if (text.scope is not None) + text.any_key + text.public != 1:
            raise RuleError("set exactly one of `scope`, `any_key = true` and `public = true`")
        if text.public and text.cost != 1:
            raise RuleError("a public request is charged to no key, so it has no cost")
        methods = frozenset(text.methods) | ({"HEAD"} if "GET" in text.methods else set())
        return cls(
            number=number,
            text=text,
            is_stored=is_stored,
            hosts=tuple(parse_all(HostPattern.parse, text.hosts, "hosts")),
            methods=methods,
            paths=tuple(parse_all(PathPattern.parse, text.paths, "paths")),
        )

    @property
    def place(self) -> str:
        """Return where the rule is."""
        return f"stored rule {self.number}" if self.is_stored else f"rule {self.number}"

    @property
    def label(self) -> str:
        """Return the name of the rule for people."""
        return self.place if self.text.name is None else f"{self.place} ({self.text.name})"

    @property
    def counted_as(self) -> str:
        """Return the name of the rule in usage; a name of its own stays when rules are moved."""
        return f"gate: {self.text.name or self.place}"

    def fits(self, method: str, scheme: str, host: Host, segments: Sequence[str]) -> bool:
        """Return whether a request fits."""
        return (
            (not self.methods or method in self.methods)
            and (not self.hosts or any(one.fits(host, scheme) for one in self.hosts))
            and any(one.fits(segments) for one in self.paths)
        )


def parse_all(parse: Callable[[str], P], texts: Sequence[str], field: str) -> Iterator[P]:
    """Yield the patterns of a field, or raise `RuleError` for one that cannot be parsed."""
    for place, text in enumerate(texts):
        try:
            yield parse(text)
        except Ambiguous as error:
            raise RuleError(f"{text!r}: {error}", field, place) from None


class Rules:
    """The rules in their order, indexed by the first segment of their paths."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.all = tuple(rules)
        firsts = {pattern.first for rule in rules for pattern in rule.paths}
        self._by_first: dict[str | None, tuple[Rule, ...]] = {
            first: tuple(
                rule for rule in rules if any(pattern.first in {first, None} for pattern in rule.paths)
            )
            for first in {*firsts, None}
        }

    def find(self, method: str, scheme: str, host: Host, segments: Sequence[str]) -> Rule | None:
        """Return the first rule that fits; None refuses the request."""
        first = segments[0] if segments else None
        candidates = self._by_first.get(first)
        if candidates is None:
            candidates = self._by_first[None]
        for rule in candidates:
            if rule.fits(method, scheme, host, segments):
                return rule
        return None


def read_rules(file: str) -> Rules:
    """Return the rules of a file.

    Raises:
        GateRulesError: the file cannot be read or decoded, or a rule cannot work.
    """
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise GateRulesError(f"{file}: {error.strerror}") from None
    if len(content) > LARGEST_FILE_BYTES:
        raise GateRulesError(f"{file}: it has more than {LARGEST_FILE_BYTES} bytes")
    try:
        return parse_rules(content)
    except GateRulesError as error:
        raise GateRulesError(f"{file}: {error}") from None


def parse_rules(content: bytes) -> Rules:
    """Return the rules of a text in TOML.

    Raises:
        GateRulesError: it cannot be decoded, or a rule cannot work or is never reached.
    """
    try:
        texts = msgspec.toml.decode(content, type=RulesText).rules
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise GateRulesError(numbered(str(error))) from None
    seen: set[RuleText] = set()
    rules = []
    for number, text in enumerate(texts, 1):
        if text in seen:
            raise GateRulesError(f"rule {number}: it is the same as an earlier rule")
        seen.add(text)
        try:
            rules.append(Rule.of(text, number))
        except RuleError as error:
            raise GateRulesError(f"rule {number}: {error.reason}") from None
    return Rules(rules)


def numbered(message: str) -> str:
    """Return a message of the decoder with the numbers of rules from 1, as in all other messages."""
    return re.sub(r"\$\.rules\[(\d+)\]", lambda found: f"rule {int(found[1]) + 1}", message)
