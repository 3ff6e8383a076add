"""`docs/your-own-package.md`: its examples are parts of the packages in `examples/`, which use only what is public."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "your-own-package.md"
NEWSROOM = ROOT / "examples" / "newsroom"
PACKAGES = [NEWSROOM, ROOT / "examples" / "orders"]
BLOCK = re.compile(r"^```(?:python|toml)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PUBLIC = ("from latchkey import ", "from latchkey.testing import ")
LINES = 430
"""The most that the worked package may have, empty ones, its tests and its migrations not counted."""


def sources(package: Path) -> list[Path]:
    """Return the files of a package, without what a build leaves."""
    return sorted(
        path
        for path in package.rglob("*")
        if path.suffix in {".py", ".toml"} and not {"build", "__pycache__"} & set(path.parts)
    )


def test_every_example_of_the_page_is_a_part_of_a_package() -> None:
    texts = [path.read_text() for package in PACKAGES for path in sources(package)]
    blocks = BLOCK.findall(PAGE.read_text())

    assert len(blocks) > 15
    assert [block for block in blocks if not any(block in text for text in texts)] == []


def test_the_page_names_every_file_of_the_worked_package() -> None:
    text = PAGE.read_text()
    names = [path.relative_to(NEWSROOM) for path in sources(NEWSROOM)]
    needed = [
        one.as_posix()
        for one in names
        if one.name != "__init__.py" and not {"tests", "migrations"} & set(one.parts)
    ]

    assert [name for name in needed if name not in text] == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_package_imports_only_what_is_public(package: Path) -> None:
    lines = [
        line
        for path in sources(package)
        for line in path.read_text().splitlines()
        if re.match(r"\s*(from|import) +latchkey\b", line) and not line.startswith(PUBLIC)
    ]

    assert lines == []


def test_the_worked_package_is_small() -> None:
    counted = [path for path in sources(NEWSROOM / "newsroom") if "migrations" not in path.parts]

    assert sum(bool(line.strip()) for path in counted for line in path.read_text().splitlines()) <= LINES
