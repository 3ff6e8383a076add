"""Mutations of a signed request: each function changes one thing at random.

A mutation may leave the signed content unchanged; `mutate` then tries again.
"""

import base64
import random
import re
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote, unquote_to_bytes

import msgspec

from latchkey.service.authentication.wire.extraction import RESERVED_PARAMETERS
from tests.api import HeldKey
from tests.fuzz.calls import HOST, METHODS, NOW, SAFE_METHODS, Genuine, Sent, mac_of, new_nonce

BODY_LIMIT_BYTES = 1024  # the smallest that can be set
CREDENTIAL_HEADERS = ("authorization", "secret", "signature", "signature-input")


class MutationInput(msgspec.Struct, frozen=True, kw_only=True):
    """A genuine request, and the data that an attacker may have."""

    genuine: Genuine
    sibling: Genuine
    """Another one of the same kind and key."""
    other: HeldKey
    """Another key that signs."""
    bearer: HeldKey

    @property
    def sent(self) -> Sent:
        return self.genuine.sent


Mutation = Callable[[random.Random, MutationInput], Sent | None]
"""Returns the changed request; None if there is nothing to change."""

MUTATIONS: dict[str, Mutation] = {}


def mutation(name: str) -> Callable[[Mutation], Mutation]:
    def listed(function: Mutation) -> Mutation:
        MUTATIONS[name] = function
        return function

    return listed


def mutate(rng: random.Random, source: MutationInput) -> tuple[str, Sent]:
    """Change one thing effectively; return the name of the change and the changed request."""
    before = source.genuine.signed(source.sent)
    while True:
        name = rng.choice(list(MUTATIONS))
        sent = MUTATIONS[name](rng, source)
        if sent is not None and source.genuine.signed(sent) != before and not is_public(sent):
            return name, sent


def is_public(sent: Sent) -> bool:
    """Return whether the changed path requires no key."""
    return sent.method in SAFE_METHODS and unquote_to_bytes(sent.path) in {
        b"/",
        b"/healthz",
        b"/readyz",
        b"/openapi.json",
    }


# ---------------------------------------------------------------------- of any text


def change_text(rng: random.Random, text: str) -> str:
    """Return a text with a random change."""
    return rng.choice(TEXT_CHANGES)(rng, text)


def flip_bit(rng: random.Random, text: str) -> str:
    if not text:
        return text
    at = rng.randrange(len(text))
    return text[:at] + chr(ord(text[at]) ^ 1 << rng.randrange(8)) + text[at + 1 :]


def span(rng: random.Random, text: str) -> tuple[int, int]:
    start = rng.randint(0, len(text))
    return start, min(len(text), start + rng.choice([1, 1, 2, 8]))


def drop(rng: random.Random, text: str) -> str:
    start, end = span(rng, text)
    return text[:start] + text[end:]


def double(rng: random.Random, text: str) -> str:
    start, end = span(rng, text)
    return text[:end] + text[start:end] + text[end:]


def swap(rng: random.Random, text: str) -> str:
    if len(text) < 2:
        return text
    one, two = sorted(rng.sample(range(len(text)), 2))
    return text[:one] + text[two] + text[one + 1 : two] + text[one] + text[two + 1 :]


def truncate(rng: random.Random, text: str) -> str:
    at = rng.randint(0, len(text))
    return rng.choice([text[:at], text[at:]])


def insert(rng: random.Random, text: str) -> str:
    at = rng.randint(0, len(text))
    added: str = rng.choice([*'\0\t\n\r "%&+,;:=?/\\\x7f\xff', chr(rng.randrange(256))])
    return text[:at] + added + text[at:]


def change_case(rng: random.Random, text: str) -> str:
    letters = [at for at, letter in enumerate(text) if letter.isascii() and letter.isalpha()]
    if not letters:
        return text
    at = rng.choice(letters)
    return rng.choice([text[:at] + text[at].swapcase() + text[at + 1 :], text.upper(), text.lower()])


def escape(rng: random.Random, text: str) -> str:
    if not text:
        return text
    at = rng.randrange(len(text))
    return text[:at] + f"%{ord(text[at]):02{rng.choice('xX')}}" + text[at + 1 :]


