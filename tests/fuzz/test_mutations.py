"""A signed request with one change is never accepted, and never causes a 5xx.

`make test` changes some hundreds, `make test-fuzz` twenty thousand. A failure prints the seed; with it in
`LATCHKEY_TEST_SEED` the same requests are generated again.
"""

import os
import random
from urllib.parse import unquote

import pytest
from starlette.applications import Starlette

from tests.fuzz.calls import KINDS, METHODS, SAFE_METHODS, Genuine, Sent
from tests.fuzz.conftest import Counts, HeldKeys
from tests.fuzz.mutations import BODY_LIMIT_BYTES, MutationInput, mutate

TOTAL = int(os.environ.get("LATCHKEY_TEST_FUZZ") or 400)
GENUINE_EVERY = 10

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def verdict(genuine: Genuine, sent: Sent) -> tuple[int, str]:  # noqa: PLR0911 - a table, read line by line
    """Return the answer to a mutated request: the status and the code of the problem."""
    path = unquote(sent.path, "latin-1")
    if len(sent.body) > BODY_LIMIT_BYTES:
        return 413, "body_too_large"
    if not path.startswith("/") or "\n" in path:
        return 404, "not_found"
    if sent.method not in METHODS:
        return 405, "method_not_allowed"
    if len(sent.credentials) > 1:
        return 400, "two_credentials"
    if genuine.digest and sent.but(body=genuine.sent.body) == genuine.sent:
        return 401, "digest_mismatch"
    if "method" not in genuine.covered and sent.method not in SAFE_METHODS:
        # A signed query without its method only proves that the call was meant to be safe.
        return 403, "coverage_required"
    return 401, "unauthenticated"


@on_sqlite
@pytest.mark.parametrize("kind", KINDS)
async def test_a_mutated_request_is_never_taken(
    app: Starlette, held_keys: HeldKeys, kind: str, seed: str, counts: Counts
) -> None:
    seen: list[str] = app.state.seen
    for number in range(-(-TOTAL // len(KINDS))):
        rng = random.Random(f"{seed} {kind} {number}")
        genuine, sibling = (KINDS[kind](rng, held_keys.signer) for _ in range(2))
        source = MutationInput(
            genuine=genuine, sibling=sibling, other=held_keys.other, bearer=held_keys.bearer
        )
        name, sent = mutate(rng, source)

        answer = await sent.send(app)

        story = f"LATCHKEY_TEST_SEED={seed} {kind} {number}: {name}\n{genuine.sent}\n{sent}\n{answer.body!r}"
        counts.answers[name, answer.status or 0] += 1
        counts.accepted += len(seen)
        assert seen == [], story
        assert (answer.status, answer.json["code"]) == verdict(genuine, sent), story

        if number % GENUINE_EVERY == 0:
            # The request was valid before the change, and a refusal must not use up its nonce.
            answer = await genuine.sent.send(app)

            assert (answer.status, seen) == (200, [held_keys.signer.access_key]), story
            counts.genuine += 1
            seen.clear()
