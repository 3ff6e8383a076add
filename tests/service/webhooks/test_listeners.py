"""An event is left out only if nobody listens to it, by a recent reading."""

from starlette.applications import Starlette

from latchkey.service.outbox.listeners import SETTLING_S, TRUSTED_S, Listeners
from tests.service.webhooks.rows import hold_webhook


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_was_never_read_may_listen() -> None:
    listeners = Listeners(Clock())

    assert listeners.may_listen("key.created")
    assert not listeners.none


def test_a_reading_is_trusted_for_a_time() -> None:
    listeners = Listeners(clock := Clock())
    listeners.note([("key.revoked",)])

    assert listeners.may_listen("key.revoked")
    assert not listeners.may_listen("key.created")
    clock.now += TRUSTED_S
    assert listeners.may_listen("key.created")


def test_a_webhook_without_a_filter_listens_to_everything() -> None:
    listeners = Listeners(Clock())
    listeners.note([("key.revoked",), ()])

    assert listeners.may_listen("user.deleted")


def test_a_reading_from_before_a_change_is_not_trusted() -> None:
    listeners = Listeners(clock := Clock())
    listeners.note([])
    assert listeners.none

    listeners.forget()
    listeners.note([])
    assert not listeners.none
    clock.now += SETTLING_S
    listeners.note([])
    assert listeners.none


async def test_the_enabled_webhooks_are_read(app: Starlette) -> None:
    listeners = Listeners()
    await listeners.read(app.state.db.reader)
    assert listeners.none

    await hold_webhook(app, 1, events=["key.revoked"])
    await hold_webhook(app, 2, enabled=False)
    await listeners.read(app.state.db.reader)

    assert listeners.may_listen("key.revoked")
    assert not listeners.may_listen("key.created")
