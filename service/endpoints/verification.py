"""Verification of credentials for other services: `/v1/keys/verify`."""

from starlette.requests import Request
from starlette.types import Scope

from latchkey.service import shapes
from latchkey.service.authentication.principal import Principal
from latchkey.service.authentication.wire.message_signature import EMPTY_SHA256
from latchkey.service.endpoints.signatures import scope_of
from latchkey.service.networks import parse_address
from latchkey.service.parts import parts_of
from latchkey.service.problems import field_problem
from latchkey.service.verification import Verification, verify


async def verify_key(request: Request, body: shapes.Verify) -> shapes.Verified:
    """Verify the credential of a request that another service received.

    The status is 200 whether the credential is valid or not; `code` is `valid`, or the code of the problem that a call to
    this service would get. A valid credential is charged `cost` units, to all limits of the key and its owner and to its
    credits, or to none.
    With `charge` false nothing is charged and no nonce is used up.
    The current state is read from the primary database, never from a cache.
    """
    return await verified(request, body, owner_id=None)


async def verify_my_key(request: Request, caller: Principal, body: shapes.Verify) -> shapes.Verified:
    """Verify a credential that belongs to the caller's owner.

    The rules of `POST /v1/keys/verify` apply. A key of another owner is answered like a key that does not exist.
    """
    return await verified(request, body, owner_id=caller.user.id)


async def verify_keys(request: Request, body: shapes.VerifyBatch) -> shapes.VerifiedBatch:
    """Verify several credentials, one after the other, each as `POST /v1/keys/verify` does.

    The results have the order of the requests. Each credential is charged on its own.
    """
    return shapes.VerifiedBatch(data=[await verified(request, one, owner_id=None) for one in body.data])


async def verified(request: Request, body: shapes.Verify, *, owner_id: int | None) -> shapes.Verified:
    """Return the result of one verification."""
    return await verify(parts_of(request.app), request.state.session, asked(body), owner_id=owner_id)


def asked(body: shapes.Verify) -> Verification:
    """Return the question of a body, or raise a problem for a body that contains none."""
    secret, sent = body.credential, body.request
    if isinstance(secret, str) == isinstance(sent, shapes.ReceivedRequest):
        raise field_problem("/credential", "either `credential` or `request` must be given")
    digest = EMPTY_SHA256
    scope: Scope
    if isinstance(sent, shapes.ReceivedRequest):
        scope = scope_of(sent.method, sent.url, sent.headers, pointer="/request/url")
        if isinstance(sent.content_sha256, str):
            digest = bytes.fromhex(sent.content_sha256)
    else:
        # As a call with an effect, so that nothing depends on a cache.
        bearer = b"Bearer " + str(secret).encode()
        scope = {"method": "POST", "query_string": b"", "headers": [(b"authorization", bearer)]}
    scope["client"] = None
    if isinstance(body.client, str):
        address = parse_address(body.client)
        if address is None:
            raise field_problem("/client", "it is not an IP address")
        scope["client"] = (str(address), 0)
    return Verification(
        scope=scope,
        content_sha256=digest,
        scopes=body.scopes,
        cost=body.cost,
        charge=body.charge,
        tags=body.tags,
    )
