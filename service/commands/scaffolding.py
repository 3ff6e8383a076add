"""The command `latchkey new endpoint`: write the first version of a resource, in an application or as a new package."""

import keyword
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from string import Template

import click

from latchkey.models import Base
from latchkey.service.commands.application import application, for_application, read_operations, read_schemas
from latchkey.service.commands.migrating import choose
from latchkey.service.database.drafting import next_revision
from latchkey.service.database.schema import OURS

TEMPLATES = Path(__file__).parent / "templates"
NAME = re.compile(r"[a-z](?:_?[a-z0-9])*")
LONGEST_NAME = 24  # so that the lines of the templates stay within 110 characters
LONGEST_TABLE = 46  # a foreign key is named after it, in at most 64 characters
# A class of this name would hide one that the module imports or declares.
TAKEN = frozenset(
    [
        "Answer",
        "Annotated",
        "Base",
        "BigId",
        "Id",
        "Mapped",
        "Meta",
        "Name",
        "Page",
        "PageQuery",
        "Principal",
        "Request",
        "String",
        "UtcDateTime",
    ]
)
Files = Mapping[Path, str]


@click.group("new")
def scaffolding() -> None:
    """Write the first version of a part of an application."""


@scaffolding.command()
@click.argument("name")
@click.option("--one", help="The name of one of them, if it is not NAME without its s.")
@click.option("--schema", help="The name of the schema, if the application has several.")
@for_application
def endpoint(name: str, one: str | None, schema: str | None) -> None:
    """Write a table, its endpoints, their routes, a migration and tests, to be changed by you.

    NAME is the plural of a noun, such as orders, or line_items.
    In the folder of an application, the files are added to its package. In a folder without one, they are a new package.
    No file is overwritten. The paths of the files are printed.
    """
    require_name(name, "NAME")
    one = one or singular_of(name)
    require_name(one, "--one")
    words = words_of(name, one)
    if words["Class"] in TAKEN:
        raise click.BadParameter(f"the module of {name} needs the name {words['Class']} itself.")
    reference, here = application(), Path.cwd()
    if reference is None:
        files, advice = new_package(here, words), ADVICE_FOR_PACKAGE
    else:
        package, folder = package_of(reference, here)
        files = new_module(here, package, folder, words, schema)
        advice = ADVICE_FOR_MODULE.replace("${package}", package).replace("${app}", reference)
    write(here, files)
    click.echo(Template(advice).substitute(words), err=True)


ADVICE_FOR_PACKAGE = """Next, in an environment with Latchkey:
    pip install -e '.[dev]'
    pytest
    ${plural_} dev"""

ADVICE_FOR_MODULE = """Add these lines where ${app} is defined:
    from ${package} import ${plural_}
and to the routes that it passes to create_app:
    routes=[..., *${plural_}.ROUTES]"""


def require_name(name: str, parameter: str) -> None:
    """Raise an error for a name that cannot name a module, a table and a function."""
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME or keyword.iskeyword(name):
        raise click.BadParameter(
            f"{name!r} must be 1 to {LONGEST_NAME} lower-case letters, digits and single underscores, begin with a "
            "letter, and be no keyword.",
            param_hint=parameter,
        )


def singular_of(plural: str) -> str:
    """Return the singular of a regular plural."""
    if plural.endswith("ies"):
        return f"{plural[:-3]}y"
    if plural.endswith(("sses", "xes", "ches", "shes", "zes")):
        return plural[:-2]
    if plural.endswith("s") and not plural.endswith("ss"):
        return plural[:-1]
    raise click.UsageError(f"{plural} does not end with s: name one of them with --one.")


def words_of(plural: str, one: str) -> dict[str, str]:
    """Return the forms of a name that the templates contain."""
    article = "an" if one[0] in "aeiou" else "a"
    spoken = plural.replace("_", " ")
    return {
        "plural_": plural,
        "plural": spoken,
        "Plural": spoken.capitalize(),
        "one_": one,
        "one": one.replace("_", " "),
        "Class": "".join(part.capitalize() for part in one.split("_")),
        "a": article,
        "A": article.capitalize(),
        "path": f"/v1/{plural.replace('_', '-')}",
    }


