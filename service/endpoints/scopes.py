"""Scopes of other services: `/v1/scopes`."""

from starlette.requests import Request

from latchkey.models import Scope
from latchkey.service import shapes
from latchkey.service.endpoints.caller import hold_caller
from latchkey.service.endpoints.paging import page
from latchkey.service.keys import scopes
from latchkey.service.operation import Answer
from latchkey.service.parts import parts_of

PATH = "/v1/scopes"


async def create_scope(request: Request, body: shapes.NewScope) -> Answer:
    """Register a scope of another service, so that keys can have it.

    The scopes of this service's own routes are declared by them, and cannot be registered.
    """
    await hold_caller(request)
    scope = await scopes.register(body.name, body.description, parts_of(request.app).key_rules.scopes)
    return Answer(content=scope, headers={"location": f"{PATH}/{scope.name}"})


async def list_scopes(request: Request, query: shapes.ScopeQuery) -> Answer:
    """List the registered scopes, oldest first."""
    return await page(
        Scope.filter(),
        path=PATH,
        filters={},
        limit=query.limit,
        cursor=query.cursor,
        keyring=parts_of(request.app).keyring,
    )


async def delete_scope(request: Request, name: str) -> None:
    """Remove a registered scope.

    A scope that an active key or a role has cannot be removed: the detail of the response names the keys or roles.
    """
    await hold_caller(request)
    await scopes.remove(name)
