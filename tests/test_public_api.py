"""The package `latchkey` exports what is public, and nothing else is promised."""

import builtins
import importlib.util
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import sqlalchemy.exc

import latchkey
from latchkey import testing

ROOT = Path(__file__).parent.parent


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("docs_api", ROOT / "docs" / "api.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_there_and_documented() -> None:
    bare = [
        name
        for name in latchkey.__all__
        if name != "__version__"
        and not generator().documentation(type(getattr(latchkey, name)))
        and not getattr(latchkey, name).__doc__
    ]

    assert bare == []


def test_nothing_public_stands_outside_of_the_list() -> None:
    """Submodules are attributes of the package, too: they are the only other names."""
    folders = {"middleware", "migrations", "models", "service", "testing"}
    found = {name for name in vars(latchkey) if not name.startswith("_")} - folders

    assert found == set(latchkey.__all__) - {"__version__"}


def test_the_page_is_what_the_docstrings_say() -> None:
    assert (ROOT / "docs" / "api.md").read_text() == generator().render(), "run `make api`"


def test_every_error_that_the_page_names_can_be_imported() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    named = set(re.findall(r"\b[A-Z]\w*Error\b", page))

    assert {one for one in named if not hasattr(builtins, one) and not hasattr(sqlalchemy.exc, one)} <= set(
        latchkey.__all__ + testing.__all__
    )


def test_the_page_is_markdown() -> None:
    """It contains no markup of docstrings, and no text of other packages."""
    page = (ROOT / "docs" / "api.md").read_text()

    assert re.findall(r"^(?:Args|Raises|Returns):$|::$|^\.\. |:\w+:`", page, re.MULTILINE) == []


def test_the_documents_import_only_what_is_public() -> None:
    """Examples for teams use only the public package; pages for maintainers may use more."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    imports = {
        (page.name, found[0])
        for page in pages
        for found in re.finditer(r"^ *(?:from|import) latchkey[.\w]*.*$", page.read_text(), re.MULTILINE)
        if not re.match(r" *from latchkey import |from latchkey import \(", found[0])
    }

    assert imports == set()


def test_importing_it_does_nothing_else(tmp_path: Path) -> None:
    """No setting is read, no file is created, and no connection is opened."""
    script = "import sys, latchkey; print(latchkey.db.is_open)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"LATCHKEY_NO_SUCH_SETTING": "1"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "False\n"
    assert list(tmp_path.iterdir()) == []


def test_every_module_is_imported_without_a_warning() -> None:
    """On each Python: a deprecation in one version is an error in the next."""
    programs = {"latchkey.__main__", "latchkey.migrations.env"}  # which run when they are imported
    found = pkgutil.walk_packages(latchkey.__path__, "latchkey.")
    modules = [one.name for one in found if one.name not in programs]
    script = f"import importlib\nfor name in {modules}:\n    importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert {"latchkey.service.app", "latchkey.middleware.session", "latchkey.models.user"} <= set(modules)
