"""The texts that clients sign by mistake in place of a signature base."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import unquote_plus

from latchkey.service.authentication.wire.message_signature import TARGET, MessageSignature, signature_base
from latchkey.service.explanation.query_variants import (
    lower_escapes,
    reordered,
    respellings,
    upper_escapes,
)
from latchkey.service.explanation.variants import Variant

PLACEHOLDERS = ("localhost", "127.0.0.1", "example.com", "www.example.com", "api.example.com")
"""Hosts that are signed by mistake, from examples and development."""


def message_texts(
    signature: MessageSignature, values: Mapping[str, str], *, hosts: Iterable[str], body: bytes
) -> Iterator[Variant]:
    """Return the texts that clients sign by mistake in place of a signature base.

    Args:
        signature: as received.
        values: the right values of all components.
        hosts: other hosts that the client may have signed.
        body: of the request.
    """
    components, parameters = signature.components, signature.parameters
    wrong = list(line_mistakes(values, hosts))
    yield from layouts(signature, values, "")
    for name, value, mistake in wrong:
        yield Variant(signature_base(components, {**values, name: value}, parameters).encode(), mistake)
    yield Variant(body, "The body was signed: sign the signature base, which contains its digest.")
    for name, value, mistake in wrong:
        yield from layouts(signature, {**values, name: value}, mistake)
    for one, other in itertools.combinations(wrong, 2):
        if one[0] != other[0]:
            changed = {**values, one[0]: one[1], other[0]: other[1]}
            base = signature_base(components, changed, parameters)
            yield Variant(base.encode(), f"{one[2]} {other[2]}")
    head, _, tail = parameters.partition(")")
    for sequence in itertools.permutations(tail.split(";")[1:]):
        yield Variant(
            signature_base(components, values, f"{head});{';'.join(sequence)}").encode(),
            "The parameters of the signature were signed in another order than they were sent.",
        )
    for order in reordered(values["@query"].removeprefix("?")):
        changed = {**values, "@query": f"?{order.value.decode()}"}
        base = signature_base(components, changed, parameters)
        yield Variant(base.encode(), f"`@query` differs: {order.mistake}")


def layouts(signature: MessageSignature, values: Mapping[str, str], mistake: str) -> Iterator[Variant]:
    """Return the signature base of these values, in other forms."""
    base = signature_base(signature.components, values, signature.parameters)
    lines = base.split("\n")
    *parts, last = lines
    for text, other in (
        (f"{base}\n", "A newline was signed at the end of the signature base: its last line has none."),
        (f"{base}\r\n", "A newline was signed at the end of the signature base: its last line has none."),
        ("\r\n".join(lines), "The lines of the signature base were separated by CR LF: use LF alone."),
        ("\n".join(parts), "The line `@signature-params` is missing from the signature base."),
        ("\n".join([*sorted(parts), last]), "The lines were sorted: they have the order of the components."),
        (base.replace('": ', '":'), "A space is missing after the colons of the lines."),
        ("\n".join(line.replace('"', "", 2) for line in lines), "The names of the components are not in quotes."),
        (
            base.replace('"@signature-params": ', f'"@signature-params": {signature.label}='),
            "The label was signed in the line `@signature-params`: the line begins with the parenthesis.",
        ),
        (
            "\n".join([*parts, last.partition(";")[0]]),
            "The parameters are missing from the line `@signature-params`.",
        ),
        (
            "\n".join([*parts, last.replace(";", "; ")]),
            "The parameters were signed with spaces, and sent without.",
        ),
    ):  # fmt: skip
        yield Variant(text.encode(), " ".join(filter(None, (mistake, other))))


def line_mistakes(values: Mapping[str, str], hosts: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Return wrong values of components: the name, the value and the mistake."""
    method, host, path, query = (values[name] for name in ("@method", "@authority", "@path", "@query"))
    yield "@method", method.lower(), "`@method` was signed in lower case: sign it as it is sent."
    name = re.sub(r":[0-9]+\Z", "", host)
    yield "@authority", name, "`@authority` was signed without the port: sign the host with its port."
    for port in ("443", "80"):
        with_port = f"`@authority` was signed with the port {port}: the default port is left out."
        yield "@authority", f"{name}:{port}", with_port
    for other in dict.fromkeys(hosts):
        yield (
            "@authority",
            other,
            "`@authority` was signed with another host than the request has: sign the host of the URL.",
        )
        yield "@authority", other.upper(), "`@authority` was signed in upper case: sign it in lower case."
    yield "@authority", host.upper(), "`@authority` was signed in upper case: sign it in lower case."
    yield "@authority", "", "`@authority` was signed empty: sign the host of the URL."
    yield "@path", f"{path}/", "`@path` was signed with a slash at its end, and the request has none."
    yield "@path", path.removesuffix("/"), "`@path` was signed without the slash at the end of the path."
    yield "@path", f"{path}{query}", "`@path` was signed with the query: sign the path alone."
    yield "@path", path.removeprefix("/"), "`@path` was signed without its first slash."
    yield (
        "@path",
        unquote_plus(path),
        "`@path` was signed decoded: sign it as it is sent, with its percent escapes.",
    )
    yield (
        "@path",
        lower_escapes(path),
        "`@path` was signed with percent escapes in lower case, and sent in upper case.",
    )
    yield (
        "@path",
        upper_escapes(path),
        "`@path` was signed with percent escapes in upper case, and sent in lower case.",
    )
    if TARGET in values:
        yield from target_mistakes(values[TARGET], hosts)
    bare = query.removeprefix("?")
    if not bare:
        yield "@query", "", "`@query` was signed empty: without a query it is `?` (RFC 9421, section 2.2.7)."
    else:
        yield "@query", bare, "`@query` was signed without its `?`."
        yield "@query", "?", "`@query` was signed as `?`, and the request has a query."
        yield "@query", "", "`@query` was signed empty, and the request has a query."
        for spelt, mistake in respellings(bare):
            yield "@query", f"?{spelt}", f"`@query` differs: {mistake}"
    kind = values.get("content-type")
    if kind is not None:
        bare_kind = kind.partition(";")[0].strip()
        for other in (
            bare_kind,
            f"{bare_kind}; charset=utf-8",
            f"{bare_kind};charset=utf-8",
            f"{bare_kind}; charset=UTF-8",
        ):
            yield (
                "content-type",
                other,
                "`content-type` was signed with another charset than it was sent with.",
            )
        yield "content-type", kind.lower(), "`content-type` was signed in lower case: sign it as it is sent."
    digest = values.get("content-digest")
    if digest is not None:
        inner = digest.partition(":")[2].rstrip(":")
        for other in (inner, f":{inner}:", f"sha-256={inner}"):
            yield (
                "content-digest",
                other,
                "`content-digest` was signed in another form: sign the value of the header.",
            )


