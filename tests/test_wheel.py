"""The wheel in a fresh environment, beside a project whose own folders have the same names as Latchkey's."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

from latchkey.service.authentication.keyring import KeyRing
from tests.mariadb import PrivateMariaDB

ROOT = Path(__file__).parent.parent
FOLDERS = ("latchkey", "middleware", "migrations", "models", "service")
TOOLS = ("pytest", "iniconfig", "packaging", "pluggy", "pygments", "httpx2", "httpcore2", "truststore")
"""What a team's tests need beside Latchkey, in the versions of this environment."""

TEAM = '''
"""A team's application: every import but the first line's is its own."""
import latchkey

from middleware.greeting import GREETING
from models import Order
from service.prices import price


async def read_price() -> Order:
    return Order(greeting=GREETING, price=price())


def create_app():
    return latchkey.create_app(
        routes=[latchkey.route("GET", "/v1/price", read_price, public=True)]
    )
'''

PROJECT = {
    "team.py": TEAM,
    "models.py": "import msgspec\n\n\nclass Order(msgspec.Struct):\n    greeting: str\n    price: int\n",
    "middleware/__init__.py": "",
    "middleware/greeting.py": 'GREETING = "good morning"\n',
    "service/__init__.py": "",
    "service/prices.py": "def price() -> int:\n    return 42\n",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of a clone, including symbolic links."""
    source = tmp_path_factory.mktemp("wheel") / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "pytest_latchkey.py"):
        shutil.copy(ROOT / name, source)
    for folder in FOLDERS:
        shutil.copytree(
            ROOT / folder, source / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    subprocess.run(
        [sys.executable, "-c", "from setuptools import build_meta; build_meta.build_wheel('..')"],
        cwd=source,
        capture_output=True,
        check=True,
    )
    (built,) = source.parent.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment with only the wheel and its locked dependencies."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--require-hashes", "-r", ROOT / "requirements.txt"], check=True)
    subprocess.run([*install, "--no-deps", wheel], check=True)
    return python


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in PROJECT.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture(scope="module")
def orders(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the smaller package of `docs/your-own-package.md`, and install it into a new folder."""
    return install(fresh, "orders", tmp_path_factory.mktemp("orders"))


@pytest.fixture(scope="module")
def newsroom(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the worked package of the page, and install it into a new folder."""
    return install(fresh, "newsroom", tmp_path_factory.mktemp("newsroom"))


@pytest.fixture(scope="module")
def tools(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install what a team's tests need into a new folder."""
    folder = tmp_path_factory.mktemp("tools")
    add(fresh, folder, *(f"{name}=={version(name)}" for name in TOOLS))
    return folder


def install(fresh: Path, name: str, folder: Path) -> Path:
    """Build a package of `examples/`, and return the folder in which it is installed."""
    source = folder / "source"
    shutil.copytree(ROOT / "examples" / name, source, ignore=shutil.ignore_patterns("__pycache__", "build"))
    subprocess.run(
        [sys.executable, "-c", "from setuptools import build_meta; build_meta.build_wheel('..')"],
        cwd=source,
        capture_output=True,
        check=True,
    )
    (built,) = folder.glob("*.whl")
    add(fresh, folder / "installed", built)
    return folder / "installed"


def add(fresh: Path, folder: Path, *packages: str | Path) -> None:
    """Install packages into a folder, without their dependencies."""
    command = [str(fresh), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--target", folder, *packages], check=True)


def environ(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LATCHKEY_", "PYTHON"))}
    return kept | {
        "LATCHKEY_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/team.db",
        "LATCHKEY_KEYRING": KeyRing.generate_text(),
    }


def test_it_brings_one_package_with_every_file_of_it_and_a_plugin(wheel: Path) -> None:
    packed = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    files = {
        f"latchkey/{path.relative_to(ROOT / folder if folder == 'latchkey' else ROOT).as_posix()}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.*")
        if "__pycache__" not in path.parts and path.is_file()
    }

    assert {name.partition("/")[0] for name in packed} == {"latchkey", "pytest_latchkey.py"}
    assert sorted(files - set(packed)) == []


def test_a_project_with_folders_of_the_same_names_runs_beside_it(fresh: Path, project: Path) -> None:
    script = (
        "import latchkey, models, service.prices, middleware.greeting, team\n"
        "import json, pathlib\n"
        "here = pathlib.Path.cwd()\n"
        "assert pathlib.Path(models.__file__).parent == here\n"
        "assert not pathlib.Path(latchkey.__file__).is_relative_to(here)\n"
        "app = team.create_app()\n"
        "print(json.dumps([route.path for route in app.routes if route.path.endswith('price')]))\n"
    )

    done = subprocess.run(
        [fresh, "-c", script], cwd=project, env=environ(project), capture_output=True, text=True, check=False
    )

    assert done.stderr == ""
    assert json.loads(done.stdout) == ["/v1/price"]


def test_the_commands_run_there(fresh: Path, project: Path) -> None:
    command = fresh.with_name("latchkey")

    told = [
        subprocess.run(
            [command, *arguments],
            cwd=project,
            env=environ(project),
            capture_output=True,
            text=True,
            check=False,
        )
        for arguments in (["migrate"], ["users", "list"], ["openapi"])
    ]

    assert [one.returncode for one in told] == [0, 0, 0], [one.stderr for one in told]


def test_types_reach_a_team(fresh: Path, project: Path) -> None:
    """`py.typed` is installed: mypy strict checks a team's call against the wheel's signatures."""
    (project / "typed.py").write_text(
        "from latchkey import User, create_app\n\n"
        "app = create_app(routes=[])\n\n\n"
        "async def email() -> str:\n    return (await User.filter(id=1).one()).email\n\n\n"
        "reveal_type(app)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", fresh, "typed.py"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 'Revealed type is "starlette.applications.Starlette"' in done.stdout
    assert done.returncode == 0, done.stdout


def test_the_worked_package_runs_beside_it(fresh: Path, orders: Path, tmp_path: Path) -> None:
    """With its own program, and with Latchkey's, which finds it by its entry point."""
    kept = environ(tmp_path) | {"PYTHONPATH": str(orders)}

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    migrated = run(fresh, "-m", "orders", "migrate")
    run(fresh, "-m", "orders", "users", "create", "--email", "ann@example.com", "--name", "Ann")
    key = run(
        *(fresh, "-m", "orders", "keys", "create", "--user", "ann@example.com", "--name", "k"),
        *("--mode", "bearer", "--scopes", "orders:read,orders:refund", "--json"),
    )
    imported = run(fresh, "-m", "orders", "import", "ann@example.com", "ink", "pens")
    described = run(fresh.with_name("latchkey"), "openapi")

    assert "from revision none to 0002 of the schema orders." in migrated
    assert '"scopes":["orders:read","orders:refund"]' in key
    assert imported.startswith("2\n")
    assert "/v1/orders/{id}/close" in json.loads(described)["paths"]


@pytest.mark.parametrize("package", ["orders", "newsroom"])
def test_a_package_is_typed(fresh: Path, package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", fresh, "-p", package],
        cwd=ROOT / "examples" / package,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout


def run_tests_of_newsroom(fresh: Path, installed: Sequence[Path], folder: Path, **more: str) -> str:
    """Run the tests of the worked package on what is installed: the folder has the tests and nothing else."""
    shutil.copytree(ROOT / "examples" / "newsroom" / "tests", folder / "tests")
    done = subprocess.run(
        [str(fresh), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", folder / "t", "tests"],
        cwd=folder,
        env=environ(folder) | {"PYTHONPATH": os.pathsep.join(map(str, installed))} | more,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.splitlines()[-1]


def test_newsroom_works_on_sqlite(fresh: Path, newsroom: Path, tools: Path, tmp_path: Path) -> None:
    assert re.match(r"\d+ passed in ", run_tests_of_newsroom(fresh, [newsroom, tools], tmp_path))


@pytest.mark.mariadb
def test_newsroom_works_on_the_server(
    fresh: Path, newsroom: Path, tools: Path, tmp_path: Path, mariadb: PrivateMariaDB
) -> None:
    mariadb.create_database("newsroom_example")
    url = mariadb.url_of("newsroom_example")

    assert re.match(
        r"\d+ passed in ",
        run_tests_of_newsroom(fresh, [newsroom, tools], tmp_path, LATCHKEY_TEST_DATABASE_URL=url),
    )


def test_new_endpoints_pass_all_checks(fresh: Path, tools: Path, tmp_path: Path) -> None:
    """In an empty folder the first one is a package, and the second one is added to it."""

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environ(tmp_path) | {"PYTHONPATH": str(tools), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    new = fresh.with_name("latchkey"), "new", "endpoint"
    app = "--app", "orders.app:create_app"
    run(*new, "orders")
    told = run(*new, "line_items", *app)
    application = tmp_path / "orders" / "app.py"
    for line in ("from orders import line_items", "*line_items.ROUTES"):
        assert line in told
    application.write_text(
        application.read_text()
        .replace("from orders import orders", "from orders import line_items, orders")
        .replace("[*orders.ROUTES]", "[*orders.ROUTES, *line_items.ROUTES]")
    )

    run(sys.executable, "-m", "ruff", "check", "--no-cache", ".")
    run(sys.executable, "-m", "ruff", "format", "--no-cache", "--check", ".")
    run(sys.executable, "-m", "mypy", "--python-executable", fresh)
    run(fresh, "-m", "latchkey.migrations.check", *app)
    assert "14 passed" in run(
        fresh, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", tmp_path / "t"
    )
