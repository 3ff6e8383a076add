"""The commands use a team's application: `--app`, `LATCHKEY_APP`, an entry point, or the team's own command line."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from benchmarks.ports import free_port
from latchkey import NotMigratedError, SettingsError, command_line
from latchkey.models import ApiKey
from latchkey.service import application
from latchkey.service.commands import latchkey
from latchkey.service.database import SQLAlchemy
from latchkey.service.settings import Settings
from tests.processes import Served
from tests.service.commands.running import Run, answered, good

SHOP = """
from pathlib import Path

import msgspec
from sqlalchemy import Column, Integer, MetaData, Table

from latchkey import Schema, create_app as create_latchkey, route

METADATA = MetaData()
Table("shop_items", METADATA, Column("id", Integer, primary_key=True))


class Count(msgspec.Struct):
    count: int


async def count_items() -> Count:
    return Count(count=0)


def create_app(settings=None):
    return create_latchkey(
        settings,
        routes=[route("GET", "/v1/items", count_items, scope="items:read"),
                route("GET", "/items", count_items, public=True)],
        scopes=["items:refund"],
        schemas=[Schema("shop", migrations=Path(__file__).parent / "shop_migrations", metadata=METADATA)],
    )


def create_elsewhere():
    from latchkey import Settings

    return create_app(Settings(database_url="sqlite+aiosqlite:///elsewhere.db"))


async def create_slowly():
    return create_app()


def create_for(customer):
    return create_app()


def create_nothing():
    return object()


def create_wrapped():
    app = create_app()

    async def wrapped(scope, receive, send):
        await app(scope, receive, send)

    return wrapped
"""
REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0001", None, None, None


def upgrade():
    op.create_table("shop_items", sa.Column("id", sa.Integer, primary_key=True))
"""
MAIN = """
import click

from latchkey import command_line


@click.command()
def stock():
    \"\"\"Count what is there.\"\"\"
    click.echo("nothing")


main = command_line("shop:create_app", name="shop", commands=[stock])

if __name__ == "__main__":
    main()
"""
APP = ("--app", "shop:create_app")


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, environ: pytest.MonkeyPatch) -> Iterator[Path]:
    """Create a module in the working directory, with its migrations."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "shop_command.py").write_text(MAIN)
    (tmp_path / "broken_shop.py").write_text("import no_such_module\n")
    (tmp_path / "shop_migrations").mkdir()
    (tmp_path / "shop_migrations" / "0001_items.py").write_text(REVISION)
    environ.setattr(sys, "path", [*sys.path])
    environ.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in ("shop", "shop_command", "broken_shop"):
        sys.modules.pop(name, None)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Set the applications that installed packages name."""
    named: list[str] = []

    def entry_points(*, group: str) -> list[EntryPoint]:
        return [EntryPoint("any", one, group) for one in named if group == "latchkey.app"]

    monkeypatch.setattr(application, "entry_points", entry_points)
    return named


@pytest.fixture
def ready(migrated_sqlite: Settings, run: Run) -> Settings:
    """Return a database that is migrated for the shop, with a user."""
    assert run("migrate", *APP).exit_code == 0
    good(run("users", "create", "--email", "ann@example.com", "--name", "Ann"))
    return migrated_sqlite


def create_key(run: Run, *options: str) -> Result:
    return run(
        *(
            "keys",
            "create",
            "--user",
            "1",
            "--name",
            "k",
            "--mode",
            "bearer",
            "--scopes",
            "items:read",
            "--json",
        ),
        *options,
    )


def test_migrate_runs_both_histories_and_compares_them(run: Run) -> None:
    first, second, compared = run("migrate", *APP), run("migrate", *APP), run("migrate", "--check", *APP)

    assert "from revision none to 0001 of the schema shop.\n" in first.stderr
    assert " is at revision 0001 of the schema shop already.\n" in second.stderr
    assert [one.exit_code for one in (first, second, compared)] == [0, 0, 0]
    assert (compared.stdout, compared.stderr) == ("", "")


def test_a_comparison_that_finds_something_changes_nothing_and_fails(run: Run, shop: Path) -> None:
    run("migrate")
    before = (shop / "latchkey.db").read_bytes()

    behind = run("migrate", "--check", *APP)
    with_app = (shop / "latchkey.db").read_bytes()
    run("migrate", *APP)
    (shop / "shop.py").write_text(
        SHOP.replace("METADATA, Column(", "METADATA, Column('n', Integer), Column(")
    )
    del sys.modules["shop"]
    differing = run("migrate", "--check", *APP)
    alone = run("migrate", "--check")

    assert (behind.exit_code, differing.exit_code, alone.exit_code) == (1, 1, 0)
    assert "lacks revision 0001 of the schema shop" in behind.stderr
    assert "add_column" in differing.stderr
    assert with_app == before


