"""The headers of answers to calls with a replaced secret."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from latchkey.service.authentication.lookup import Found, StoredSecret
from latchkey.service.authentication.records import KeyRecord
from latchkey.service.authentication.retirement import Retirement, retirement_of
from latchkey.service.middleware_stack import retirement_headers

ROTATED = datetime(2026, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC)
END = ROTATED + timedelta(days=7)


def stored(version: int, **times: datetime | None) -> StoredSecret:
    return StoredSecret(
        version=version,
        secret_sha256=b"",
        sealed=None,
        **dict[str, Any]({"created_at": ROTATED, "expires_at": None, **times}),
    )


NEW, OLD = stored(2), stored(1, created_at=datetime(2025, 1, 1, tzinfo=UTC), expires_at=END)


def found(key_ends_at: datetime | None = None) -> Found:
    key = msgspec.convert(
        {
            **dict.fromkeys(KeyRecord.__struct_fields__),
            "access_key": "lka_1",
            "user_id": 1,
            "name": "n",
            "mode": "bearer",
            "scopes": (),
            "roles": (),
            "role_scopes": (),
            "allowed_networks": (),
            "limits": (),
            "has_credits": False,
            "status": "active",
            "secret_version": 2,
            "old_secret_calls": 0,
            "expires_at": key_ends_at,
            "created_at": ROTATED,
            "updated_at": ROTATED,
        },
        KeyRecord,
    )
    return Found(key_id=1, key=key, user=None, secrets=(NEW, OLD))  # type: ignore[arg-type]  # nobody asks


def test_the_headers_are_of_the_forms_of_their_rfcs() -> None:
    """A structured-field date (RFC 9745) and an IMF-fixdate (RFC 8594), neither later than the actual time."""
    assert Retirement(1, ROTATED, END).headers() == [
        (b"deprecation", b"@1767225600"),
        (b"sunset", b"Thu, 08 Jan 2026 00:00:00 GMT"),
    ]


def test_a_moment_in_another_zone_is_told_in_gmt() -> None:
    east = timezone(timedelta(hours=5, minutes=30))

    assert Retirement(1, ROTATED, END.astimezone(east)).headers() == Retirement(1, ROTATED, END).headers()


def test_the_current_secret_is_told_nothing() -> None:
    assert retirement_of(found(), NEW) is None
    assert retirement_headers({"type": "http", "state": {"retirement": None}}) == []
    assert retirement_headers({"type": "http"}) == []


@pytest.mark.parametrize(
    "key_ends_at, ends_at",
    [
        pytest.param(None, END, id="a key that never ends"),
        pytest.param(END + timedelta(seconds=1), END, id="a key that ends later"),
        pytest.param(END - timedelta(seconds=1), END - timedelta(seconds=1), id="a key that ends before"),
    ],
)
def test_an_old_secret_is_told_since_when_and_until_when(
    key_ends_at: datetime | None, ends_at: datetime
) -> None:
    assert retirement_of(found(key_ends_at), OLD) == Retirement(1, ROTATED, ends_at)
