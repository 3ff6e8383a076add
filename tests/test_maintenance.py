"""The index of decisions, links, continuous integration, hooks, and the wording of docstrings."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from latchkey.service.problems.kinds import KINDS

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
INDEX = (ROOT / "docs" / "decisions" / "README.md").read_text()
ROW = re.compile(r"^\| \[(\d{4})\]\(([\w.-]+)\) \| (.+?) \| (\d{4}-\d\d-\d\d) \| (.+?) \|$", re.MULTILINE)
STATUS = re.compile(r"accepted|superseded by \[\d{4}\]\(\d{4}-[\w-]+\.md\)")
LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)

PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def workflow() -> dict[str, Any]:
    return yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())


class TestDecisions:
    def test_the_index_lists_every_page_by_its_title(self) -> None:
        listed = [(file, title) for _, file, title, _, _ in ROW.findall(INDEX)]
        pages = [
            (page.name, re.sub(r"^# \d+\. ", "", page.read_text().partition("\n")[0])) for page in DECISIONS
        ]

        assert listed == pages

    def test_numbers_are_the_file_names_and_count_up(self) -> None:
        numbers = [number for number, file, *_ in ROW.findall(INDEX) if file.startswith(number)]

        assert numbers == [f"{n:04d}" for n in range(1, len(DECISIONS) + 1)]

    def test_every_status_is_known(self) -> None:
        assert [status for *_, status in ROW.findall(INDEX) if not STATUS.fullmatch(status)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_the_pages_leads_somewhere(page: Path) -> None:
    targets = [link.partition("#")[0] for link in LINK.findall(CODE.sub("", page.read_text()))]
    files = [target for target in targets if target and "://" not in target and not target.startswith("/")]

    assert [target for target in files if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_section_leads_to_a_heading(page: Path) -> None:
    links = [
        link.partition("#") for link in LINK.findall(CODE.sub("", page.read_text())) if "://" not in link
    ]
    sections = [((page.parent / file) if file else page, anchor) for file, _, anchor in links if anchor]

    assert [(str(target), anchor) for target, anchor in sections if anchor not in anchors(target)] == []


class TestLayout:
    """The table of README.md, by which a reader finds the file of a change."""

    TABLE = (ROOT / "README.md").read_text().partition("| what to change |")[2].partition("\n## ")[0]
    NAMED = frozenset(re.findall(r"`((?:latchkey|middleware|migrations|models|service)/[\w./]*)`", TABLE))

    def test_every_path_leads_somewhere(self) -> None:
        assert [path for path in self.NAMED if not (ROOT / path).exists()] == []

    def test_every_helper_of_the_tests_that_contributors_are_told_of_exists(self) -> None:
        named = re.findall(r"`(tests/[\w./]+)`", (ROOT / "CONTRIBUTING.md").read_text())

        assert len(named) > 15
        assert [path for path in named if not (ROOT / path).exists()] == []

    def test_every_module_and_folder_of_the_service_has_a_row(self) -> None:
        modules = {f"service/{path.name}" for path in (ROOT / "service").glob("[a-z]*.py")}
        folders = {f"service/{path.parent.name}/" for path in (ROOT / "service").glob("[a-z]*/__init__.py")}
        rows = {path for path in modules if path in self.NAMED}
        rows |= {folder for folder in folders if any(path.startswith(folder) for path in self.NAMED)}

        assert sorted((modules | folders) - rows) == []


class TestContinuousIntegration:
    def test_it_runs_the_suite_on_every_python_that_is_promised(self) -> None:
        pattern = re.compile(r"Programming Language :: Python :: (3\.\d+)")
        promised = [found[1] for one in PROJECT["classifiers"] if (found := pattern.fullmatch(one))]

        assert workflow()["jobs"]["suite"]["strategy"]["matrix"]["python"] == promised
        assert f">={promised[0]}" == PROJECT["requires-python"]

    def test_it_calls_the_script_that_everybody_calls(self) -> None:
        runs = [step.get("run") for step in workflow()["jobs"]["suite"]["steps"]]

        assert "bash .ci/run" in runs

    def test_the_other_pythons_are_found_or_said_to_be_missing(self, tmp_path: Path) -> None:
        """On the PATH and among pyenv's, each version once; one without venv does not count."""

        def install(path: Path, version: str, status: int = 0) -> Path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f'#!/bin/sh\ncase "$2" in *exit*) exit {status};; *) echo {version};; esac\n')
            path.chmod(0o755)
            return path

        own = install(tmp_path / "bin" / "python3.11", "3.11")
        chosen = install(tmp_path / "bin" / "python3.12", "3.12")
        install(tmp_path / "pyenv" / "versions" / "3.12.9" / "bin" / "python", "3.12")
        install(tmp_path / "bin" / "python3.13", "3.13", status=1)
        newest = install(tmp_path / "pyenv" / "versions" / "3.14.0" / "bin" / "python", "3.14")

        done = subprocess.run(
            [ROOT / ".ci" / "other-pythons", own],
            env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "PYENV_ROOT": str(tmp_path / "pyenv")},
            capture_output=True, text=True, check=True,
        )  # fmt: skip

        assert done.stdout.splitlines() == [str(chosen), str(newest)]
        assert done.stderr == ("NOT RUN: the tests on Python 3.13, because there is none here with venv\n")

    def test_the_hooks_run_what_make_check_runs(self) -> None:
        config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
        hooks = [hook["entry"].removesuffix(" --force-exclude") for hook in config["repos"][0]["hooks"]]
        recipe = (ROOT / "Makefile").read_text().partition("\ncheck:")[2].partition("\n\n")[0]
        commands = [line.strip().removesuffix(" .") for line in recipe.splitlines()[1:]]

        assert hooks == [command.replace("$(VENV)", ".venv") for command in commands]


