"""The code blocks of the documentation that no other test runs: they are parsed, decoded or executed, by their language."""

import configparser
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import yaml

import latchkey
from latchkey.service import shapes
from latchkey.service.commands import command_line
from latchkey.service.gate.rules import parse_rules
from latchkey.service.webhooks.shapes import NewWebhook

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
RUN_ELSEWHERE = {
    "README.md": {"bash", "python"},  # tests/server/test_readme.py
    "api.md": {"python"},  # generated from docstrings, and compared with them
    "credentials.md": {"sh", "text", "python", "javascript"},  # test_documented_example.py, tests/npm
    "partner-guide.md": {"bash", "text"},  # tests/server/test_partner_guide.py
    "queries.md": {"python"},  # tests/test_docs.py
    "sessions.md": {"python"},
    "your-own-package.md": {"python", "toml", "console"},  # tests/test_your_own_package.py
    "webhooks.md": {"python"},  # the library and its call are those of tests/service/webhooks
}


def blocks() -> Iterator[tuple[str, str, str]]:
    """Yield the page, the language and the text of each block that is tested here."""
    for page in PAGES:
        for language, text in BLOCK.findall(page.read_text()):
            if language not in RUN_ELSEWHERE.get(page.name, ()):
                yield page.name, language, text


def named(text: str) -> list[str]:
    """Return the commands of `latchkey` in a block, with lines joined, without comments and what they print."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [re.search(r"(?:^|[$|(] ?)(latchkey .*)", line) for line in lines if not line.startswith("#")]
    return [one[1] for one in found if one]


COMMANDS = sorted(
    {
        (page, command)
        for page, language, text in blocks()
        if language in {"sh", "console", "bash"}
        for command in named(text)
    }
)


@pytest.mark.parametrize("page, command", COMMANDS)
def test_every_command_has_these_options(page: str, command: str) -> None:
    """The command line accepts its arguments; what it does is tested with the commands."""
    text = re.split(r"\)\"? *#|\)\"$|\) *$| #| \|", command)[0].rstrip(')"')
    arguments = shlex.split(text.replace("lka_…", "lka_0000000000000000000000"))[1:]
    group: click.Command = command_line(None)
    context = click.Context(group)
    while isinstance(group, click.Group):
        if group.invoke_without_command and (not arguments or arguments[0].startswith("-")):
            break
        name, found, arguments = group.resolve_command(context, arguments)
        assert found is not None, name
        group, context = found, click.Context(found, context, info_name=name)

    group.make_context(group.name, arguments, parent=context.parent)


def decode_key(content: dict[str, Any]) -> None:
    key = {"user_id": 1, "name": "n", "mode": "bearer", "scopes": [], **content}
    msgspec.convert(key, shapes.NewKey)


JSON: dict[tuple[str, str], Callable[[Any], None]] = {
    ("limits.md", '"limits"'): decode_key,
    ("limits.md", '"credits"'): decode_key,
}


@pytest.mark.parametrize(
    "page, text", [(page, text) for page, language, text in blocks() if language == "json"]
)
def test_json_is_json_and_a_body_is_accepted(page: str, text: str) -> None:
    content = json.loads(text)

    for (of, mark), decode in JSON.items():
        if page == of and mark in text:
            decode(content)


def test_the_body_of_a_webhook_is_accepted() -> None:
    (text,) = [text for page, language, text in blocks() if (page, language) == ("webhooks.md", "http")]
    line, body = text.split("\n", 1)

    assert line == "POST /v1/webhooks"
    msgspec.json.decode(body, type=NewWebhook)


def test_the_rules_of_the_gate_are_rules() -> None:
    (text,) = [text for page, language, text in blocks() if (page, language) == ("gate.md", "toml")]

    assert parse_rules(text.encode())


PARSERS: dict[str, Callable[[str], Any]] = {
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
    "ini": configparser.ConfigParser().read_string,
}


@pytest.mark.parametrize(
    "page, language, text",
    [(page, language, text) for page, language, text in blocks() if language in PARSERS],
)
def test_a_configuration_can_be_parsed(page: str, language: str, text: str) -> None:
    PARSERS[language](text)


class Order(msgspec.Struct):
    id: int


async def create_order() -> Order:
    return Order(1)


@pytest.mark.parametrize(
    "page, text", [(page, text) for page, language, text in blocks() if language == "python"]
)
def test_python_runs(page: str, text: str) -> None:
    """With the names that the text around it explains."""
    names: dict[str, Any] = {
        "route": latchkey.route,
        "create_order": create_order,
        "make_report": create_order,
        "Order": Order,
        "article": Order(1),
    }
    exec("import logging\n" + text, names)


def test_no_block_is_left_out() -> None:
    known = {"json", "http", "python", "sh", "console", "bash", *PARSERS}

    assert [(page, language) for page, language, _ in blocks() if language not in known] == []
    assert len(COMMANDS) > 10
