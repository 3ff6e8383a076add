"""The generated parts of `docs/performance.md`, each between two markers."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"
FULL_ROUNDS = 5
"""A run with fewer rounds writes nothing, unless requested."""


def replace_part(text: str, name: str, content: str) -> str:
    """Return the text with `content` between the markers of a part.

    Raises:
        ValueError: the text does not have both markers, once each and in this order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end or begin in rest or end in before or end in after:
        raise ValueError(f"the document needs one {begin} and one {end} after it")
    return f"{before}{begin}\n\n{content.strip()}\n\n{end}{after}"


def write_part(name: str, content: str, document: Path = DOCUMENT) -> None:
    """Write a part of the document."""
    document.write_text(replace_part(document.read_text(), name, content))


def keep(kind: str, result: Any, results: Path = RESULTS) -> Path:
    """Write raw results as JSON; return the path of the file."""
    results.mkdir(parents=True, exist_ok=True)
    file = results / f"{kind}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    file.write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    return file