def unescape(rng: random.Random, text: str) -> str:
    found = list(re.finditer("%[0-9A-Fa-f]{2}", text))
    if not found:
        return text
    one = rng.choice(found)
    return text[: one.start()] + unquote_to_bytes(one[0]).decode("latin-1") + text[one.end() :]


def empty(rng: random.Random, text: str) -> str:
    return ""


def surround(rng: random.Random, text: str) -> str:
    return rng.choice(
        ['"{}"', "({})", ":{}:", "{},", ",{}", "{};", "{}, {}", "{}&{}", "\v{}", "{}\x00"]
    ).format(text, text)


TEXT_CHANGES = (
    flip_bit, flip_bit, drop, double, swap, truncate, insert, change_case, escape, unescape, empty, surround,
)  # fmt: skip


def rearrange(rng: random.Random, parts: Sequence[str]) -> list[str]:
    """Drop, duplicate, move or swap parts."""
    parts = list(parts)
    if not parts:
        return parts
    one, two = rng.randrange(len(parts)), rng.randrange(len(parts))
    match rng.randrange(4):
        case 0:
            del parts[one]
        case 1:
            parts.insert(two, parts[one])
        case 2:
            parts.insert(two, parts.pop(one))
        case _:
            parts[one], parts[two] = parts[two], parts[one]
    return parts


def respell_base64(rng: random.Random, text: str) -> str:
    """Change the bytes inside base64, or only their spelling."""
    value = base64.b64decode(text)
    at = rng.randrange(len(value))
    flipped = value[:at] + bytes([value[at] ^ 1 << rng.randrange(8)]) + value[at + 1 :]
    return rng.choice(
        [
            base64.b64encode(flipped).decode(),
            base64.b64encode(value[::-1]).decode(),
            base64.b64encode(value[:-1]).decode(),
            base64.b64encode(value + b"\0").decode(),
            base64.b64encode(bytes(len(value))).decode(),
            base64.urlsafe_b64encode(value).decode(),
            base64.b32encode(value).decode(),
            value.hex(),
            text.rstrip("="),
            text + "=",
            # The last digit before the padding has two unused bits.
            text[:-2] + chr(ord(text[-2]) + 1) + text[-1:],
            text[:20] + "\n" + text[20:],
        ]
    )


# ---------------------------------------------------------------------- of the request line and the body


@mutation("method")
def change_method(rng: random.Random, source: MutationInput) -> Sent | None:
    others = sorted(METHODS - {source.sent.method})
    if "method" not in source.genuine.covered:
        return source.sent.but(method=rng.choice([one for one in others if one not in SAFE_METHODS]))
    return source.sent.but(method=rng.choice([*others, *others, change_text(rng, source.sent.method)]))


@mutation("path")
def change_path(rng: random.Random, source: MutationInput) -> Sent | None:
    if "path" not in source.genuine.covered:
        return None
    path = source.sent.path
    others = [
        source.sibling.sent.path,
        "/v1/me",
        path + "/",
        "/" + path,
        path + "/.",
        path.replace("/", "%2F"),
    ]
    return source.sent.but(path=rng.choice([*others, *(change_text(rng, path) for _ in others)]))


@mutation("query byte")
def change_query(rng: random.Random, source: MutationInput) -> Sent | None:
    return source.sent.but(query=change_text(rng, source.sent.query))


@mutation("query order")
def rearrange_query(rng: random.Random, source: MutationInput) -> Sent | None:
    return source.sent.but(query="&".join(rearrange(rng, source.sent.query.split("&"))))


@mutation("query parameter")
def change_parameter_of_query(rng: random.Random, source: MutationInput) -> Sent | None:
    pairs = [one.partition("=") for one in source.sent.query.split("&")]
    at = rng.randrange(len(pairs))
    (name, equals, value), (_, _, other) = pairs[at], rng.choice(pairs)
    plain = unquote_to_bytes(value).decode("latin-1")
    pairs[at] = rng.choice(
        [
            (name, equals, quote(change_text(rng, plain).encode("latin-1"), safe="")),
            (name, equals, change_text(rng, value)),
            (name, equals, other),
            (change_text(rng, name), equals, value),
            (rng.choice(sorted(RESERVED_PARAMETERS)), equals, value),
            (name, "", ""),
        ]
    )
    return source.sent.but(query="&".join("".join(one) for one in pairs))