def test_the_comparison_on_an_empty_file_knows_the_application(shop: Path) -> None:
    compare = [sys.executable, "-m", "latchkey.migrations.check", *APP]
    same = subprocess.run(compare, capture_output=True, text=True, check=False)
    (shop / "shop_migrations" / "0001_items.py").write_text(REVISION.replace("shop_items", "shop_other"))
    other = subprocess.run(compare, capture_output=True, text=True, check=False)

    assert (same.returncode, same.stderr) == (0, "")
    assert other.returncode == 1
    assert "add_table" in other.stderr
    assert "a migration creates the table shop_other" in other.stderr


def test_the_comparison_on_an_empty_file_knows_an_installed_application(shop: Path) -> None:
    """Otherwise it checks Latchkey alone, and a pipeline is green for an application that differs."""
    package = shop / "shop-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1\n")
    (package / "entry_points.txt").write_text(f"[latchkey.app]\nshop = {APP[1]}\n")
    (shop / "shop_migrations" / "0001_items.py").write_text(REVISION.replace("shop_items", "shop_other"))

    compare = [sys.executable, "-m", "latchkey.migrations.check"]
    environment = {**os.environ, "PYTHONPATH": str(shop)}
    environment.pop("LATCHKEY_APP", None)
    done = subprocess.run(compare, capture_output=True, text=True, check=False, env=environment)

    assert done.returncode == 1, done.stderr
    assert "a migration creates the table shop_other" in done.stderr


def test_the_description_has_the_routes_of_the_team(run: Run) -> None:
    assert "/v1/items" in json.loads(good(run("openapi", *APP)).stdout)["paths"]
    assert "/v1/items" not in json.loads(good(run("openapi")).stdout)["paths"]


def test_a_key_gets_a_scope_of_the_team(ready: Settings, run: Run) -> None:
    refused = create_key(run)
    given = answered(create_key(run, *APP))

    assert refused.exit_code == 2
    assert "'items:read': there is no such scope" in refused.stderr
    assert given["scopes"] == ["items:read"]
    widened = run("keys", "grant", given["access_key"], "--scopes", "items:refund", "--json", *APP)
    assert answered(widened)["scopes"] == ["items:read", "items:refund"]


def test_the_key_of_a_developer_has_every_scope(run: Run) -> None:
    assert run("dev", "--prepare-only", *APP).exit_code == 0

    async def scopes() -> set[str]:
        db = SQLAlchemy()
        db.init_app(None, Settings(database_url="sqlite+aiosqlite:///var/latchkey.db"))
        try:
            (key,) = await ApiKey.filter(mode="bearer").all()
            return set(key.scopes)
        finally:
            await db.close()

    assert {"items:read", "items:refund", "keys:write"} <= asyncio.run(scopes())
    assert "LATCHKEY_DATABASE_URL" not in os.environ


def test_the_settings_are_those_of_the_application(run: Run, shop: Path) -> None:
    assert run("migrate", "--app", "shop:create_elsewhere").exit_code == 0

    assert (shop / "elsewhere.db").exists()
    assert not (shop / "latchkey.db").exists()


def test_reading_an_application_opens_nothing_and_writes_no_line(
    run: Run, ready: Settings, environ: pytest.MonkeyPatch
) -> None:
    environ.delenv("LATCHKEY_KEYRING")
    before = logging.getLogger("latchkey").handlers

    listed = good(run("users", "list", "--json", *APP))

    assert len(json.loads(listed.stdout)["data"]) == 1
    assert logging.getLogger("latchkey").handlers == before
    with pytest.raises(RuntimeError, match="not open"):
        _ = SQLAlchemy().engine


def test_a_key_is_not_made_with_the_key_ring_of_a_reading(
    run: Run, ready: Settings, environ: pytest.MonkeyPatch
) -> None:
    environ.delenv("LATCHKEY_KEYRING")

    refused = create_key(run, *APP)

    assert refused.exit_code == 1
    assert "LATCHKEY_KEYRING is not set" in refused.stderr


