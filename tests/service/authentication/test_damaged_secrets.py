"""Stored secrets that cannot be decrypted are a 500, and rows restored from a backup are refused."""

import logging
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete, insert, select, update
from starlette.applications import Starlette

from latchkey.models import KeySecret
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.authentication.wire.message_signature import sign_message
from tests.api import HeldKey, assert_problem, call, hold_key, rotate_held
from tests.conftest import KEYRING, table_of
from tests.requests import Answer, request

SECRETS = table_of(KeySecret)
WEEK_S = 7 * 24 * 60 * 60
OTHER_RING = KeyRing.generate_text().replace("1:", "2:")


async def read_secrets(app: Starlette, key: HeldKey) -> list[dict[str, Any]]:
    async with app.state.db.reader.connect() as connection:
        rows = await connection.execute(
            select(SECRETS).where(SECRETS.c.api_key_id == key.id).order_by(SECRETS.c.version)
        )
        return [dict(one) for one in rows.mappings()]


async def execute(app: Starlette, *statements: Any) -> None:
    async with app.state.db.engine.begin() as connection:
        for one in statements:
            await connection.execute(one)


def use(app: Starlette, ring: str) -> None:
    """Give the authenticator another key ring, as if it had been built with it."""
    verifier, keyring = app.state.latchkey.verifier, KeyRing.from_text(ring)
    dummy = keyring.seal_secret(verifier.dummy.secret, verifier.dummy.access_key, 1)
    verifier.keyring = keyring
    verifier._dummy_sealed = msgspec.structs.replace(verifier._dummy_sealed, sealed=dummy)


async def sign_a_message(app: Starlette, key: HeldKey, *, host: str = "testserver") -> Answer:
    headers = sign_message(
        key.secret, key.access_key, app.state.latchkey.verifier.clock(),
        method="GET", scheme="http", authority=host, raw_path="/v1/me", nonce="n0nce-0123456789abcdef",
    )  # fmt: skip
    return await request(app, "GET", "/v1/me", headers={"host": "testserver", **headers})


def complaints(log_lines: Any) -> list[str]:
    return [
        one.getMessage()
        for one in log_lines
        if one.levelname == "ERROR" and one.name == "latchkey.authentication"
    ]


# ---------------------------------------------------------------------- a ring that lost a key


async def test_a_secret_that_does_not_open_is_our_500_in_both_forms(
    app: Starlette, signer: HeldKey, log_lines: list[logging.LogRecord]
) -> None:
    """The partner signed correctly, and cannot correct the fault."""
    use(app, OTHER_RING)

    by_query = await call(app, "GET", "/v1/me", key=signer)
    by_message = await sign_a_message(app, signer)

    assert_problem(by_query, 500, "internal_error")
    assert_problem(by_message, 500, "internal_error")
    sentence = (
        f"the secret of {signer.access_key}, version 1, does not open: "
        "The value was sealed with key 1, which is not in the key ring."
    )
    assert complaints(log_lines) == [sentence] * 2
    assert [one for one in log_lines if one.exc_info] == []


async def test_another_key_of_the_same_id_is_named_too(
    app: Starlette, signer: HeldKey, log_lines: list[logging.LogRecord]
) -> None:
    use(app, KeyRing.generate_text())

    assert_problem(await call(app, "GET", "/v1/me", key=signer), 500, "internal_error")
    (line,) = complaints(log_lines)
    assert signer.access_key in line
    assert "another key 1." in line


async def test_other_refusals_stay_alike(
    app: Starlette, signer: HeldKey, log_lines: list[logging.LogRecord]
) -> None:
    """A signature of an unknown key, and any bearer, are checked as before."""
    bearer = await hold_key(app, email="partner@example.com")
    unknown = msgspec.structs.replace(signer, access_key="lka_" + "0" * 22)
    use(app, OTHER_RING)

    assert_problem(await call(app, "GET", "/v1/me", key=unknown), 401, "unauthenticated")
    assert (await call(app, "GET", "/v1/me", key=bearer)).status == 200
    assert complaints(log_lines) == []


async def test_it_counts_as_no_failure_of_the_partner(app: Starlette, signer: HeldKey) -> None:
    app.state.latchkey.verifier.failures.limit = 1
    use(app, OTHER_RING)
    for _ in range(5):
        assert_problem(await call(app, "GET", "/v1/me", key=signer), 500, "internal_error")


async def test_with_the_ring_back_the_key_works_again(app: Starlette, signer: HeldKey) -> None:
    use(app, OTHER_RING)
    await call(app, "GET", "/v1/me", key=signer)
    use(app, f"{OTHER_RING},{KEYRING}")

    assert (await call(app, "GET", "/v1/me", key=signer)).status == 200


async def test_the_one_of_two_secrets_that_opens_still_works(
    app: Starlette, signer: HeldKey, log_lines: list[logging.LogRecord]
) -> None:
    """After a rotation under a ring with a new first key and without the old one."""
    rules = app.state.latchkey.key_rules
    issuer = msgspec.structs.replace(rules.issuer, keyring=KeyRing.from_text(OTHER_RING))
    app.state.latchkey = msgspec.structs.replace(
        app.state.latchkey, key_rules=msgspec.structs.replace(rules, issuer=issuer)
    )
    renewed = await rotate_held(app, signer, grace_s=WEEK_S)
    use(app, OTHER_RING)

    assert (await call(app, "GET", "/v1/me", key=renewed)).status == 200
    assert complaints(log_lines) == []
    assert_problem(await call(app, "GET", "/v1/me", key=signer), 500, "internal_error")
    assert len(complaints(log_lines)) == 1