def package_of(reference: str, here: Path) -> tuple[str, Path]:
    """Return the package of an application, and its folder, which must be below the current one."""
    module = sys.modules[reference.partition(":")[0]]
    if not module.__package__ or module.__file__ is None:
        raise click.ClickException(f"{reference} is a module without a package: move it into one.")
    folder = Path(module.__file__).resolve().parent
    if here.resolve() not in folder.parents:
        raise click.ClickException(
            f"the package of {reference} is in {folder}: run this command in the folder of its project, or select "
            "another application with --app."
        )
    return module.__package__, folder


def new_module(
    here: Path, package: str, folder: Path, words: Mapping[str, str], schema_name: str | None
) -> Files:
    """Return the files of a resource in the package of an application."""
    schema = choose(read_schemas(), schema_name)
    revision, previous = next_revision(schema)
    own = package.rpartition(".")[2]
    table = words["plural_"] if words["plural_"] == own else f"{own}_{words['plural_']}"
    require_free(table, words["path"])
    values = {
        **words,
        "table": table,
        "revision": revision,
        "previous": "None" if previous is None else f'"{previous}"',
    }
    return {
        folder / f"{words['plural_']}.py": fill("resource.py", values),
        schema.folder / f"{revision}_{words['plural_']}.py": fill("migration.py", values),
        here / "tests" / f"test_{words['plural_']}.py": fill("test.py", values),
    }


def new_package(here: Path, words: Mapping[str, str]) -> Files:
    """Return the files of a new package with one resource."""
    package = words["plural_"]
    if (here / "pyproject.toml").exists():
        raise click.ClickException(
            "this folder has a project, and no application is selected: install the project, or select it with --app."
        )
    if find_spec(package) is not None:
        raise click.ClickException(f"there is a module {package} already: choose another name.")
    require_free(package, words["path"])
    imports = sorted(
        ("from latchkey import Schema\nfrom latchkey import create_app as create_latchkey", f"from {package} import {package}")
    )  # fmt: skip
    values = {
        **words,
        "package": package,
        "distribution": package.replace("_", "-"),
        "imports": "\n".join(imports),
        "table": package,
        "revision": "0001",
        "previous": "None",
    }
    folder = here / package
    return {
        here / "pyproject.toml": fill("pyproject.toml", values),
        folder / "__init__.py": f'"""{words["Plural"]}, on Latchkey."""\n',
        folder / "__main__.py": fill("main.py", values),
        folder / "app.py": fill("app.py", values),
        folder / f"{package}.py": fill("resource.py", values),
        folder / "migrations" / f"0001_{package}.py": fill("migration.py", values),
        here / "tests" / f"test_{package}.py": fill("test.py", values),
    }


def require_free(table: str, path: str) -> None:
    """Raise an error for a table or a path that exists already."""
    if table in OURS or table in Base.metadata.tables or len(table) > LONGEST_TABLE:
        raise click.ClickException(f"the table {table} exists already, or its name is too long.")
    for one in read_operations():
        if f"{one.path}/".startswith(f"{path}/"):
            raise click.ClickException(f"the route {one.method} {one.path} exists already.")


def fill(template: str, values: Mapping[str, str]) -> str:
    """Return the text of a template with the values."""
    return Template((TEMPLATES / f"{template}.tmpl").read_text(encoding="utf-8")).substitute(values)


def write(here: Path, files: Files) -> None:
    """Write new files, or none of them if one exists, and print their paths."""
    if existing := [str(path) for path in files if path.exists()]:
        raise click.ClickException(f"nothing was written: {', '.join(existing)} exists already.")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        click.echo(path.relative_to(here) if here in path.parents else path)
