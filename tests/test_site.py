"""The documentation as a site: its pages, its links and what it may load. `make docs` builds it, and fails for a broken link."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
CONFIG = (ROOT / "mkdocs.yml").read_text()


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """Return `docs/build.py`, as MkDocs loads it."""
    spec = importlib.util.spec_from_file_location("build", ROOT / "docs" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_navigation_has_every_page_once(build: ModuleType) -> None:
    listed = re.findall(r"^ +- [^:\n]+: (\S+\.md)$", CONFIG, re.MULTILINE)
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}

    assert len(listed) == len(set(listed))
    assert set(listed) == pages | set(build.FROM_ROOT.values()) | {"problems.md", "decisions/README.md"}


def test_a_broken_link_fails_the_build() -> None:
    (recipe,) = re.findall(r"^docs: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert "mkdocs build --strict" in recipe
    assert "docs/build.py var/site" in recipe
    assert not re.search(r"--quiet(?! it)", recipe)
    for rule in ("omitted_files", "not_found", "anchors", "absolute_links", "unrecognized_links"):
        assert f"{rule}: warn" in CONFIG


@pytest.mark.parametrize(
    "folder, link, expected",
    [
        ("docs", "(settings.md#latchkey_docs)", "(settings.md#latchkey_docs)"),
        ("docs", "(../CHANGELOG.md)", "(changelog.md)"),
        ("docs", "(../README.md#start)", "(start.md#start)"),
        ("docs", "(../examples/gate)", "(https://latchkey.example/source/blob/main/examples/gate)"),
        ("docs", "(decisions/README.md)", "(decisions/README.md)"),
        ("docs/decisions", "(../sessions.md#x)", "(../sessions.md#x)"),
        ("docs/decisions", "(../../README.md)", "(../start.md)"),
        ("", "(docs/sessions.md)", "(sessions.md)"),
        ("", "(LICENSE)", "(https://latchkey.example/source/blob/main/LICENSE)"),
        ("docs", "(#here)", "(#here)"),
        ("docs", "(https://example.com/x.md)", "(https://example.com/x.md)"),
    ],
)
def test_a_link_leads_to_the_page_or_to_the_source(
    build: ModuleType, folder: str, link: str, expected: str
) -> None:
    assert build.relinked(f"[text]{link}", folder=folder) == f"[text]{expected}"


def test_every_problem_is_on_its_page(build: ModuleType) -> None:
    from latchkey.service.problems.kinds import KINDS  # noqa: PLC0415 - beside its use

    page = build.problems_page()

    assert re.findall(r"^## `(\w+)`$", page, re.MULTILINE) == list(KINDS)


@pytest.mark.parametrize(
    "name, text, is_found",
    [
        ("a.html", '<script src="https://cdn.example/x.js"></script>', True),
        ("a.html", '<link rel="stylesheet" href="//fonts.example/x.css">', True),
        ("a.html", '<link rel="preconnect" href="https://fonts.example">', True),
        ("a.html", '<img src="https://example.com/x.png">', True),
        ("a.html", "<p style=\"background:url('https://example.com/x.png')\">", True),
        ("a.css", "@font-face{src:url(https://fonts.example/x.woff2)}", True),
        ("a.css", '@import "https://fonts.example/x.css";', True),
        ("a.html", '<a href="https://example.com">x</a><script src="x.js"></script>', False),
        ("a.html", '<link rel="canonical" href="https://example.com/">', False),
        ("a.css", "a{background:url(x.png)}", False),
    ],
)
def test_what_is_loaded_from_elsewhere_is_found(
    build: ModuleType, tmp_path: Path, name: str, text: str, is_found: bool
) -> None:
    (tmp_path / name).write_text(text)

    assert bool(build.loads_from_elsewhere(tmp_path)) is is_found
