"""The rules that calls store in the database, beside those of the file."""

from collections.abc import Sequence
from datetime import datetime
from typing import Self

import msgspec
from sqlalchemy.exc import IntegrityError

from latchkey.models import GateRuleSet
from latchkey.service.gate.rules import MOST_RULES, NamedRule, Rule
from latchkey.service.problems import Problem, field_problem, invalid_field
from latchkey.service.rule_error import RuleError

ONLY_ROW = 1
LARGEST_SET_BYTES = 256 * 1024

_decoder = msgspec.json.Decoder(tuple[NamedRule, ...])


class StoredRules(msgspec.Struct, frozen=True, kw_only=True):
    """The stored rules of one version; there are none, and the version is 0, before the first change."""

    version: int = 0
    updated_at: datetime | None = None
    texts: tuple[NamedRule, ...] = ()

    @classmethod
    def of(cls, row: GateRuleSet | None) -> Self:
        """Return the rules of the row."""
        if row is None:
            return cls()
        return cls(version=row.version, updated_at=row.updated_at, texts=decoded(row.rules))


def decoded(rules: str) -> tuple[NamedRule, ...]:
    """Return the rules of a stored text."""
    return _decoder.decode(rules)


def parsed(texts: Sequence[NamedRule]) -> list[Rule]:
    """Return stored rules in the form in which the gate uses them."""
    return [Rule.of(text, place + 1, is_stored=True) for place, text in enumerate(texts)]


async def read_stored() -> StoredRules:
    """Return the stored rules."""
    return StoredRules.of(await GateRuleSet.filter_by(id=ONLY_ROW).first())


async def lock_stored(version: int | None) -> tuple[GateRuleSet | None, StoredRules]:
    """Return the row, locked until the transaction ends, and its rules; simultaneous changes are made one after another.

    Args:
        version: the version that the caller has read; None if any may be changed.

    Raises:
        Problem: 409 `version_changed`.
    """
    row = await GateRuleSet.filter_by(id=ONLY_ROW).for_update().first()
    present = StoredRules.of(row)
    if version is not None and version != present.version:
        raise Problem("version_changed", f"The stored rules have the version {present.version}.")
    return row, present


async def store(row: GateRuleSet | None, texts: Sequence[NamedRule], pointer: str) -> int:
    """Replace the rules of a locked row and flush; return their new version.

    Args:
        row: None before the first change.
        texts: all rules in their new order.
        pointer: leads to the part of the body that changes them.

    Raises:
        Problem: 409 `changed_meanwhile` if another call made the first change, 422 `invalid_body` for too many rules.
    """
    text = msgspec.json.encode(texts).decode()
    if len(texts) > MOST_RULES:
        raise field_problem(pointer, f"there would be more than {MOST_RULES} stored rules")
    if len(text.encode()) > LARGEST_SET_BYTES:
        raise field_problem(
            pointer, f"the stored rules together would have more than {LARGEST_SET_BYTES} bytes"
        )
    if row is not None:
        await row.update(version=row.version + 1, rules=text)
        return row.version
    try:
        await GateRuleSet.create(id=ONLY_ROW, version=1, rules=text)
    except IntegrityError as error:
        raise Problem("changed_meanwhile") from error
    return 1


async def replace_all(texts: Sequence[NamedRule], version: int | None) -> int:
    """Replace all stored rules and flush; return their new version.

    Raises:
        Problem: those of `lock_stored` and `store`, 422 `invalid_body` for a rule that cannot work or a name that is given twice.
    """
    names: set[str] = set()
    for place, text in enumerate(texts):
        with invalid_field(f"/data/{place}"):
            Rule.of(text, place + 1)
            if text.name in names:
                raise RuleError("the name is given twice", "name")
        names.add(text.name)
    row, _ = await lock_stored(version)
    return await store(row, texts, "/data")


async def add_rule(rule: NamedRule, before: str | None, version: int | None) -> int:
    """Add a rule before the one of a name, or at the end, and flush; return the new version of the stored rules.

    Raises:
        Problem: those of `lock_stored` and `store`, 409 `gate_rule_taken`, 422 `invalid_body` for a rule that cannot work or
            if there is no rule `before`.
    """
    require_sound(rule)
    row, present = await lock_stored(version)
    texts = list(present.texts)
    insert(rule, texts, len(texts), before)
    return await store(row, texts, "/rule")


async def replace_rule(name: str, rule: NamedRule, before: str | None, version: int | None) -> int:
    """Replace a rule and flush; return the new version of the stored rules.

    Without `before` it keeps its place.

    Raises:
        Problem: those of `add_rule`, 404 `not_found`.
    """
    require_sound(rule)
    row, present = await lock_stored(version)
    texts = list(present.texts)
    place = place_of(name, texts)
    if place is None:
        raise Problem("not_found")
    del texts[place]
    insert(rule, texts, place, before)
    return await store(row, texts, "/rule")


async def remove_rule(name: str, version: int | None) -> int:
    """Remove a rule and flush; return the new version of the stored rules.

    Raises:
        Problem: those of `lock_stored`, 404 `not_found`.
    """
    row, present = await lock_stored(version)
    kept = [text for text in present.texts if text.name != name]
    if len(kept) == len(present.texts):
        raise Problem("not_found")
    return await store(row, kept, "")


def require_sound(rule: NamedRule) -> None:
    """Raise a problem for a rule that cannot work."""
    with invalid_field("/rule"):
        Rule.of(rule, 1)


def insert(rule: NamedRule, texts: list[NamedRule], place: int | None, before: str | None) -> None:
    """Insert a rule at a place, or before the rule of a name; raise a problem for a name that another rule has."""
    if place_of(rule.name, texts) is not None:
        raise Problem("gate_rule_taken")
    if before is not None:
        place = place_of(before, texts)
    if place is None:
        raise field_problem("/before", "there is no other stored rule of this name")
    texts.insert(place, rule)


def place_of(name: str, texts: Sequence[NamedRule]) -> int | None:
    """Return the place of the rule of a name, from 0; None if there is none."""
    return next((place for place, text in enumerate(texts) if text.name == name), None)


async def rules_that_need(scope: str) -> list[str]:
    """Return the names of the stored rules that need a scope."""
    return [text.name for text in (await read_stored()).texts if text.scope == scope]
