"""Reading what was never loaded is an error that names the attribute and the fix (R11).

SQLAlchemy would load it on the spot, which needs an await that is not there, and says so in words that do
not name the attribute. Both places where it starts such a load are a function that can be exchanged: one
for the columns of a class, one for each relation.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Mapper
from sqlalchemy.util.concurrency import in_greenlet

from models.errors import NotLoadedError


def raise_by_name(mapper: Mapper[Any], model: type[Any]) -> None:
    """Exchange the loaders of a model; for SQLAlchemy's event `mapper_configured`."""
    manager = mapper.class_manager
    columns = set(mapper.column_attrs.keys())
    manager.expired_attribute_loader = _columns(model, columns, manager.expired_attribute_loader)
    for relation in mapper.relationships:
        if relation.lazy == "raise":
            attribute: Any = getattr(model, relation.key).impl
            attribute.callable_ = _relation(str(relation), relation.key, attribute.callable_)


def _columns(model: type[Any], columns: set[str], load: Callable[..., Any]) -> Callable[..., Any]:
    def load_or_raise(state: Any, names: set[str], passive: Any) -> Any:
        # Inside an await of the session there is one who waits for the load: a flush that needs a key.
        if state.session is None or not in_greenlet():
            missing = sorted(names & columns)
            raise NotLoadedError(", ".join(f"{model.__name__}.{name}" for name in missing))
        return load(state, names, passive)

    return load_or_raise


def _relation(what: str, name: str, load: Callable[..., Any]) -> Callable[..., Any]:
    def load_or_raise(state: Any, passive: Any) -> Any:
        try:
            return load(state, passive)
        except InvalidRequestError:
            fix = f"name it in the query, `.load({name!r})`, or `await instance.refresh({name!r})`"
            raise NotLoadedError(what, fix) from None

    return load_or_raise