@mutation("query grown")
def grow_query(rng: random.Random, source: MutationInput) -> Sent | None:
    name = rng.choice([*sorted(RESERVED_PARAMETERS), "q", "x", "%6Bey", "ke%79"])
    value = rng.choice(
        ["", "1", source.other.access_key, source.genuine.key.access_key, source.sent.method, "x" * 9000]
    )
    more = f"{name}={value}"
    return source.sent.but(query=rng.choice([f"{source.sent.query}&{more}", f"{more}&{source.sent.query}"]))


@mutation("body")
def change_body(rng: random.Random, source: MutationInput) -> Sent | None:
    if "body" not in source.genuine.covered:
        return None
    grown = [source.sent.body + " ", source.sibling.sent.body, "{}"]
    return source.sent.but(body=rng.choice([*grown, *(change_text(rng, source.sent.body) for _ in range(9))]))


@mutation("body too large")
def grow_body(rng: random.Random, source: MutationInput) -> Sent | None:
    if "body" not in source.genuine.covered:
        return None
    return source.sent.but(body=source.sent.body + " " * (BODY_LIMIT_BYTES + rng.randrange(1, 100)))


# ---------------------------------------------------------------------- of the headers


@mutation("header value")
def change_value(rng: random.Random, source: MutationInput) -> Sent | None:
    name, value = rng.choice(source.sent.headers)
    return source.sent.replacing(name, change_text(rng, value))


@mutation("header name")
def change_name(rng: random.Random, source: MutationInput) -> Sent | None:
    headers = list(source.sent.headers)
    at = rng.randrange(len(headers))
    name, value = headers[at]
    headers[at] = (
        rng.choice([change_text(rng, name), change_text(rng, name), rng.choice(CREDENTIAL_HEADERS)]),
        value,
    )
    return source.sent.but(headers=tuple(headers))


@mutation("header dropped")
def drop_header(rng: random.Random, source: MutationInput) -> Sent | None:
    headers = list(source.sent.headers)
    del headers[rng.randrange(len(headers))]
    return source.sent.but(headers=tuple(headers))


@mutation("header doubled")
def double_header(rng: random.Random, source: MutationInput) -> Sent | None:
    name, value = rng.choice(source.sent.headers)
    again = name, rng.choice([value, change_text(rng, value), source.sibling.sent.header(name) or "", ""])
    headers = source.sent.headers
    return source.sent.but(headers=rng.choice([(*headers, again), (again, *headers)]))


@mutation("headers swapped")
def swap_headers(rng: random.Random, source: MutationInput) -> Sent | None:
    names = [name for name, _ in source.sent.headers]
    values = [value for _, value in source.sent.headers]
    one, two = rng.sample(range(len(values)), 2)
    values[one], values[two] = values[two], values[one]
    return source.sent.but(headers=tuple(zip(names, values, strict=True)))


@mutation("host")
def change_host(rng: random.Random, source: MutationInput) -> Sent | None:
    hosts = [
        f"{HOST}:8080",
        f"{HOST}:443",
        f"{HOST}:080",
        f"{HOST}.",
        f"x.{HOST}",
        f"user@{HOST}",
        "localhost",
    ]
    return source.sent.replacing("host", rng.choice([*hosts, change_text(rng, HOST), change_text(rng, HOST)]))


# ---------------------------------------------------------------------- of the credential


@mutation("another credential too")
def add_credential(rng: random.Random, source: MutationInput) -> Sent | None:
    sibling = source.sibling.sent
    added = {
        "query": [
            source.bearer.bearer,
            ("signature", "sig1=:AAAA:"),
            ("signature-input", 'sig1=("@method")'),
        ],
        "message": [source.bearer.bearer, ("secret", mac_of(source.genuine.key.secret, sibling.query))],
    }
    return source.sent.adding(rng.choice(added[source.genuine.form]))


