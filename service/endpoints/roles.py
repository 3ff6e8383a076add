"""Roles, which are names for several scopes: `/v1/roles`."""

from msgspec import UNSET
from starlette.requests import Request

from latchkey.models import Role
from latchkey.service import shapes
from latchkey.service.endpoints.caller import hold_caller
from latchkey.service.endpoints.paging import page
from latchkey.service.keys import roles
from latchkey.service.operation import Answer
from latchkey.service.parts import parts_of
from latchkey.service.problems import or_not_found

PATH = "/v1/roles"


async def create_role(request: Request, body: shapes.NewRole) -> Answer:
    """Create a role, so that keys can have it.

    The calling key needs every scope of the role.
    """
    caller = await hold_caller(request)
    declared = parts_of(request.app).key_rules.scopes
    role = await roles.create(body.name, body.scopes, body.description, caller, declared)
    return Answer(content=role, headers={"location": f"{PATH}/{role.name}"})


async def list_roles(request: Request, query: shapes.RoleQuery) -> Answer:
    """List the roles, oldest first."""
    return await page(
        Role.filter(),
        path=PATH,
        filters={},
        limit=query.limit,
        cursor=query.cursor,
        keyring=parts_of(request.app).keyring,
    )


async def read_role(name: str) -> Role:
    """Read a role."""
    return or_not_found(await Role.filter_by(name=name).first())


async def change_role(request: Request, name: str, body: shapes.RoleChange) -> Role:
    """Change a role; absent fields stay unchanged.

    Every active key that has the role gets the new scopes in the same transaction. The calling key needs every scope that
    the role has or gets.
    """
    caller = await hold_caller(request)
    return await roles.change(
        name,
        scopes=None if body.scopes is UNSET else body.scopes,
        description=None if body.description is UNSET else body.description,
        caller=caller,
        declared=parts_of(request.app).key_rules.scopes,
    )


async def delete_role(request: Request, name: str) -> None:
    """Remove a role.

    A role that an active key has cannot be removed: the detail of the response names the keys. The calling key needs every
    scope of the role.
    """
    await roles.remove(name, await hold_caller(request))
