"""The scopes of keys: those that routes declare, those that the operator registers, and a trailing `:*` for all of a noun."""

from collections.abc import Collection, Iterable, Sequence

from sqlalchemy.exc import IntegrityError

from latchkey.models import ApiKey, Role, Scope
from latchkey.models.lookups import Q
from latchkey.models.scope import joined
from latchkey.service.authentication.scopes import ANY_VERB
from latchkey.service.gate.stored import rules_that_need
from latchkey.service.keys.holders import contains_word, holders, named
from latchkey.service.problems import Problem, or_not_found
from latchkey.service.rule_error import RuleError


async def require_known(scopes: Sequence[str], declared: frozenset[str]) -> None:
    """Check the scopes of a key. The rows of the registered ones stay locked, so that none is removed before the key has it.

    Raises:
        RuleError: a scope is given twice, or neither a route declares it nor the operator registered it.
    """
    others = [scope for scope in scopes if scope not in declared]
    registered = await registered_among(others) if others else frozenset()
    nouns = {scope.partition(":")[0] for scope in declared | registered}
    for place, scope in enumerate(scopes):
        if scope in scopes[:place]:
            raise RuleError("the scope is given twice", place)
        noun, _, verb = scope.partition(":")
        if scope not in declared | registered and not (verb == ANY_VERB and noun in nouns):
            raise RuleError(
                f"there is no such scope; there are {', '.join(sorted(declared))}, and those that were registered",
                place,
            )


async def registered_among(scopes: Iterable[str]) -> frozenset[str]:
    """Return the registered scopes that are in a list, or that a `:*` in it covers, and lock them."""
    names = list(scopes)
    nouns = [noun for noun, _, verb in (name.partition(":") for name in names) if verb == ANY_VERB]
    rows = await Scope.filter(Q(name__in=names) | Q(noun__in=nouns)).for_update().all()
    return frozenset(row.name for row in rows)


async def register(name: str, description: str, declared: Collection[str]) -> Scope:
    """Register a scope and flush it.

    Raises:
        Problem: 409 `scope_taken`.
    """
    if name in declared:
        raise Problem("scope_taken", f"A route of this service declares the scope {name}.")
    try:
        return await Scope.create(name=name, noun=name.partition(":")[0], description=description)
    except IntegrityError as error:
        raise Problem("scope_taken") from error


async def remove(name: str) -> None:
    """Remove a registered scope that no active key, no role and no stored rule of the gate has.

    Raises:
        Problem: 404 `not_found`, or 409 `scope_in_use`.
    """
    scope = or_not_found(await Scope.filter_by(name=name).for_update().first())
    held = (contains_word(ApiKey.scopes, name), ApiKey.status == "active")
    if keys := await holders(ApiKey.access_key, ApiKey.id, *held):
        raise Problem("scope_in_use", f"These keys have the scope {name}: {keys}.")
    if roles := await holders(Role.name, Role.id, contains_word(Role.scopes, name)):
        raise Problem("scope_in_use", f"These roles have the scope {name}: {roles}.")
    if rules := await rules_that_need(name):
        raise Problem("scope_in_use", f"These rules of the gate need the scope {name}: {named(rules)}.")
    await scope.remove()


async def scopes_of_roles(roles: Sequence[str]) -> tuple[str, ...]:
    """Return the scopes of roles together. Their rows stay locked, so that none changes before the key has it.

    Raises:
        RuleError: a role is given twice, or does not exist.
    """
    if not roles:
        return ()
    rows = {row.name: row for row in await Role.filter(name__in=list(roles)).for_update().all()}
    for place, role in enumerate(roles):
        if role in roles[:place]:
            raise RuleError("the role is given twice", place)
        if role not in rows:
            raise RuleError("there is no such role", place)
    return joined(*(rows[role].scopes for role in roles))
