"""The command `latchkey gate explain`, which shows the rule that decides about a request."""

import click

from latchkey.service.client import host_header, split_url
from latchkey.service.commands.answers import aligned
from latchkey.service.commands.application import application_settings, for_application
from latchkey.service.commands.rows import opened, work
from latchkey.service.gate.rules import GateRulesError, Rule, Rules, read_rules
from latchkey.service.gate.stored import parsed, read_stored
from latchkey.service.gate.target import Ambiguous, parse_host, segments_of


@click.group()
def gate() -> None:
    """Test the rules of the gate."""


@gate.command()
@click.argument("method", metavar="METHOD")
@click.argument("url")
@click.option(
    "--rules", "file", metavar="FILE", help="Only the rules of this file, in place of those in force."
)
@for_application
def explain(method: str, url: str, file: str | None) -> None:
    """Show the rule that applies to a request, and the scope that it requires.

    The rules in force are those of LATCHKEY_GATE_RULES, and then those that are stored in the database. With `--rules`
    the database is not used. The exit status is 1 if the gate refuses the request with any credential.
    """
    try:
        rules = read_rules(file) if file else work(read_rules_in_force())
        parts = split_url(url)
        host, segments = parse_host(host_header(parts)), segments_of(parts.path or "/")
    except GateRulesError as error:
        raise click.ClickException(f"{error}.") from None
    except Ambiguous as error:
        raise click.ClickException(f"the gate refuses every such request: {error}.") from None
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    rule = rules.find(method.upper(), parts.scheme, host, segments)
    if rule is None:
        raise click.ClickException(f"no rule of {len(rules.all)} permits {method.upper()} {url}.")
    click.echo(aligned([[name, value] for name, value in described(rule).items()]))


async def read_rules_in_force() -> Rules:
    """Return the rules of the settings and the stored ones."""
    settings = application_settings()
    file = read_rules(settings.gate_rules) if settings.gate_rules else Rules()
    async with opened(settings):
        return Rules([*file.all, *parsed((await read_stored()).texts)])


def described(rule: Rule) -> dict[str, str]:
    """Return the requirement of a rule as text."""
    text = rule.text
    needs = f"a key with the scope {text.scope}" if text.scope else "a valid key"
    return {
        "rule": rule.label,
        "hosts": ", ".join(text.hosts) or "any",
        "methods": ", ".join(text.methods) or "any",
        "paths": ", ".join(text.paths),
        "needs": "nothing, the request is public" if text.public else needs,
        "cost": "none" if text.public else str(text.cost),
    }