class TestWhichApplication:
    def has_items(self, result: Any) -> bool:
        return "/v1/items" in json.loads(good(result).stdout)["paths"]

    def test_the_variable_names_it_and_the_option_goes_before(
        self, run: Run, environ: pytest.MonkeyPatch
    ) -> None:
        environ.setenv("LATCHKEY_APP", "shop:create_app")

        assert self.has_items(run("openapi"))
        assert not self.has_items(run("openapi", "--app", "latchkey:create_app"))
        assert not self.has_items(run("--app", "latchkey:create_app", "openapi"))

    def test_an_installed_package_names_it(
        self, run: Run, environ: pytest.MonkeyPatch, installed: list[str]
    ) -> None:
        installed.append("shop:create_app")

        assert self.has_items(run("openapi"))
        environ.setenv("LATCHKEY_APP", "latchkey:create_app")
        assert not self.has_items(run("openapi"))

    def test_two_installed_packages_are_refused_by_name(self, run: Run, installed: list[str]) -> None:
        installed.extend(["shop:create_app", "other:create_app"])

        refused = run("openapi")

        assert refused.exit_code == 1
        assert "several applications are installed, other:create_app, shop:create_app" in refused.stderr
        assert self.has_items(run("openapi", *APP))

    def test_a_command_line_of_a_team_is_about_its_own(self, environ: pytest.MonkeyPatch) -> None:
        environ.setenv("LATCHKEY_APP", "latchkey:create_app")
        shop = command_line("shop:create_app", name="shop")

        assert self.has_items(CliRunner().invoke(shop, ["openapi"]))
        assert not self.has_items(CliRunner().invoke(shop, ["openapi", "--app", "latchkey:create_app"]))


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ("shop", "name a module and a function, as in orders:create_app"),
        (":create_app", "name a module and a function"),
        ("shop:", "name a module and a function"),
        ("no_shop:create_app", "there is no module no_shop"),
        ("shop.deep:create_app", "there is no module shop.deep"),
        ("shop:create", "the module shop has no create"),
        ("shop:METADATA", "it must be a function that takes no argument"),
        ("shop:create_slowly", "it must be a function that takes no argument"),
        ("shop:create_for", "missing a required argument: 'customer'"),
        ("shop:create_nothing", "it does not call latchkey.create_app"),
    ],
)
def test_names_of_no_application_are_refused_with_one_sentence(run: Run, named: str, sentence: str) -> None:
    refused = run("openapi", "--app", named)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert sentence in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_module_that_fails_to_import_another_shows_where(run: Run) -> None:
    failed = run("openapi", "--app", "broken_shop:create_app")

    assert isinstance(failed.exception, ModuleNotFoundError)
    assert "no_such_module" in str(failed.exception)


def test_two_commands_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="the command keys exists already"):
        command_line("shop:create_app", commands=[click.Command("keys")])
    assert "stock" not in latchkey.commands


def test_an_error_of_a_teams_command_is_one_sentence() -> None:
    @click.command()
    def fail() -> None:
        raise SettingsError("ORDERS_URL is not set.")

    failed = CliRunner().invoke(command_line("shop:create_app", commands=[fail]), ["fail"])

    assert (failed.exit_code, failed.stderr) == (1, "Error: ORDERS_URL is not set.\n")


ADVICE = [
    (NotMigratedError("x.db", "1", "2"), "this release needs 2: run `shop migrate`."),
    (NotMigratedError("x.db", "1", "2", SimpleNamespace(name="shop")), "this application needs 2: run `shop migrate`."),  # type: ignore[arg-type]
    (SettingsError("LATCHKEY_KEYRING is not set: `latchkey keyring` prints a new one."), "not set: `shop keyring` prints"),
    (click.ClickException('draft it with `latchkey migrations new "a"`.'), 'draft it with `shop migrations new "a"`.'),
]  # fmt: skip


@pytest.mark.parametrize(("error", "advice"), ADVICE)
def test_advice_names_the_program_of_the_team(error: Exception, advice: str) -> None:
    @click.command()
    def fail() -> None:
        raise error

    ours = CliRunner().invoke(command_line(None, commands=[fail]), ["fail"])
    failed = CliRunner().invoke(command_line("shop:create_app", name="shop", commands=[fail]), ["fail"])

    assert advice in failed.stderr
    assert "`latchkey " in ours.stderr


def get(url: str) -> int:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.status


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(APP, id="single worker"),
        pytest.param((*APP, "--workers", "2"), id="two workers"),
        pytest.param((*APP, "--reload"), id="reload"),
        pytest.param(("--app", "shop:create_wrapped"), id="wrapped"),
    ],
)
def test_the_application_is_served(ready: Settings, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with Served(tmp_path, "serve", *arguments) as served:
        status = get(served.url + "/items")

    assert status == 200
    assert f"Serving {arguments[1]}." in served.err.read_text()


def test_a_database_without_the_migrations_of_the_team_is_refused(
    migrated_sqlite: Settings, run: Run
) -> None:
    refused = run("serve", "--port", str(free_port()), *APP)

    assert refused.exit_code == 1
    assert "revision none of the schema shop" in refused.stderr


def test_latchkey_alone_is_never_served_in_silence(migrated_sqlite: Settings, tmp_path: Path) -> None:
    with Served(tmp_path, "serve") as served:
        pass

    assert "Serving Latchkey alone: neither --app, LATCHKEY_APP nor" in served.err.read_text()


def test_the_program_of_a_team_serves_the_team_and_has_its_commands(ready: Settings, tmp_path: Path) -> None:
    own = subprocess.run(
        [sys.executable, "-m", "shop_command", "stock"], capture_output=True, text=True, check=False
    )
    served = Served(tmp_path, "serve")
    served.arguments[2] = "shop_command"
    with served:
        status = get(served.url + "/items")

    assert (own.returncode, own.stdout, own.stderr) == (0, "nothing\n", "")
    assert status == 200
