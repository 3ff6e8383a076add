"""One new instance is inserted past the unit of work, with the same effect.

A unit of work puts many changes that depend on each other in order. A request that creates something mostly flushes
one instance with nothing around it, and the ordering costs it several times what its INSERT does.
"""

import dataclasses
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
from sqlalchemy import Column, Dialect, Table, bindparam, insert, inspect
from sqlalchemy.orm import InstanceState, Mapper, Session
from sqlalchemy.orm.unitofwork import UOWTransaction
from sqlalchemy.sql import ClauseElement

from service.prepared import Prepared


class Insertion(msgspec.Struct, frozen=True):
    """The INSERT of values for some attributes."""

    prepared: Prepared
    returned: tuple[str, ...]
    """The attributes that it brings back."""


class Inserter:
    """Makes the INSERTs of one model.

    `fits` is whether it can: an instance is one row of one table whose columns are all attributes, its key comes from
    the database, and whatever else is not given does too, or is the same for every row. Any other model is left to
    the unit of work.
    """

    def __init__(self, mapper: Mapper[Any]) -> None:
        self.table: Any = mapper.local_table
        self.relations = frozenset(mapper.relationships.keys())
        self.columns: dict[str, Any] = {one.key: one.columns[0] for one in mapper.column_attrs}
        self.decided = frozenset(name for name, one in self.columns.items() if is_decided(one))
        self.key = frozenset(mapper.get_property_by_column(one).key for one in mapper.primary_key)
        self.fits = (
            isinstance(self.table, Table)
            and self.table.implicit_returning
            and mapper.inherits is None
            and mapper.polymorphic_on is None
            and mapper.version_id_col is None
            and mapper.eager_defaults == "auto"
            and not dataclasses.is_dataclass(mapper.class_)  # which has defaults of its own
            and all(len(one.columns) == 1 for one in mapper.column_attrs)
            and set(self.columns.values()) == set(self.table.columns)
            and all(map(is_plain, self.columns.values()))
            and self.key <= self.decided
        )
        self.defaults = {
            name: one.default.arg
            for name, one in self.columns.items()
            if self.fits and one.default is not None and name not in self.decided
        }
        self._absent = dict.fromkeys(self.columns.keys() - self.decided) | self.defaults
        self._insertions: dict[frozenset[str], Insertion] = {}

    def values_of(self, state: InstanceState[Any]) -> dict[str, Any] | None:
        """Return what is to be inserted, by attribute; None when there is more to it than plain values."""
        held = state.dict
        if not (self.relations.isdisjoint(held) and self.relations.isdisjoint(state.committed_state)):
            return None
        values = dict(self._absent)
        for name in self.columns.keys() & held.keys():
            value = held[name]
            if value is None:
                continue
            if name in self.key or isinstance(value, ClauseElement) or hasattr(value, "__clause_element__"):
                return None
            values[name] = value
        return values

    def insertion_of(self, names: frozenset[str]) -> Insertion:
        """Return the INSERT of values for these attributes."""
        found = self._insertions.get(names)
        if found is None:
            # As the unit of work has it: of what has a default in the database all is brought back, or none.
            missing = self.key if self.decided <= self.key | names else self.decided
            returned = tuple(name for name in self.columns if name in missing)
            values = {self.columns[name]: bindparam(name, type_=self.columns[name].type) for name in names}
            statement = (
                insert(self.table).values(values).returning(*(self.columns[name] for name in returned))
            )
            found = self._insertions[names] = Insertion(Prepared(statement), returned)
        return found


def is_of_table(column: Any) -> bool:
    """Tell a column of a table from an expression, and from a column of a subquery."""
    return isinstance(column, Column) and isinstance(column.table, Table)


def is_plain(column: Any) -> bool:
    """Tell whether a column takes values and what the database decides, and None is NULL."""
    return (
        is_of_table(column)
        and column.computed is None
        and column.identity is None
        and not column.type.should_evaluate_none
        and (column.default is None or column.default.is_scalar or column.default.is_clause_element)
    )


def is_decided(column: Any) -> bool:
    """Tell whether the database has a value for a column that is not given."""
    return is_of_table(column) and (
        column is column.table.autoincrement_column
        or column.server_default is not None
        or (column.default is not None and column.default.is_clause_element)
    )


_inserters: WeakKeyDictionary[Mapper[Any], Inserter] = WeakKeyDictionary()


def insert_lone(session: Session, dialect: Dialect) -> bool:
    """Write the one new instance that is all there is to flush; False, and nothing is done, when it is anything else.

    It goes the way of `Session._flush`: who listens is told, instance and transaction are left as they are after a
    flush, and when the INSERT fails the transaction wants to be rolled back.
    """
    new = session.new
    if len(new) != 1 or session.deleted or session.identity_map.check_modified():
        return False
    (instance,) = new
    state: InstanceState[Any] = inspect(instance)
    inserter = _inserters.get(state.mapper)
    if inserter is None:
        inserter = _inserters[state.mapper] = Inserter(state.mapper)
    if not (inserter.fits and dialect.insert_returning) or has_listeners(session, state.mapper):
        return False
    values = inserter.values_of(state)
    if values is None:
        return False
    insertion = inserter.insertion_of(frozenset(values))
    plan = insertion.prepared.plan_for(dialect)
    try:
        given = plan.give(values)
    except Exception:  # noqa: BLE001 - a value that no column takes: the unit of work says so in its own words
        return False
    transaction = session._autobegin_t()._begin()  # noqa: SLF001 - as a flush does
    try:
        result = transaction.connection(state.mapper).exec_driver_sql(plan.sql, given)
        state.dict.update({name: values[name] for name in inserter.defaults})
        state.dict.update(zip(insertion.returned, plan.read(result.one()), strict=True))
        session.dispatch.after_flush(session, UOWTransaction(session))
        session._register_persistent({state})  # noqa: SLF001 - as above
        transaction.commit()
    except BaseException:
        transaction.rollback(_capture_exception=True)
        raise
    return True


def has_listeners(session: Session, mapper: Mapper[Any]) -> bool:
    """Tell whether anybody listens to what only a unit of work tells."""
    return bool(
        session.dispatch.before_flush
        or session.dispatch.after_flush_postexec
        or mapper.dispatch.before_insert
        or mapper.dispatch.after_insert
        or mapper.class_manager.dispatch.refresh_flush
    )
