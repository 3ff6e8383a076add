"""`latchkey new endpoint` refuses what would not work, and writes nothing then; `tests/test_wheel.py` runs what it writes."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from latchkey.service.commands import latchkey
from latchkey.service.commands.scaffolding import singular_of

TEAM = """
from pathlib import Path
from latchkey import Schema, create_app as create_latchkey

def create_app():
    return create_latchkey(schemas=[Schema("team", migrations=Path(__file__).parent / "migrations")])
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("LATCHKEY_APP", raising=False)
    return tmp_path


def new(*arguments: str) -> Result:
    return CliRunner().invoke(latchkey, ["new", "endpoint", *arguments])


def files(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in {".py", ".toml"}
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Orders",), "lower-case letters"),
        (("o" * 25,), "1 to 24"),
        (("order__lines",), "single underscores"),
        (("class",), "be no keyword"),
        (("sheep",), "--one"),
        (("pages",), "needs the name Page itself"),
        (("users",), "the table users exists"),
        (("webhooks",), "exists already"),
        (("secrets",), "there is a module secrets"),
        (("orders", "--one", "an order"), "--one"),
        (("orders", "--app", "tests.service.testing.application:create_app"), "in the folder of its project"),
    ],
    ids=lambda one: "-".join(one) if isinstance(one, tuple) else "",
)
def test_a_name_that_would_not_work_is_refused(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    refused = new(*arguments)

    assert refused.exit_code in {1, 2}
    assert message in refused.stderr.replace("\n", " ")
    assert files(folder) == []


def test_a_new_package_is_written_once(folder: Path) -> None:
    written = new("invoices")
    again = new("invoices")

    assert written.exit_code == 0
    assert sorted(written.stdout.split()) == files(folder)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "select it with --app" in again.stderr
    lines = (folder / "invoices" / "app.py").read_text().splitlines()
    assert lines.index("from invoices import invoices") < lines.index("from latchkey import Schema")


def test_files_of_an_application_are_not_overwritten(folder: Path) -> None:
    package = folder / "scaffolded"
    (package / "migrations").mkdir(parents=True)
    (package / "__init__.py").write_text(TEAM)
    app = "--app", "scaffolded:create_app"
    (folder / "tests").mkdir()
    (folder / "tests" / "test_boxes.py").write_text("mine")

    refused = new("boxes", *app)
    (folder / "tests" / "test_boxes.py").unlink()
    written = new("boxes", *app)
    path = package / "migrations" / "0001_boxes.py"

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "nothing was written" in refused.stderr
    assert written.stdout.split() == [
        "scaffolded/boxes.py", "scaffolded/migrations/0001_boxes.py", "tests/test_boxes.py"
    ]  # fmt: skip
    assert "from scaffolded import boxes" in written.stderr
    assert '"scaffolded_boxes"' in path.read_text()
    assert "class Box(Base)" in (package / "boxes.py").read_text()


@pytest.mark.parametrize(
    ("plural", "one"),
    [
        ("orders", "order"),
        ("companies", "company"),
        ("addresses", "address"),
        ("boxes", "box"),
        ("houses", "house"),
    ],
)
def test_the_singular_of_a_regular_plural_is_known(plural: str, one: str) -> None:
    assert singular_of(plural) == one
