"""The rules for roles: names for several scopes, which a key can have like the scopes themselves.

A key stores the scopes of its roles, so that authentication reads one row. A change of a role changes them in the same
transaction.
"""

from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from latchkey.models import ApiKey, Role
from latchkey.models.scope import joined
from latchkey.service.authentication.principal import Principal
from latchkey.service.keys.holders import contains_word, holders
from latchkey.service.keys.rules import require_held
from latchkey.service.keys.scopes import require_known
from latchkey.service.problems import Problem, invalid_field, or_not_found

UNLOADED = {"synchronize_session": False}  # only columns of the keys are in the session


async def create(
    name: str, scopes: Sequence[str], description: str, caller: Principal | None, declared: frozenset[str]
) -> Role:
    """Create a role and flush it; a caller of None is the operator.

    Raises:
        Problem: 403 `scope_not_held`, 409 `role_taken`, 422 `invalid_body` for scopes that no key can have.
    """
    await require_right(scopes, caller, declared)
    try:
        return await Role.create(name=name, scopes=tuple(scopes), description=description)
    except IntegrityError as error:
        raise Problem("role_taken") from error


async def lock_role(name: str) -> Role:
    """Return a role, locked until the transaction ends; a call that gives the role to a key waits meanwhile.

    Raises:
        Problem: 404 `not_found`.
    """
    return or_not_found(await Role.filter_by(name=name).for_update().first())


async def change(
    name: str,
    *,
    scopes: Sequence[str] | None,
    description: str | None,
    caller: Principal | None,
    declared: frozenset[str],
) -> Role:
    """Change a role and flush it; None leaves a value unchanged. All active keys that have the role get the new scopes.

    Raises:
        Problem: 403 `scope_not_held`, 404 `not_found`, 422 `invalid_body` for scopes that no key can have.
    """
    if scopes is not None:
        await require_right(scopes, caller, declared)
    role = await lock_role(name)
    require_held(caller, role.scopes)
    if description is not None:
        await role.update(description=description)
    if scopes is not None and tuple(scopes) != role.scopes:
        await role.update(scopes=tuple(scopes))
        await follow(role)
    return role


async def remove(name: str, caller: Principal | None) -> None:
    """Remove a role that no active key has.

    Raises:
        Problem: 403 `scope_not_held`, 404 `not_found`, 409 `role_in_use`.
    """
    role = await lock_role(name)
    require_held(caller, role.scopes)
    held = (contains_word(ApiKey.roles, name), ApiKey.status == "active")
    if found := await holders(ApiKey.access_key, ApiKey.id, *held):
        raise Problem("role_in_use", f"These keys have the role {name}: {found}.")
    await role.remove()


async def require_right(scopes: Sequence[str], caller: Principal | None, declared: frozenset[str]) -> None:
    """Raise a problem for scopes that no key can have, or that the caller does not hold."""
    with invalid_field("/scopes"):
        await require_known(scopes, declared)
    require_held(caller, scopes)


async def follow(role: Role) -> None:
    """Store the new scopes of a locked role in the active keys that have it, by one statement for each set of roles."""
    has_role = (contains_word(ApiKey.roles, role.name), ApiKey.status == "active")
    async with ApiKey.resolve() as session:
        sets = (await session.execute(select(ApiKey.roles).where(*has_role).distinct())).scalars().all()
        names = {name for one in sets for name in one}
        # Locked, because the other roles of these keys may be changed at the same time.
        rows = await Role.filter(name__in=sorted(names)).for_update().all() if names else []
        scopes = {row.name: row.scopes for row in rows}
        for one in sets:
            given = joined(*(scopes.get(name, ()) for name in one))
            statement = (
                update(ApiKey).where(ApiKey.roles == one, ApiKey.status == "active").values(role_scopes=given)
            )
            await session.execute(statement, execution_options=UNLOADED)
