"""The columns whose values are encrypted with the key ring.

A column that is missing here keeps the old ring key in use unnoticed; a test compares the list with the tables.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import msgspec
from sqlalchemy import ColumnElement, Row, Select, Table, Update, bindparam, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from latchkey.models import ApiKey, KeySecret, Webhook
from latchkey.service.authentication.canary import range_of
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.authentication.wire.credentials import AccessKey
from latchkey.service.webhooks.rules import context

WINDOW_IDS = 100_000  # that one statement reads at most; a scan of a large table is many short statements

_KEYS = cast("Table", ApiKey.__table__)
_SECRETS = cast("Table", KeySecret.__table__)
_WEBHOOKS = cast("Table", Webhook.__table__)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A column of encrypted values.

    Args:
        noun: what the values are, in the plural.
        column: the column.
        key: the primary key of its table; the first column is a number.
        rows: selects the primary key, the value as `sealed`, and what `encrypt` and `name` need.
        encrypt: returns the value of a row, decrypted and encrypted with the first key of a ring.
        name: returns a name of the value for people.
    """

    noun: str
    column: ColumnElement[Any]
    key: Sequence[ColumnElement[Any]]
    rows: Select[Any]
    encrypt: Callable[[KeyRing, Row[Any]], bytes]
    name: Callable[[Row[Any]], str]

    def not_of(self, key_id: int) -> ColumnElement[bool]:
        """Return the condition for values that are not encrypted with a key of the ring."""
        first, following = range_of(key_id)
        return or_(self.column < first, self.column >= following)

    def replacement(self) -> Update:
        """Return the UPDATE that replaces the value `old_value` of a row by `new_value`, unless it has changed since.

        The parameters `key_0` and so on are the primary key.
        """
        table = cast("Table", self.column.table)
        values: dict[str, Any] = {self.column.name: bindparam("new_value")}
        if "updated_at" in table.c:
            values["updated_at"] = table.c.updated_at  # another encryption is no change of the row
        is_row = [column == bindparam(f"key_{place}") for place, column in enumerate(self.key)]
        return update(table).where(*is_row, self.column == bindparam("old_value")).values(values)


def _encrypt_key_secret(keyring: KeyRing, row: Row[Any]) -> bytes:
    access_key = AccessKey(row.access_key)
    secret = keyring.open_secret(bytes(row.sealed), access_key, row.version)
    return keyring.seal_secret(secret, access_key, row.version)


def _encrypt_webhook_secret(keyring: KeyRing, row: Row[Any]) -> bytes:
    data = context(row.id, row.of_version)
    return keyring.seal(keyring.open(bytes(row.sealed), data), data)


def _of_webhooks(noun: str, column: ColumnElement[Any], version: ColumnElement[Any]) -> Place:
    return Place(
        noun=noun,
        column=column,
        key=(_WEBHOOKS.c.id,),
        rows=select(_WEBHOOKS.c.id, version.label("of_version"), column.label("sealed")),
        encrypt=_encrypt_webhook_secret,
        name=lambda row: f"the secret of webhook {row.id}, version {row.of_version}",
    )


PLACES = (
    Place(
        noun="secrets of keys",
        column=_SECRETS.c.sealed,
        key=(_SECRETS.c.api_key_id, _SECRETS.c.version),
        rows=select(_SECRETS.c.api_key_id, _SECRETS.c.version, _KEYS.c.access_key, _SECRETS.c.sealed).join(
            _KEYS, _KEYS.c.id == _SECRETS.c.api_key_id
        ),
        encrypt=_encrypt_key_secret,
        name=lambda row: f"the secret of {row.access_key}, version {row.version}",
    ),
    _of_webhooks("secrets of webhooks", _WEBHOOKS.c.sealed, _WEBHOOKS.c.secret_version),
    _of_webhooks("replaced secrets of webhooks", _WEBHOOKS.c.old_sealed, _WEBHOOKS.c.secret_version - 1),
)


async def windows(
    connection: AsyncConnection, number: ColumnElement[Any]
) -> AsyncIterator[ColumnElement[bool]]:
    """Yield conditions that together match each row once, by ranges of an indexed number; a gap costs nothing."""
    last = 0
    while True:
        following = select(func.min(number)).where(number > last)
        first = (await connection.execute(following)).scalar()
        if first is None:
            return
        last = first + WINDOW_IDS - 1
        yield number.between(first, last)
