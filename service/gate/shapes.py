"""The bodies of the calls that change the stored rules of the gate."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from latchkey.service.gate.rules import MOST_RULES, NamedRule
from latchkey.service.shapes import Input, Moment, Output, RoleName

RulesVersion = Annotated[
    int,
    Meta(
        ge=0,
        description="The version of the stored rules; if they have another one meanwhile, the call changes nothing.",
    ),
]


class NewGateRules(Input, frozen=True, kw_only=True):
    """The body of `PUT /v1/gate/rules`: all stored rules, in their order. The first rule that fits a request decides."""

    data: Annotated[tuple[NamedRule, ...], Meta(max_length=MOST_RULES)]
    version: RulesVersion | UnsetType = UNSET


class PlacedGateRule(Input, frozen=True, kw_only=True):
    """The body of `POST /v1/gate/rules` and `PUT /v1/gate/rules/{name}`: a rule, and the name of the one before which it comes.

    Without `before` a new rule is the last, and a replaced one keeps its place.
    """

    rule: NamedRule
    before: RoleName | UnsetType = UNSET
    version: RulesVersion | UnsetType = UNSET


class GateRuleQuery(Input, frozen=True, kw_only=True):
    """The query of `DELETE /v1/gate/rules/{name}`."""

    version: RulesVersion | None = None


class GateRule(Output, frozen=True, kw_only=True):
    """A rule: the requests that it fits, and what they need. `name` is null for a rule of the file without a name."""

    name: str | None
    hosts: tuple[str, ...]
    methods: tuple[str, ...]
    paths: tuple[str, ...]
    scope: str | None
    any_key: bool
    public: bool
    cost: int


class GateRules(Output, frozen=True, kw_only=True):
    """The rules in force: those of the file come first, and then the stored ones, in their order.

    `version` is that of the stored rules, 0 before the first change, and `updated_at` the time of their last change.
    """

    version: int
    updated_at: Moment | None
    file: list[GateRule]
    data: list[GateRule]


class GateRulesVersion(Output, frozen=True, kw_only=True):
    """The version of the stored rules after a change."""

    version: int


def shown(rule: msgspec.Struct) -> GateRule:
    """Return a rule as a response has it."""
    return GateRule(**{name: getattr(rule, name) for name in GateRule.__struct_fields__})
