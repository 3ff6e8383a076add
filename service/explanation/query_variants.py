"""The texts that clients sign by mistake in place of a query."""

import itertools
import re
from collections.abc import Iterator
from urllib.parse import quote, unquote_plus

from latchkey.service.explanation.variants import Variant

MOST_PERMUTED = 6  # parameters; all their orders are tried: 720


def query_texts(query: str, *, method: str, path: str, origin: str, body: bytes) -> Iterator[Variant]:
    """Return the texts that clients sign by mistake in place of a query string.

    Args:
        query: as received.
        method: of the request.
        path: of the request, as received.
        origin: scheme and host: `https://api.example.com`.
        body: of the request.
    """
    ends = "A newline was signed at the end of the query: sign without it, as `printf` and not `echo` does."
    for text, mistake in (
        (f"{query}\n", ends),
        (f"{query}\r\n", ends),
        (f"?{query}", "A `?` was signed in front of the query: sign what follows it."),
        (f"&{query}", "An `&` was signed in front of the query: sign the query as it is sent."),
        (f"{query}&", "An `&` was signed at the end of the query: sign the query as it is sent."),
        (f"{path}?{query}", "Path and query were signed: sign the query alone, what follows the `?`."),
        (f"{path}{query}", "Path and query were signed: sign the query alone."),
        (path, "The path was signed: sign the query, what follows the `?`."),
        (f"{origin}{path}?{query}", "The whole URL was signed: sign the query alone, what follows the `?`."),
        (f"{method} {path}?{query}", "Method, path and query were signed: sign the query alone."),
        (f"{method}\n{path}\n{query}", "Method, path and query were signed: sign the query alone."),
        (f"{method}{path}?{query}", "Method, path and query were signed: sign the query alone."),
        ("", "An empty text was signed: sign the query."),
        (f" {query}", "A space was signed in front of the query."),
        (f"{query} ", "A space was signed at the end of the query."),
        (f'"{query}"', "Quotes were signed around the query: sign without them."),
    ):
        yield Variant(text.encode(), mistake)
    yield Variant(body, "The body was signed: sign the query, which contains the digest of the body.")
    yield Variant(query.encode() + body, "Query and body were signed: sign the query alone.")
    yield Variant(
        query.encode("utf-16-le"), "The query was encoded in UTF-16 to sign it: encode it in UTF-8."
    )
    for spelt, mistake in respellings(query):
        yield Variant(spelt.encode(), mistake)
        yield Variant(f"{spelt}\n".encode(), f"{mistake} {ends}")
    yield from reordered(query)
    yield from shortened(query)


def respellings(query: str) -> Iterator[tuple[str, str]]:
    """Return a query with its characters escaped in other ways, each with its mistake."""
    as_sent = "sign exactly what is sent."
    yield (
        query.replace("+", "%20"),
        f"A space was signed as `%20` and sent as `+`, by a library that encodes again: {as_sent}",
    )
    yield query.replace("%20", "+"), f"A space was signed as `+` and sent as `%20`: {as_sent}"
    yield (
        lower_escapes(query),
        f"Percent escapes were signed in lower case (`%2f`) and sent in upper case: {as_sent}",
    )
    yield (
        upper_escapes(query),
        f"Percent escapes were signed in upper case (`%2F`) and sent in lower case: {as_sent}",
    )
    decoded = f"The query was signed decoded, and sent percent-encoded: {as_sent}"
    yield unquote_plus(query, "latin-1"), decoded
    yield unquote_plus(query, "utf-8", "replace"), decoded
    pairs = [one.split("=", 1) for one in query.split("&")]
    for safe, mistake in (
        ("/", f"A `/` was signed as it is, and sent as `%2F`: {as_sent}"),
        ("", f"A `/` or another character was signed percent-encoded, and sent as it is: {as_sent}"),
        ("~", f"A character was signed percent-encoded, and sent as it is: {as_sent}"),
        ("/:@", f"A character was signed as it is, and sent percent-encoded: {as_sent}"),
    ):
        spelt = ("=".join(quote(unquote_plus(part), safe=safe) for part in pair) for pair in pairs)
        yield "&".join(spelt), mistake
    yield (
        quote(query, safe=""),
        f"The whole query was percent-encoded once more before it was signed: {as_sent}",
    )
    yield query.replace("&", "&amp;"), f"Each `&` was signed as `&amp;`: {as_sent}"


def reordered(query: str) -> Iterator[Variant]:
    """Return a query with its parameters in other orders."""
    parts = query.split("&")
    in_order = (
        "The parameters were signed sorted, and sent in another order: send them in the order that is signed."
    )
    for key in (None, lambda one: one.partition("=")[0], str.lower):
        yield Variant("&".join(sorted(parts, key=key)).encode(), in_order)
    if len(parts) <= MOST_PERMUTED:
        for order in itertools.permutations(parts):
            yield Variant(
                "&".join(order).encode(),
                "The parameters were signed in another order than they were sent: send them in the order that is signed.",
            )
    yield Variant(
        "&".join(sorted(upper_escapes(query.replace("+", "%20")).split("&"))).encode(),
        f"{in_order} Besides, a space was signed as `%20` and sent as `+`.",
    )
    yield Variant(
        "\n".join(parts).encode(),
        "The parameters were signed on lines of their own: sign the query as it is sent.",
    )
    yield Variant(
        "".join(parts).encode(), "The parameters were signed without `&`: sign the query as it is sent."
    )


def shortened(query: str) -> Iterator[Variant]:
    """Return a query without some of its parameters, which were added after signing."""
    parts = query.split("&")
    for n, part in enumerate(parts):
        name = part.partition("=")[0]
        yield Variant(
            "&".join(parts[:n] + parts[n + 1 :]).encode(),
            f"The parameter `{name}` was added after signing: sign the whole query."
            if re.fullmatch(r"[a-z0-9_]{1,32}", name)
            else "A parameter was added after signing: sign the whole query.",
        )
    for n in range(1, len(parts) - 1):
        for rest in (parts[:n], parts[n:]):
            yield Variant(
                "&".join(rest).encode(), "Only some of the parameters were signed: sign the whole query."
            )


def lower_escapes(text: str) -> str:
    """Return a text with its percent escapes in lower case."""
    return re.sub(r"%[0-9A-Fa-f]{2}", lambda one: one[0].lower(), text)


def upper_escapes(text: str) -> str:
    """Return a text with its percent escapes in upper case."""
    return re.sub(r"%[0-9A-Fa-f]{2}", lambda one: one[0].upper(), text)
