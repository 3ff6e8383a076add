"""The stored rules of the gate: `/v1/gate/rules`."""

from collections.abc import Mapping
from typing import TypeVar

from msgspec import UNSET, UnsetType
from starlette.requests import Request

from latchkey.service.endpoints.caller import hold_caller
from latchkey.service.gate import shapes, stored
from latchkey.service.gate.rules import NamedRule
from latchkey.service.gate.stored import place_of, read_stored
from latchkey.service.keys.scopes import require_known
from latchkey.service.operation import Answer
from latchkey.service.parts import parts_of
from latchkey.service.problems import Problem, field_problem
from latchkey.service.rule_error import RuleError

PATH = "/v1/gate/rules"

T = TypeVar("T")


async def read_gate_rules(request: Request) -> shapes.GateRules:
    """Read the rules of the gate in the order in which they are tried.

    Those of the file come first; calls cannot change them. `data` are the stored ones.
    """
    found = await read_stored()
    return shapes.GateRules(
        version=found.version,
        updated_at=found.updated_at,
        file=[shapes.shown(rule.text) for rule in parts_of(request.app).gate.rules.file.all],
        data=[shapes.shown(text) for text in found.texts],
    )


async def replace_gate_rules(request: Request, body: shapes.NewGateRules) -> shapes.GateRulesVersion:
    """Replace all stored rules of the gate.

    All workers use them after at most a second. Pass `version` to replace only the rules that were read.
    """
    await hold_caller(request)
    await require_scopes(request, {f"/data/{place}": rule for place, rule in enumerate(body.data)})
    return shapes.GateRulesVersion(version=await stored.replace_all(body.data, given(body.version)))


async def create_gate_rule(request: Request, body: shapes.PlacedGateRule) -> Answer:
    """Add a stored rule to the gate, before another stored rule or at the end.

    All workers use it after at most a second. A rule of the file, or an earlier stored one, may fit the same requests, and
    then decides.
    """
    await hold_caller(request)
    await require_scopes(request, {"/rule": body.rule})
    version = await stored.add_rule(body.rule, given(body.before), given(body.version))
    return Answer(
        content=shapes.GateRulesVersion(version=version), headers={"location": f"{PATH}/{body.rule.name}"}
    )


async def read_gate_rule(name: str) -> shapes.GateRule:
    """Read a stored rule of the gate."""
    found = await read_stored()
    place = place_of(name, found.texts)
    if place is None:
        raise Problem("not_found")
    return shapes.shown(found.texts[place])


async def replace_gate_rule(
    request: Request, name: str, body: shapes.PlacedGateRule
) -> shapes.GateRulesVersion:
    """Replace a stored rule of the gate, which keeps its place unless `before` names another one.

    All workers use it after at most a second. Pass `version` to replace only the rule that was read.
    """
    await hold_caller(request)
    await require_scopes(request, {"/rule": body.rule})
    return shapes.GateRulesVersion(
        version=await stored.replace_rule(name, body.rule, given(body.before), given(body.version))
    )


async def delete_gate_rule(
    request: Request, name: str, query: shapes.GateRuleQuery
) -> shapes.GateRulesVersion:
    """Remove a stored rule of the gate.

    A request that it permitted is refused after at most a second, unless another rule fits it.
    """
    await hold_caller(request)
    return shapes.GateRulesVersion(version=await stored.remove_rule(name, query.version))


def given(value: T | UnsetType) -> T | None:
    """Return a value that the client sent, or None."""
    return None if value is UNSET else value


async def require_scopes(request: Request, rules: Mapping[str, NamedRule]) -> None:
    """Raise a problem for a rule that needs a scope which no key can have; the others cannot be removed meanwhile."""
    places: dict[str, str] = {}
    for pointer, rule in rules.items():
        if rule.scope is not None:
            places.setdefault(rule.scope, f"{pointer}/scope")
    try:
        await require_known(list(places), parts_of(request.app).key_rules.scopes)
    except RuleError as error:
        raise field_problem(list(places.values())[int(error.path[0])], error.reason) from None