def target_mistakes(target: str, hosts: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Return wrong values of `@target-uri`: the name, the value and the mistake."""
    scheme, _, rest = target.partition("://")
    host, slash, path = rest.partition("/")
    other = {"http": "https", "https": "http"}.get(scheme, "https")
    yield (
        TARGET,
        f"{other}://{rest}",
        f"`@target-uri` was signed with {other}, and the service has {scheme}: see LATCHKEY_PUBLIC_ORIGIN.",
    )
    for name in dict.fromkeys(hosts):
        for kind in (scheme, other):
            yield (
                TARGET,
                f"{kind}://{name}{slash}{path}",
                "`@target-uri` was signed with another host than the request has: sign the URL that is called.",
            )
    yield TARGET, target.partition("?")[0], "`@target-uri` was signed without the query."
    yield TARGET, f"{target}?", "`@target-uri` was signed with a `?` and no query."
    yield TARGET, f"/{path}", "`@target-uri` was signed without scheme and host: it is the absolute URL."
    for port in ("443", "80"):
        name = re.sub(r":[0-9]+\Z", "", host)
        with_port = f"`@target-uri` was signed with the port {port}: the default port is left out."
        yield TARGET, f"{scheme}://{name}:{port}{slash}{path}", with_port


def other_hosts(host: str, known: Iterable[str | None]) -> list[str]:
    """Return the hosts that a client may have signed in place of `host`: the known ones, and common ones."""
    name, _, port = host.partition(":")
    guessed = [one for one in known if one]
    guessed += [name.removeprefix("www."), f"www.{name}", *PLACEHOLDERS]
    guessed += [f"{one}:{port}" for one in guessed if port and ":" not in one]
    return [one.lower() for one in guessed if one.lower() != host]
