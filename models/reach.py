"""Read the rows of a relation to many for many parent rows at once."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import BindParameter, Select, and_, bindparam, select, tuple_
from sqlalchemy.orm import RelationshipProperty, aliased

from latchkey.models.fields import Field

KEYS = "keys"  # the name of the parameter with the keys of the parent rows
MOST_KEYS = 2**14  # in one statement; the maximum length of a list


class Reach(msgspec.Struct, frozen=True):
    """The way from rows to the related rows."""

    relation: RelationshipProperty[Any]
    names: Sequence[str]
    """The attributes that identify a row at the other end."""
    columns: Sequence[Any]
    """The columns with their values at the other end."""
    parent: Any = None
    """An alias of the row's own table, if the other end does not have these values."""

    def select(self, columns: Sequence[Any]) -> Select[Any]:
        """Return a SELECT of columns of the rows that belong to some keys, in the order that the relation declares."""
        relation = self.relation
        found: Select[Any] = select(*columns)
        if self.parent is not None:
            found = found.select_from(self.parent).join(getattr(self.parent, relation.key))
        else:
            found = found.select_from(relation.mapper.class_)
            if relation.secondary is not None:
                found = found.join(relation.secondary, relation.secondaryjoin)
        keys: BindParameter[Any] = bindparam(KEYS, expanding=True)
        one = self.columns[0] if len(self.columns) == 1 else tuple_(*self.columns)
        return found.where(one.in_(keys)).order_by(*(relation.order_by or ()))


def reach_of(field: Field, relation: RelationshipProperty[Any]) -> Reach:
    """Return the `Reach` of a relation.

    In most relations a foreign key connects the rows, directly or in a table between. For other relations, the row's own
    table is joined again.

    Raises:
        StructError: the relation's rows cannot be read for many rows at once.
    """
    if relation.entity is not relation.mapper:
        raise field.error("the relation leads to an aliased class; declare a relation to the class itself.")
    pairs = relation.synchronize_pairs
    if pairs and relation.primaryjoin.compare(and_(*(local == remote for local, remote in pairs))):
        return Reach(
            relation=relation,
            names=[relation.parent.get_property_by_column(local).key for local, _ in pairs],
            columns=[remote for _, remote in pairs],
        )
    between = relation.secondary
    if between is not None and any(
        between.is_derived_from(table)
        for one in relation.order_by or ()
        for table in one._from_objects  # noqa: SLF001
    ):
        raise field.error("the relation is sorted by the table between, and has its own join condition.")
    parent = aliased(relation.parent.class_)
    names = [relation.parent.get_property_by_column(column).key for column in relation.parent.primary_key]
    return Reach(
        relation=relation, names=names, columns=[getattr(parent, name) for name in names], parent=parent
    )