async def test_an_altered_secret_does_not_open(
    app: Starlette, signer: HeldKey, log_lines: list[logging.LogRecord]
) -> None:
    (row,) = await read_secrets(app, signer)
    altered = row["sealed"][:-1] + bytes([row["sealed"][-1] ^ 1])
    await execute(app, update(SECRETS).where(SECRETS.c.api_key_id == signer.id).values(sealed=altered))

    assert_problem(await call(app, "GET", "/v1/me", key=signer), 500, "internal_error")
    assert len(complaints(log_lines)) == 1


@pytest.mark.parametrize("sealed", [None, b"", b"x" * 10], ids=["null", "empty", "cut off"])
async def test_bytes_that_are_no_sealed_value_do_not_open(
    app: Starlette, signer: HeldKey, sealed: bytes | None
) -> None:
    await execute(app, update(SECRETS).where(SECRETS.c.api_key_id == signer.id).values(sealed=sealed))

    assert_problem(await call(app, "GET", "/v1/me", key=signer), 500, "internal_error")


async def test_an_explanation_says_that_the_secret_cannot_be_opened(
    app: Starlette, operator: HeldKey, signer: HeldKey
) -> None:
    sent = sign_message(
        signer.secret, signer.access_key, app.state.latchkey.verifier.clock(),
        method="GET", scheme="https", authority="h", raw_path="/", nonce="n0nce-0123456789abcdef",
    )  # fmt: skip
    use(app, OTHER_RING)

    answer = await call(
        app, "POST", "/v1/signatures/explain", key=operator,
        body={"method": "GET", "url": "https://h/", "headers": sent},
    )  # fmt: skip

    (proof,) = [one for one in answer.json["checks"] if one["name"] == "proof"]
    assert proof["result"] == "not_checked"
    assert "cannot open" in proof["detail"]


# ---------------------------------------------------------------------- rows that were put back


@pytest.fixture(params=["bearer", "signed"])
async def partner(app: Starlette, request: pytest.FixtureRequest) -> HeldKey:
    return await hold_key(app, email="partner@example.com", mode=request.param)


async def test_an_old_row_that_is_put_back_is_refused_and_logged(
    app: Starlette, partner: HeldKey, log_lines: list[logging.LogRecord]
) -> None:
    """A leaked and replaced secret does not work again, and the new one does."""
    (old,) = await read_secrets(app, partner)
    renewed = await rotate_held(app, partner, grace_s=0)
    await execute(app, insert(SECRETS).values(old))

    for method, path in (("GET", "/v1/me"), ("DELETE", f"/v1/keys/{partner.access_key}")):
        assert_problem(await call(app, method, path, key=partner), 401, "unauthenticated")
    assert set(complaints(log_lines)) == {
        f"refused restored secrets of {partner.access_key}: they have the versions [1], and the key has version 2"
    }
    assert (await call(app, "GET", "/v1/me", key=renewed)).status == 200


async def test_a_row_of_two_rotations_ago_is_refused_with_an_end_too(
    app: Starlette, partner: HeldKey
) -> None:
    """Within a grace period only the previous version works."""
    await rotate_held(app, partner, grace_s=WEEK_S)
    (oldest, _) = await read_secrets(app, partner)
    second = await rotate_held(app, partner, grace_s=WEEK_S)
    third = await rotate_held(app, second, grace_s=WEEK_S)
    await execute(
        app,
        delete(SECRETS).where(SECRETS.c.api_key_id == partner.id, SECRETS.c.version == oldest["version"]),
        insert(SECRETS).values(oldest),
    )

    assert_problem(await call(app, "GET", "/v1/me", key=partner), 401, "unauthenticated")
    for key in (second, third):
        assert (await call(app, "GET", "/v1/me", key=key)).status == 200


async def test_a_newer_version_than_the_key_has_is_refused(app: Starlette, partner: HeldKey) -> None:
    """The row of the key was restored, that of its secret was not."""
    await execute(app, update(SECRETS).where(SECRETS.c.api_key_id == partner.id).values(version=5))

    answer = await call(app, "GET", "/v1/me", key=partner)

    assert_problem(
        answer, *{"bearer": (401, "unauthenticated"), "signed": (500, "internal_error")}[partner.mode]
    )


async def test_an_old_ciphertext_under_the_new_version_does_not_open(
    app: Starlette, signer: HeldKey, log_lines: list[logging.LogRecord]
) -> None:
    (old,) = await read_secrets(app, signer)
    renewed = await rotate_held(app, signer, grace_s=0)
    await execute(
        app,
        update(SECRETS)
        .where(SECRETS.c.api_key_id == signer.id)
        .values(sealed=old["sealed"], secret_sha256=old["secret_sha256"]),
    )

    for key in (signer, renewed):
        assert_problem(await call(app, "GET", "/v1/me", key=key), 500, "internal_error")
    assert all("version 2, does not open" in one for one in complaints(log_lines))


async def test_a_key_that_signs_and_whose_newest_row_is_gone_is_our_500(
    app: Starlette, signer: HeldKey, log_lines: list[logging.LogRecord]
) -> None:
    (old,) = await read_secrets(app, signer)
    renewed = await rotate_held(app, signer, grace_s=0)
    await execute(app, delete(SECRETS).where(SECRETS.c.api_key_id == signer.id), insert(SECRETS).values(old))

    for key in (signer, renewed):
        assert_problem(await call(app, "GET", "/v1/me", key=key), 500, "internal_error")
    assert f"the newest secret of {signer.access_key}, version 2, is missing" in complaints(log_lines)