@mutation("part of another request")
def transplant(rng: random.Random, source: MutationInput) -> Sent | None:
    sibling, sent = source.sibling.sent, source.sent
    part = rng.choice(["method", "path", "query", "body", *(name for name, _ in sent.headers)])
    if part in {"method", "path", "body"} and part not in source.genuine.covered:
        return None
    if part in {"method", "path", "query", "body"}:
        return sent.but(**{part: getattr(sibling, part)})
    value = sibling.header(part)
    return None if value is None else sent.replacing(part, value)


@mutation("key of somebody else")
def change_key(rng: random.Random, source: MutationInput) -> Sent | None:
    own, other = source.genuine.key.access_key, source.other.access_key
    return replace_in_credential(
        source, own, rng.choice([other, source.bearer.access_key, change_text(rng, own)])
    )


@mutation("MAC")
def change_mac(rng: random.Random, source: MutationInput) -> Sent | None:
    text = mac(source)
    sibling = mac(msgspec.structs.replace(source, genuine=source.sibling))
    forged = [
        mac_of(source.other.secret, signed_text(source)),
        mac_of("", signed_text(source)),
        mac_of(source.genuine.key.access_key, signed_text(source)),
        mac_of(source.genuine.key.secret, signed_text(source), "sha512"),
        mac_of(source.genuine.key.secret, signed_text(source), "sha1"),
        mac_of(source.genuine.key.secret, ""),
        sibling,
    ]
    spelled = [respell_base64(rng, text) for _ in range(7)]
    return with_mac(source, rng.choice([*forged, *spelled, *(change_text(rng, text) for _ in range(7))]))


@mutation("time")
def change_time(rng: random.Random, source: MutationInput) -> Sent | None:
    pattern = r"(?:timestamp|created)=(\d+)"
    text = (
        source.sent.query if source.genuine.form == "query" else source.sent.header("signature-input") or ""
    )
    found = re.search(pattern, text)
    assert found is not None
    was = int(found[1])
    others = [
        was + 1,
        was - 1,
        NOW,
        NOW + 3600,
        0,
        -was,
        10**13,
        f"{was}.0",
        f"0{was}",
        f"+{was}",
        f'"{was}"',
    ]
    return replace_in_credential(source, found[0], found[0].replace(found[1], str(rng.choice(others))))


@mutation("nonce")
def change_nonce(rng: random.Random, source: MutationInput) -> Sent | None:
    text = (
        source.sent.query if source.genuine.form == "query" else source.sent.header("signature-input") or ""
    )
    found = re.search(r"nonce=\"?([\w-]+)", text)
    if found is None:
        return None
    others = [new_nonce(rng), change_text(rng, found[1]), found[1][:15], found[1] * 5, ""]
    return replace_in_credential(source, found[1], rng.choice(others))


@mutation("digest")
def change_digest(rng: random.Random, source: MutationInput) -> Sent | None:
    if source.genuine.form == "query":
        found = re.search("content_sha256=([0-9a-f]{64})", source.sent.query)
        if found is None:
            return None
        flipped = f"{int(found[1], 16) ^ 1 << rng.randrange(256):064x}"
        return replace_in_credential(
            source, found[1], rng.choice([flipped, found[1].upper(), found[1][::-1], ""])
        )
    value = source.sent.header("content-digest")
    if value is None:
        return None
    text = value.removeprefix("sha-256=:").removesuffix(":")
    return source.sent.replacing(
        "content-digest",
        rng.choice(
            [
                f"sha-256=:{respell_base64(rng, text)}:",
                f"sha-512=:{text}:",
                f"SHA-256=:{text}:",
                f"{value}, {value}",
                f"{value}, sha-512=:{text}:",
                f"{value};x=1",
            ]
        ),
    )


# ---------------------------------------------------------------------- of the message form alone


