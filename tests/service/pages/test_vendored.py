"""The files of Swagger UI are those of its release, and the wheel takes them along."""

import hashlib
import tomllib
from pathlib import Path

from latchkey.service.pages import files

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "service" / "pages" / "files" / "swagger-ui"
RECORD = tomllib.loads((FOLDER / "VENDORED.toml").read_text())


def test_every_file_has_the_sum_that_is_recorded() -> None:
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in FOLDER.iterdir()
        if path.name != "VENDORED.toml"
    }

    assert found == RECORD["sha256"]


def test_the_record_names_the_release_and_its_license() -> None:
    assert (RECORD["name"], RECORD["version"].partition(".")[0]) == ("swagger-ui-dist", "5")
    assert RECORD["license"] == "Apache-2.0"
    assert "Apache License" in (FOLDER / "LICENSE").read_text()
    assert {"LICENSE", "NOTICE"} <= RECORD["sha256"].keys()


def test_every_file_is_package_data() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["latchkey.service.pages"]
    folder = FOLDER.parents[1]
    packed = {path for pattern in patterns for path in folder.glob(pattern)}

    assert [path for path in FOLDER.parent.rglob("*") if path.is_file() and path not in packed] == []
    assert [name for name, (_, path) in files.REFERENCE.items() if not files.read(path)] == []
