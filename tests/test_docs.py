"""The examples in the documentation run, and their assertions hold."""

import ast
import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from latchkey.service.database import SQLAlchemy

ROOT = Path(__file__).parents[1]
DOCUMENTS = ["docs/sessions.md", "docs/queries.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(document: Path) -> list[str]:
    """Return the examples, each after enough empty lines that an error shows the line of the document."""
    text = document.read_text()
    return ["\n" * text.count("\n", 0, found.start(1)) + found[1] for found in BLOCK.finditer(text)]


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_every_example_runs(
    name: str, sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From top to bottom in one namespace, in a folder whose database is migrated and empty."""
    shutil.copy(sqlite_template, tmp_path / "latchkey.db")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "example"}
    db = SQLAlchemy()

    try:
        for block in blocks(ROOT / name):
            code = compile(
                block, ROOT / name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
            )
            outcome = eval(code, namespace)
            if inspect.iscoroutine(outcome):
                await outcome
            assert not db.is_open or db.checked_out() == 0
        assert not db.is_open
    finally:
        await db.close()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_document_has_examples(name: str) -> None:
    assert len(blocks(ROOT / name)) > 1