@mutation("components")
def change_components(rng: random.Random, source: MutationInput) -> Sent | None:
    given = source.sent.header("signature-input")
    if given is None:
        return None
    before, _, rest = given.partition("(")
    inside, _, after = rest.partition(")")
    parts = inside.split(" ")
    at = rng.randrange(len(parts))
    match rng.randrange(4):
        case 0:
            parts[at] = rng.choice(
                [parts[at] + ";req", parts[at] + ";sf", parts[at].upper(), parts[at].strip('"')]
            )
        case 1:
            parts[at] = change_text(rng, parts[at])
        case 2:
            more = [
                "@target-uri",
                "@scheme",
                "@request-target",
                "@status",
                "@query-param",
                "date",
                "host",
                "x",
                "",
            ]
            parts.insert(at, f'"{rng.choice(more)}"')
        case _:
            parts = rearrange(rng, parts)
    return source.sent.replacing(
        "signature-input", f"{before}({rng.choice([' ', ' ', ' ', '  ']).join(parts)}){after}"
    )


@mutation("parameters")
def change_parameters(rng: random.Random, source: MutationInput) -> Sent | None:
    given = source.sent.header("signature-input")
    if given is None:
        return None
    before, _, after = given.partition(")")
    parts = after.removeprefix(";").split(";")
    at = rng.randrange(len(parts))
    match rng.randrange(4):
        case 0:
            parts[at] = change_text(rng, parts[at])
        case 1:
            more = ['alg="hmac-sha256"', 'alg="none"', f"expires={NOW + 60}", 'tag="other"', "x", "x=1", ""]
            parts.insert(at, rng.choice(more))
        case 2:
            name, _, value = parts[at].partition("=")
            parts[at] = rng.choice(
                [f"{name.upper()}={value}", f"{name}", f"{name}={value.strip(chr(34))}", f"{name}=?1"]
            )
        case _:
            parts = rearrange(rng, parts)
    return source.sent.replacing("signature-input", before + ")" + "".join(f";{one}" for one in parts))


@mutation("labels")
def change_labels(rng: random.Random, source: MutationInput) -> Sent | None:
    given, signature = source.sent.header("signature-input"), source.sent.header("signature")
    if given is None or signature is None:
        return None
    again, theirs = given.replace("sig1", "sig2", 1), signature.replace("sig1", "sig2", 1)
    pairs = [
        (f"{given}, {again}", f"{signature}, {theirs}"),
        (f"{again}, {given}", f"{theirs}, {signature}"),
        (f"{given}, {given}", f"{signature}, {signature}"),
        (f"{given}, {again}", signature),
        (given, f"{signature}, {theirs}"),
        (again, signature),
        (given, theirs),
        (again, f"{theirs}, {signature}"),
    ]
    one, two = rng.choice(pairs)
    return source.sent.replacing("signature-input", one).replacing("signature", two)


# ---------------------------------------------------------------------- where things stand


def replace_in_credential(source: MutationInput, old: str, new: str) -> Sent:
    if source.genuine.form == "query":
        return source.sent.but(query=source.sent.query.replace(old, quote(new.encode("latin-1"), safe="=+")))
    given = source.sent.header("signature-input") or ""
    return source.sent.replacing("signature-input", given.replace(old, new))


def mac(source: MutationInput) -> str:
    if source.genuine.form == "query":
        return source.sent.header("secret") or ""
    return (source.sent.header("signature") or "").removeprefix("sig1=:").removesuffix(":")


def with_mac(source: MutationInput, text: str) -> Sent:
    if source.genuine.form == "query":
        return source.sent.replacing("secret", text)
    return source.sent.replacing("signature", f"sig1=:{text}:")


def signed_text(source: MutationInput) -> str:
    """Return the text under the MAC, for an attacker who signs the right text in a wrong way."""
    sent = source.sent
    if source.genuine.form == "query":
        return sent.query
    _, _, parameters = (sent.header("signature-input") or "").partition("=")
    derived: Mapping[str, str] = {
        "@method": sent.method,
        "@authority": HOST,
        "@path": sent.path,
        "@query": "?" + sent.query,
    }
    names = parameters[1 : parameters.index(")")].replace('"', "").split(" ")
    lines = [f'"{name}": {derived.get(name) or sent.header(name)}' for name in names]
    return "\n".join([*lines, f'"@signature-params": {parameters}'])
