"""Raise an error that names the attribute and the fix when code reads an attribute that was never loaded (R11).

SQLAlchemy would load the attribute at once, which needs an await that is not there, and its error does not name the
attribute. It starts such a load in one of three places, and each is a function that can be replaced: one for the
expired columns of a class, one for each relation and each deferred column, and one that a query stores in an
instance, for a column that the query did not select.

Models of any base are covered. Inside an await of a session, as in `session.run_sync`, SQLAlchemy loads as usual,
and so does a plain `Session`.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import InvalidRequestError, MissingGreenlet
from sqlalchemy.orm import Mapper, PassiveFlag
from sqlalchemy.orm.exc import DetachedInstanceError
from sqlalchemy.util.concurrency import in_greenlet

from latchkey.models import hooks
from latchkey.models.errors import NotLoadedError

BEFORE_READ = "before it is read"


def raise_by_name(mapper: Mapper[Any], model: type[Any]) -> None:
    """Replace the loaders of a model; for SQLAlchemy's event `mapper_configured`."""
    manager = mapper.class_manager
    columns = set(mapper.column_attrs.keys())
    manager.expired_attribute_loader = _expired(model, columns, manager.expired_attribute_loader)
    for key in (*columns, *mapper.relationships.keys()):
        attribute: Any = getattr(manager[key], "impl", None)
        load = getattr(attribute, "callable_", None)
        if load is not None and not isinstance(load, Loader):
            attribute.callable_ = Loader(key, load)
    event.listen(model, "load", name_left_out, raw=True)
    event.listen(model, "refresh", name_left_out, raw=True)


def name_left_out(state: Any, *_: Any) -> None:
    """Replace the loaders that a query stored in one instance; for the events `load` and `refresh`."""
    if "callables" in state.__dict__:
        for key, load in state.callables.items():
            if not isinstance(load, Loader):
                state.callables[key] = Loader(key, load)


class Loader:
    """Loads one attribute where that is possible, and raises an error with its name otherwise; pickled with the instance."""

    def __init__(self, key: str, load: Callable[..., Any]) -> None:
        self.key = key
        self.load = load

    def __call__(self, state: Any, passive: Any = PassiveFlag.PASSIVE_OFF) -> Any:
        """Load the attribute, or raise `NotLoadedError`."""
        try:
            return self.load(state, passive)
        except (DetachedInstanceError, MissingGreenlet, NotLoadedError):
            pass
        except InvalidRequestError as error:
            if "is not available due to" not in str(error):  # lazy="raise", raiseload=True
                raise
        before = "before it is assigned, which needs its current value" if assigns(passive) else BEFORE_READ
        raise NotLoadedError(f"{state.class_.__name__}.{self.key}", f"{self._fix(state)} {before}")

    def _fix(self, state: Any) -> str:
        is_relation = self.key in state.mapper.relationships
        if not hasattr(state.class_, "set_session"):
            again = f"`await session.refresh(instance, [{self.key!r}])`"
            return (
                f"load it in the query, or {again}" if is_relation else f"undefer it in the query, or {again}"
            )
        again = f"`await instance.refresh({self.key!r})`"
        if is_relation:
            return f"name it in the query, `.load({self.key!r})`, or {again}"
        return f"undefer it in the query, or {again}"


def _expired(model: type[Any], columns: set[str], load: Callable[..., Any]) -> Callable[..., Any]:
    """Return a loader of expired attributes that raises an error with their names outside an await.

    Inside an await it loads them, as for a flush that needs a key.
    """

    def load_or_raise(state: Any, names: set[str], passive: Any) -> Any:
        if state.session is None or (state.async_session is not None and not in_greenlet()):
            missing = [f"{model.__name__}.{name}" for name in sorted(names & columns)]
            raise NotLoadedError(", ".join(missing), fix_of_expired(state, names & columns))
        return load(state, names, passive)

    return load_or_raise


def fix_of_expired(state: Any, names: set[str]) -> str:
    """Return how to load columns that a flush, a rollback or `expire` has unloaded."""
    if not hasattr(state.class_, "set_session"):
        return f"`await session.refresh(instance)` {BEFORE_READ}"
    if state.expired:  # as a whole, which no write does
        return f"`await instance.refresh()` {BEFORE_READ}"
    again = "`await instance.refresh()`, or pass refresh=True to the verb that wrote it,"
    if state.session is not None and all(hooks.awaits_refresh(state.session, state, name) for name in names):
        return f"it is selected again before COMMIT; to read it earlier, {again.rstrip(',')}"
    return f"{again} {BEFORE_READ}"


def assigns(passive: PassiveFlag) -> bool:
    """Return whether an attribute is loaded only because a value is assigned to it; a read has no special flags."""
    return passive != PassiveFlag.PASSIVE_OFF
