"""Keys of every state, and a fixed clock."""

from datetime import UTC, datetime

import pytest
from starlette.applications import Starlette

from latchkey.models import User
from tests.api import HeldKey, hold_key, rotate_held
from tests.service.authentication.signed_requests import NOW, HeldKeys, unknown_key

DAY_S = 24 * 60 * 60


@pytest.fixture
async def held_keys(app: Starlette, operator: HeldKey, signer: HeldKey) -> HeldKeys:
    """Return the keys; the clock of the application is fixed at NOW."""
    app.state.latchkey.verifier.clock = lambda: float(NOW)
    past = datetime.fromtimestamp(NOW, UTC)
    others = {
        f"{name}{'_signer' if mode == 'signed' else ''}": await hold_key(
            app,
            mode=mode,
            email="blocked@example.com" if name == "blocked" else "operator@example.com",
            status="revoked" if name == "revoked" else "active",
            expires_at=past if name in {"revoked", "expired"} else None,
        )
        for name in ("revoked", "expired", "blocked")
        for mode in ("bearer", "signed")
    }
    async with app.state.db.scoped_session() as session:
        blocked = await User.filter(email="blocked@example.com").one()
        await blocked.update(status="blocked")
        await session.commit()
    return HeldKeys(
        bearer=operator,
        signer=signer,
        unscoped_signer=await hold_key(app, mode="signed", scopes=[]),
        rotated=await rotate_held(app, await hold_key(app, mode="signed"), grace_s=30 * DAY_S),
        unknown=unknown_key(),
        **others,
    )
