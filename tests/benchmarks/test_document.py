"""The page that the runs write, and the raw results that they store."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks import growth, jobs
from benchmarks.document import DOCUMENT, keep, replace_part, write_part

TEXT = "before\n<!-- peers:begin -->\nold\n<!-- peers:end -->\nafter\n"


def test_a_part_is_replaced_and_all_else_stays() -> None:
    once = replace_part(TEXT, "peers", "| new |\n")

    assert once == "before\n<!-- peers:begin -->\n\n| new |\n\n<!-- peers:end -->\nafter\n"
    assert replace_part(once, "peers", "| new |") == once


@pytest.mark.parametrize(
    "text",
    ["", "<!-- peers:begin -->", "<!-- peers:end --><!-- peers:begin -->", TEXT + TEXT],
    ids=["without", "no end", "the wrong way round", "twice"],
)
def test_a_document_without_its_markers_is_left_alone(text: str) -> None:
    with pytest.raises(ValueError, match="peers:begin"):
        replace_part(text, "peers", "new")


def test_writing_a_part_leaves_the_others(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(DOCUMENT.read_text())

    for name in ("peers", "growth", "soak"):
        write_part(name, f"the new {name}", document)

    text = document.read_text()
    assert all(f"the new {name}" in text for name in ("peers", "growth", "soak"))
    assert len(re.findall(r"<!-- \w+:begin -->", text)) == 4


def test_raw_results_get_a_file_of_their_own(tmp_path: Path) -> None:
    file = keep("peers", {"rounds": 5}, tmp_path / "results")

    assert file.name.startswith("peers-")
    assert msgspec.json.decode(file.read_bytes()) == {"rounds": 5}


def test_the_page_has_a_paragraph_for_every_peer() -> None:
    """A figure is useless without a description of the peer."""
    text = DOCUMENT.read_text().lower()

    assert [name for name in jobs.PEERS.values() if name.lower() not in text] == []


@pytest.mark.parametrize("all_jobs", [jobs.JOBS, jobs.OWN, growth.JOBS], ids=["peers", "own", "growth"])
def test_every_contestant_has_a_name_of_its_own_and_one_to_be_compared_with(
    all_jobs: tuple[Any, ...],
) -> None:
    for job in all_jobs:
        names = [one.name for one in job.contestants]

        assert len(set(names)) == len(names)
        assert {one.beside for one in job.contestants} - {None} <= set(names)
