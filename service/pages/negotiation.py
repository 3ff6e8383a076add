"""The choice between JSON and HTML by the `Accept` header (RFC 9110, section 12.5.1)."""

import re

JSON_TYPES = ("application/json", "application/problem+json")
HTML = "text/html"
MOST_RANGES = 50  # a header with more is not read to its end

_WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


def prefers_html(header: str | None) -> bool:
    """Return whether a client asks for HTML, and rather than for JSON.

    JSON is the answer to a client that accepts both equally, that accepts everything, or that sends no header.
    A browser names `text/html`, and accepts JSON only as `*/*` with a lower weight.
    """
    if not header:
        return False
    weights = read_accept(header)
    html = weight_of(HTML, weights)
    return html > 0 and html > max(weight_of(kind, weights) for kind in JSON_TYPES)


def read_accept(header: str) -> dict[str, float]:
    """Return the weight of each media range; one with a malformed weight is left out."""
    weights: dict[str, float] = {}
    for one in header.lower().split(",", MOST_RANGES)[:MOST_RANGES]:
        kind, *parameters = (part.strip() for part in one.split(";"))
        weight = next((text[2:].strip() for text in parameters if text.startswith("q=")), "1")
        if kind and _WEIGHT.fullmatch(weight):
            weights.setdefault(kind, float(weight))
    return weights


def weight_of(kind: str, weights: dict[str, float]) -> float:
    """Return the weight of a media type: by its name, its group or `*/*`, whichever is the most specific."""
    group = kind.partition("/")[0] + "/*"
    return weights.get(kind, weights.get(group, weights.get("*/*", 0.0)))