class TestPromises:
    PAGE = (ROOT / "docs" / "promises.md").read_text()

    def test_every_number_that_is_cited_has_a_paragraph(self) -> None:
        """Every paragraph also names tests that exist and cite it."""
        sections = dict(re.findall(r"^## (R\d+) .+?\n(.*?)(?=^## |\Z)", self.PAGE, re.DOTALL | re.MULTILINE))
        sources = [
            path
            for folder in ("service", "middleware", "models", "tests", "docs")
            for path in (ROOT / folder).rglob("*.*")
            if path.suffix in {".py", ".md"}
        ]
        cited = {
            number for path in sources for number in re.findall(r"\bR(?:1[0-2]|[1-9])\b", path.read_text())
        }

        assert cited == sections.keys()
        for number, section in sections.items():
            files = re.findall(r"`(tests/[\w/]+\.py)`", section)
            assert files, number
            assert [file for file in files if not (ROOT / file).exists()] == []
            assert [
                file
                for file in files
                if re.search(rf"\b{number}\b|_{number.lower()}_", (ROOT / file).read_text())
            ], number


def test_the_repository_cites_no_document_that_it_does_not_hold() -> None:
    """Every `docs/….md` in code, documents and tests exists in a clone."""
    sources = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    sources += [
        path
        for folder in ("service", "middleware", "models", "tests")
        for path in (ROOT / folder).rglob("*.py")
    ]
    cited = {
        (path.name, found)
        for path in sources
        for found in re.findall(r"`(docs/[\w/.-]+\.(?:md|json))`", path.read_text())
    }

    assert {(name, found) for name, found in cited if not (ROOT / found).exists()} == set()


def test_migrations_import_no_models() -> None:
    """A migration keeps its meaning when a model changes."""
    versions = (ROOT / "migrations" / "versions").glob("*.py")

    assert [path.name for path in versions if "latchkey.models" in path.read_text()] == []


BANNED_OPENER = re.compile(r"(?:Tell|Say|Answer)\s")
WHO_WITHOUT_A_NOUN = re.compile(
    r"(?:^|[.:;(]\s+)who\b|\b(?:for|of|to|with|by|from|than|but|whether|that)\s+who\b|\bwhoever\b",
    re.IGNORECASE,
)
PYTHON = [
    path
    for folder in (
        *("service", "middleware", "models", "migrations", "latchkey"),
        *("benchmarks", "examples", "docs", "tests"),
    )
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def docstrings(path: Path) -> list[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, documented))
    return [text for node in nodes if (text := ast.get_docstring(node)) is not None]


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_have_a_subject_and_begin_with_what_the_caller_gets(path: Path) -> None:
    """The first word is `Return` or another imperative of the field, and relative pronouns follow a noun."""
    texts = docstrings(path)

    assert [text for text in texts if BANNED_OPENER.match(text)] == []
    assert [text for text in texts if WHO_WITHOUT_A_NOUN.search(text)] == []


def test_problem_texts_have_a_subject() -> None:
    texts = [text for kind in KINDS.values() for text in (kind.title, kind.explanation)]

    assert [text for text in texts if WHO_WITHOUT_A_NOUN.search(text)] == []


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        pytest.param("Who calls: credentials.", True, id="at the beginning"),
        pytest.param("For who proves nothing two secrets are opened.", True, id="after a preposition"),
        pytest.param("Whoever opened the session commits.", True, id="whoever"),
        pytest.param("A client that fails.", False, id="that"),
        pytest.param(
            "A first user, who holds a key, and the operator, who finds the cause.", False, id="nouns"
        ),
    ],
)
def test_the_rule_finds_who_without_a_noun(text: str, is_found: bool) -> None:
    assert bool(WHO_WITHOUT_A_NOUN.search(text)) is is_found
