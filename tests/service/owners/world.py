"""A user with personal data wherever the service stores some."""

from typing import Any

from sqlalchemy import insert, text
from starlette.applications import Starlette

from latchkey.models import Base, UsageCount, UsageSeries
from latchkey.models.usage import DAY
from latchkey.service.owners.erasure import Erased, Erasure
from latchkey.service.parts import parts_of
from latchkey.service.users import delete, lock_user
from tests.api import call, hold_key
from tests.conftest import table_of
from tests.service.webhooks.rows import hold_webhook

EMAIL, FORMER_EMAIL, OTHER_EMAIL = "Petra.Private@example.com", "petra@old.example", "bob@example.com"
PERSONAL = (
    *("etra.", "petra@", "Petra", "Pseudonym"),
    *("ext-private", "ext-former", "meta-private", "laptop-private", "key-private", "192.0.2.77"),
    "tag-private",
)
"""Texts of which none may be left."""


class World:
    """The user, one of its keys, and a key of the operator."""

    def __init__(self, app: Starlette) -> None:
        self.app = app

    async def fill(self) -> None:
        """Create the user, change it, let it call, and count its calls."""
        await hold_webhook(self.app, 1)
        self.operator = await hold_key(self.app)
        created = await self.make_user()
        assert created.status == 201, created.body
        self.user_id = int(created.json["id"])
        other = await call(
            self.app,
            "POST",
            "/v1/users",
            key=self.operator,
            body={"email": OTHER_EMAIL, "name": "Bob", "external_id": "ext-of-bob"},
            headers=[("idempotency-key", "bob")],
        )
        assert other.status == 201
        changed = await call(
            self.app,
            "PATCH",
            f"/v1/users/{self.user_id}",
            key=self.operator,
            body={"email": EMAIL, "name": "Petra Pseudonym", "external_id": "ext-private"},
            headers=[("idempotency-key", "change")],
        )
        assert changed.status == 200, changed.body
        self.key = await hold_key(
            self.app, email=EMAIL, scopes=["me.keys:write", "me.keys:read", "keys:read"]
        )
        self.of_key = await self.make_key()
        own = await call(
            self.app,
            "POST",
            "/v1/me/keys",
            key=self.key,
            body={"name": "laptop-private", "mode": "bearer", "scopes": []},
            headers=[("idempotency-key", "own")],
        )
        assert own.status == 201, own.body
        await self.count_calls()
        await parts_of(self.app).sealer.seal()

    async def make_user(self) -> Any:
        """Create the user by an idempotent call."""
        return await call(
            self.app,
            "POST",
            "/v1/users",
            key=self.operator,
            body={
                "email": FORMER_EMAIL,
                "name": "Petra",
                "external_id": "ext-former",
                "meta": {"note": "meta-private"},
            },
            headers=[("idempotency-key", "create")],
        )

    async def make_key(self) -> str:
        """Create a key of the user as the operator, and return its access key."""
        made = await call(
            self.app,
            "POST",
            "/v1/keys",
            key=self.operator,
            body={
                "user_id": self.user_id,
                "name": "key-private",
                "mode": "signed",
                "scopes": ["users:read"],
                "external_id": "key-private",
                "allowed_networks": ["192.0.2.77/32"],
                "meta": {"note": "meta-private"},
            },
            headers=[("idempotency-key", "key")],
        )
        assert made.status == 201, made.body
        return str(made.json["access_key"])

    async def count_calls(self) -> None:
        """Store usage of the user's key, with two tags."""
        series = [
            {"id": number, "digest": number.to_bytes(32), "key_id": self.key.id, "route": "verify", "status": 200, "code": "", "tags": tags}
            for number, tags in ((901, "tag-private"), (902, "tag-private blue"))
        ]  # fmt: skip
        counts = [
            {"minutes": DAY, "key_id": self.key.id, "start": 29_000_160, "series_id": one, "calls": 3, "units": 3}
            for one in (901, 902)
        ]  # fmt: skip
        async with self.app.state.db.engine.begin() as connection:
            await connection.execute(insert(table_of(UsageSeries)), series)
            await connection.execute(insert(table_of(UsageCount)), counts)

    async def delete(self) -> None:
        """Delete the user, as the command does first."""
        async with self.app.state.db.scoped_session() as session:
            user = await lock_user(self.user_id)
            assert user is not None
            if user.status != "deleted":
                await delete(user)
            await session.commit()

    def erasure(self) -> Erasure:
        """Return the erasure of the user."""
        parts = parts_of(self.app)
        return Erasure(self.app.state.db, parts.keyring, parts.sealer, self.user_id)

    async def erase(self) -> Erased:
        """Delete the user and erase its data."""
        await self.delete()
        return await self.erasure().run()

    async def left(self) -> list[tuple[str, str]]:
        """Return the personal texts that the database contains, each with its table."""
        found = []
        async with self.app.state.db.reader.connect() as connection:
            for table in Base.metadata.sorted_tables:
                rows = (await connection.execute(text(f"SELECT * FROM {table.name}"))).all()
                content = b"\n".join(as_bytes(value) for row in rows for value in row).decode("latin-1")
                found += [(table.name, one) for one in PERSONAL if one in content]
        return found


def as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
