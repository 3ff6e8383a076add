"""The authenticator of a route, for Starlette's `AuthenticationMiddleware`."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError
from starlette.requests import HTTPConnection
from starlette.responses import Response

from latchkey.service.authentication.checks import Refused, has_body, require_scope
from latchkey.service.authentication.lookup import NoKeyMatch
from latchkey.service.authentication.principal import Principal
from latchkey.service.authentication.refusal import accept_signature, claimed_key
from latchkey.service.authentication.state import call_state
from latchkey.service.authentication.verifier import Verifier
from latchkey.service.authentication.wire.extraction import IllFormed, TwoCredentials, Unauthenticated
from latchkey.service.problems import Problem

log = logging.getLogger("latchkey.authentication")


def answer_refusal(connection: HTTPConnection, error: AuthenticationError) -> Response:
    """Return the response for `AuthenticationMiddleware`, whose default is a 400 in plain text."""
    assert isinstance(error, Refused)  # noqa: S101 - what the backend below raises
    return error.problem.response(call_state(connection.scope).get("request_id"))


FAILURES: Mapping[str, str] = MappingProxyType(
    {
        "a wrong signature": "wrong_signature",
        "a signature of another method or path": "wrong_signature",
        "a signature with a key that does not sign": "wrong_mode",
        "a timestamp outside the clock window": "clock",
        "a message signature outside the clock window, or past its expires": "clock",
        NoKeyMatch().reason: "unknown_key",
    }
)
"""The reasons that metrics distinguish; all others are faults in the form of the credential."""


def failure_of(code: str, reason: str) -> str:
    """Return the reason of a refusal in one word; few words, because each is a series of metrics."""
    return FAILURES.get(reason, "ill_formed") if code == "unauthenticated" else code


class KeyBackend(AuthenticationBackend):
    """The authenticator of one route: it verifies the caller and requires the route's scope."""

    def __init__(self, verifier: Verifier, scope: str | None) -> None:
        self.verifier = verifier
        self.required = scope

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, Principal]:
        """Return the caller, or raise `Refused`."""
        state = call_state(conn.scope)
        state["is_private"] = True
        try:
            principal = await self.verifier.verify(conn.scope)
            state["required_scope"] = self.required
            require_scope(self.required, principal.scopes)
        except TwoCredentials as error:
            problem, reason = Problem("two_credentials", error.detail), error.reason
        except IllFormed as error:
            problem, reason = Problem("unauthenticated", error.detail), error.reason
        except Unauthenticated as error:
            problem, reason = Problem("unauthenticated"), error.reason
        except Refused as error:
            problem, reason = error.problem, error.problem.code
        except Problem as error:
            problem, reason = error, error.code
        else:
            return AuthCredentials(list(principal.key.all_scopes)), principal
        state["failure"] = failure_of(problem.code, reason)
        state["claimed_key"] = claimed = claimed_key(conn.scope, self.verifier.prefix)
        proved = state.get("proved_key", "none")
        log.info("refused: %s; claimed key: %s, proved key: %s", reason, claimed or "none", proved)
        if problem.kind.status == HTTPStatus.UNAUTHORIZED:
            problem.headers["www-authenticate"] = self.verifier.challenge
            problem.headers["accept-signature"] = accept_signature(conn.scope, has_body=has_body(conn.scope))
        raise Refused(problem)
