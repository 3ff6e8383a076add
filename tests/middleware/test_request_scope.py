"""A request scope knows the sessions and the tasks of its request, and nothing after the request has ended (R7)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from latchkey.middleware.request_scope import RequestScope
from latchkey.middleware.session_errors import (
    ChildWriteError,
    EndedRequestError,
    SettledSessionError,
    UnwrittenWorkError,
)


class Session:
    """A session that records its calls."""

    def __init__(
        self, *, unwritten: str | None = None, on_writer: bool = False, streaming: bool = False
    ) -> None:
        self.unwritten = unwritten
        self.on_writer = on_writer
        self.is_streaming = streaming
        self.calls: list[str] = []

    @property
    def idle(self) -> bool:
        return self.unwritten is None

    async def settle(self, *, is_streamed: bool = False) -> None:
        self.calls.append(f"settle {is_streamed}")

    async def rollback(self) -> None:
        self.calls.append("rollback")

    async def end(self) -> None:
        self.calls.append("end")
        scope = RequestScope.current()
        if scope is not None:
            scope.sessions.pop(self, None)

    async def release_connection(self, *, ends_streams: bool = False) -> None:
        self.calls.append(f"release {ends_streams}")

    def refuse_further_use(self) -> None:
        self.calls.append("refuse")


def this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


@pytest.fixture
async def scope() -> AsyncIterator[RequestScope]:
    with RequestScope(this_task()) as scope:
        yield scope


async def test_the_first_session_of_the_task_is_the_request_s_own() -> None:
    scope = RequestScope(this_task())
    own, second, foreign = Session(), Session(), Session()
    other = asyncio.create_task(asyncio.sleep(0))

    assert not RequestScope(this_task()).register(foreign, other)
    assert scope.register(own, this_task())
    assert not scope.register(second, this_task())
    assert not scope.register(foreign, other)
    assert scope.session is own
    assert scope.sessions == {second: this_task(), foreign: other}
    await other


async def test_it_is_current_until_it_has_ended() -> None:
    """A task that outlives the request keeps its context."""
    may_look = asyncio.Event()

    async def look() -> RequestScope | None:
        await may_look.wait()
        return RequestScope.current()

    assert RequestScope.current() is None
    with RequestScope(this_task()) as scope:
        assert RequestScope.current() is scope
        with RequestScope.outside():
            assert RequestScope.current() is None
        assert RequestScope.current() is scope
        late = asyncio.create_task(look())
        scope.session = Session()
    may_look.set()

    assert RequestScope.current() is None
    assert await late is None
    assert scope.session is None


async def test_a_task_is_admitted_until_the_request_ends() -> None:
    async def use_again() -> None:
        RequestScope.admit(this_task())
        await asyncio.sleep(0)
        RequestScope.admit(this_task())

    async def use_late() -> None:
        await asyncio.sleep(0)
        RequestScope.admit(this_task())

    RequestScope.admit(this_task())  # outside of a request
    with RequestScope(this_task()) as scope:
        RequestScope.admit(this_task())
        early, late = asyncio.create_task(use_again()), asyncio.create_task(use_late(), name="late")
        await asyncio.sleep(0)
        assert scope.children == {early}
        assert scope.close()
        await early
        with pytest.raises(EndedRequestError, match="'late'"):
            await late
        assert not scope.close()
        assert scope.children == {early}
        RequestScope.admit(this_task())


@pytest.mark.parametrize(
    ("status", "calls"), [(399, ["settle True", "refuse"]), (400, ["rollback", "refuse"])]
)
async def test_it_settles_once(status: int, calls: list[str], caplog: pytest.LogCaptureFixture) -> None:
    scope = RequestScope(this_task())
    await scope.settle(status)
    assert not scope.settled
    session = scope.session = Session(unwritten="User")
    await scope.settle(status)
    await scope.settle(status)

    assert session.calls == calls
    assert scope.settled
    assert ("drops changes: User" in caplog.text) is (status == 400)


async def test_an_idle_session_is_only_refused_afterwards() -> None:
    scope = RequestScope(this_task())
    session = scope.session = Session()
    await scope.settle(500)

    assert session.calls == ["refuse"]


async def test_the_connection_is_released_for_the_own_task_until_the_answer() -> None:
    scope = RequestScope(this_task())
    await scope.release_connection()
    session = scope.session = Session()
    await asyncio.create_task(scope.release_connection())
    assert session.calls == []
    await scope.release_connection()
    assert session.calls == ["release False"]
    scope.settled = True
    await scope.release_connection()
    assert session.calls == ["release False"]


@pytest.mark.parametrize("is_last", [True, False])
async def test_late_connections_are_released_by_their_own_task(is_last: bool) -> None:
    scope = RequestScope(this_task())
    other = asyncio.create_task(asyncio.sleep(0))
    own, late, foreign = Session(unwritten="rows"), Session(), Session()
    scope.session = own
    scope.sessions = {late: this_task(), foreign: other}
    await scope.release_late_connections(is_last=is_last)

    assert (own.calls, late.calls, foreign.calls) == ([f"release {is_last}"], ["release False"], [])
    own.unwritten = None
    await scope.release_late_connections(is_last=is_last)
    assert (len(own.calls), len(late.calls)) == (1, 2)
    await other


@pytest.mark.parametrize("place", ["own", "late"])
async def test_it_streams_while_one_of_its_sessions_does(place: str) -> None:
    scope = RequestScope(this_task())
    assert not scope.is_streaming
    own, late = Session(streaming=place == "own"), Session(streaming=place == "late")
    scope.session = own
    scope.sessions = {late: this_task()}

    assert scope.is_streaming
    own.is_streaming = late.is_streaming = False
    assert not scope.is_streaming


async def test_a_child_may_write_unless_the_request_holds_the_writer() -> None:
    scope = RequestScope(this_task())
    scope.allow_write(this_task())
    scope.session = Session()
    scope.allow_write(this_task())
    scope.session = Session(on_writer=True)
    with pytest.raises(ChildWriteError, match=this_task().get_name()):
        scope.allow_write(this_task())


async def failing() -> None:
    raise LookupError


@pytest.mark.parametrize("is_lost", [True, False], ids=["succeeds", "fails"])
@pytest.mark.parametrize("settled", [True, False])
async def test_uncommitted_work_of_a_child_is_noted_once(
    is_lost: bool, settled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    scope = RequestScope(this_task())
    scope.settled = settled
    session = Session(unwritten="User")
    child = asyncio.create_task(asyncio.sleep(0) if is_lost else failing(), name="careless")
    scope.sessions = {session: child}
    scope.require_written()
    await asyncio.wait([child])
    child.exception()
    for _ in range(2):
        if is_lost:
            with pytest.raises(UnwrittenWorkError, match="'careless' ended without committing User"):
                scope.require_written()
        else:
            scope.require_written()

    assert caplog.text.count("'careless'") == int(is_lost and settled)


async def test_it_waits_for_its_children_and_closes_their_sessions(scope: RequestScope, caplog: Any) -> None:
    async def work() -> None:
        RequestScope.admit(this_task())
        await asyncio.sleep(60)

    working, own = Session(unwritten="User"), Session()
    child = asyncio.create_task(work(), name="slow")
    await asyncio.sleep(0)
    scope.sessions = {working: child, own: this_task()}
    assert scope.close()
    await scope.finish()

    assert child.cancelled()
    assert (working.calls, own.calls) == (["end"], ["end"])
    assert "ended before its child task 'slow' committed User" in caplog.text
    assert not scope.close()


async def test_it_waits_for_sessions_that_are_closing(scope: RequestScope) -> None:
    ended: list[bool] = []

    async def end() -> None:
        await asyncio.sleep(0.01)
        ended.append(True)

    closing = asyncio.create_task(end())
    scope.closing.add(closing)
    closing.add_done_callback(scope.closing.discard)
    assert scope.close()
    await scope.finish()

    assert ended == [True]


def test_the_error_after_the_answer_names_what_to_open() -> None:
    assert "async with db.scoped_session()" in str(SettledSessionError())
