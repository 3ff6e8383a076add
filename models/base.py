"""The base of every model: its session, its verbs, its hooks."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Self, overload

from sqlalchemy import MetaData, event, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import DeclarativeBase, Mapper, RelationshipDirection

from latchkey.models import bounds, hooks, loading, names, unique
from latchkey.models.binding import belongs_to_class, belongs_to_instance
from latchkey.models.errors import (
    ForeignSessionError,
    LostWriteError,
    MissingRowsError,
    NotARowError,
    NotInitialisedError,
    UnknownLookupError,
)
from latchkey.models.lookups import identified, require_name
from latchkey.models.query import Query
from latchkey.models.steps import Condition
from latchkey.models.table_options import OPTIONS, with_options

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

NEVER_LOADED = frozenset({"dynamic", "write_only"})
"""Values of `lazy` for collections that are changed without being loaded."""


class Base(DeclarativeBase):
    """The base class of models, with the verbs that read and write rows.

    Every verb finds its session in `resolve`: the argument `session`; otherwise the session that `set_session` gave the
    instance; otherwise the session of the task; otherwise a new one that ends with the verb (R9).
    """

    metadata = MetaData(naming_convention=NAMES)
    __table_args__: Any = dict(OPTIONS)  # noqa: RUF012 - SQLAlchemy reads it, nobody changes it

    scoped_session: ClassVar[async_scoped_session[Any] | None] = None
    """The sessions of the open database; set by `db.init_app`, and reset by `db.close`."""

    refresh_on_commit: ClassVar[bool | tuple[str, ...]] = False
    """The attributes that one SELECT reads again before COMMIT: none, those unloaded after the flush, or these names."""

    runs_in_doubt: ClassVar[bool] = False
    """Whether the after-commit hook also runs when the outcome of the COMMIT is unknown."""

    _served_by: AsyncSession | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Complete the options of the table, and refuse attributes that the verbs could not access."""
        if "__table_args__" in vars(cls):
            cls.__table_args__ = with_options(cls.__table_args__)
        super().__init_subclass__(**kwargs)
        names.require_free(cls, Base, ARGUMENTS)

    # ------------------------------------------------------------------ sessions

    @classmethod
    @asynccontextmanager
    async def resolve(cls, session: AsyncSession | None = None) -> AsyncIterator[AsyncSession]:
        """Yield the session for a verb, and close it afterwards only if it was opened here."""
        if session is not None:
            yield session
            return
        scoped = cls._open_sessions()
        if scoped.registry.has():
            async with (joined := scoped()).join():
                yield joined
            return
        async with scoped() as own:
            yield own

    @classmethod
    def _open_sessions(cls) -> async_scoped_session[Any]:
        if Base.scoped_session is None:
            raise NotInitialisedError
        return Base.scoped_session

    @classmethod
    def _guard_write(cls, what: str, session: AsyncSession | None, *, auto_commit: bool) -> None:
        if session is None and not auto_commit and not cls._open_sessions().registry.has():
            raise LostWriteError(what)

    def set_session(self, session: AsyncSession | None = None) -> Self:
        """Make the instance's verbs use `session`; None restores the default."""
        self._served_by = session
        return self

    @property
    def served(self) -> bool:
        """Return whether `set_session` gave the instance a session."""
        return self._served_by is not None

    # ------------------------------------------------------------------ writing

    @belongs_to_class
    async def create(
        cls,  # noqa: N805 - a class method, though the linter cannot see it
        *,
        session: AsyncSession | None = None,
        auto_commit: bool = False,
        refresh: bool | None = None,
        **values: Any,
    ) -> Self:
        """Insert a row and flush it.

        Args:
            session: the session to use, also for later verbs of the instance, as after `set_session`; None resolves one.
            auto_commit: commit at once. Without it, the code that opened the session commits; if no session is open, the
                write is refused with `LostWriteError`.
            refresh: True selects the row again at once, False never does, None selects before COMMIT what the model declares.
            values: the attributes.
        """
        cls._require_values(values)
        return await cls(**values).save(session=session, auto_commit=auto_commit, refresh=refresh)

    @belongs_to_instance
    async def save(
        self,
        *,
        session: AsyncSession | None = None,
        auto_commit: bool = False,
        refresh: bool | None = None,
    ) -> Self:
        """Flush this instance, new or changed; the arguments are those of `create`."""
        if session is not None:
            self.set_session(session)
        session = self._served_by
        self._guard_write(f"{type(self).__name__}.save", session, auto_commit=auto_commit)
        await self._write(session, auto_commit=auto_commit, refresh=refresh)
        return self

    @belongs_to_class
    async def get_or_create(
        cls,  # noqa: N805 - a class method, though the linter cannot see it
        *,
        defaults: Mapping[str, Any] | None = None,
        session: AsyncSession | None = None,
        auto_commit: bool = False,
        **values: Any,
    ) -> tuple[Self, bool]:
        """Return the row with these values, and whether it was created: `tag, is_new = await Tag.get_or_create(name="x")`.

        Any number of calls at once create one row. The row is inserted in a SAVEPOINT, so the rest of the transaction is
        kept if another transaction has inserted the row meanwhile.

        Args:
            defaults: further attributes of a new row.
            session: as for `create`.
            auto_commit: as for `create`.
            values: attributes that identify the row; a unique constraint must cover some of them.

        Raises:
            TypeError: no unique constraint covers the values, so several calls at once could create several rows.
            sqlalchemy.exc.IntegrityError: another constraint refuses the new row.
        """
        cls._require_attributes([*values, *(defaults or ())])
        unique.require_unique(cls, values)
        cls._guard_write(f"{cls.__name__}.get_or_create", session, auto_commit=auto_commit)
        async with cls.resolve(session) as work:
            row = await cls.filter(session=work, **values).first()
            is_new = row is None
            if row is None:
                row, is_new = await unique.insert_or_find(cls, {**values, **(defaults or {})}, values, work)
            if auto_commit:
                await work.commit()
        if session is not None:
            row.set_session(session)
        return row, is_new

    async def _write(self, session: AsyncSession | None, *, auto_commit: bool, refresh: bool | None) -> None:
        async with self.resolve(session) as work:
            is_followed = self._require_hooks(work)
            work.add(self)
            if inspect(self).pending or work.is_modified(self):
                hooks.wish(work.sync_session, self, refresh)
                await work.flush()
                if refresh or not is_followed:
                    await work.run_sync(hooks.refresh_now, self, refresh)
            elif refresh:
                await self.refresh(session=work)
            await (work.commit() if auto_commit else work.flush())

    def _require_hooks(self, work: AsyncSession) -> bool:
        """Return whether `work` refreshes rows and runs hooks; raise an error if it would skip a hook."""
        is_followed = hooks.are_followed(work.sync_session)
        if not is_followed and self.has_after_commit():
            raise ForeignSessionError(type(self).__name__)
        return is_followed

    @belongs_to_instance
    async def update(
        self,
        *,
        session: AsyncSession | None = None,
        auto_commit: bool = False,
        refresh: bool | None = None,
        **values: Any,
    ) -> Self | None:
        """Change attributes and flush; return None when every value equals the current one.

        An attribute that was never loaded counts as different. The other arguments are those of `create`.
        """
        self._require_values(values)
        unloaded = inspect(self).unloaded
        changed = {
            name: value for name, value in values.items() if name in unloaded or getattr(self, name) != value
        }
        if not changed:
            return None
        session = session or self._served_by
        self._guard_write(f"{type(self).__name__}.update", session, auto_commit=auto_commit)
        await self._load_replaced(changed.keys() & unloaded, session)
        for name, value in changed.items():
            setattr(self, name, value)
        await self._write(session, auto_commit=auto_commit, refresh=refresh)
        return self

    async def _load_replaced(self, unloaded: Iterable[str], session: AsyncSession | None) -> None:
        """Load relations whose rows an assignment replaces: the rows that are no longer related change too."""
        relations = inspect(type(self)).relationships
        replaced = [
            name
            for name in unloaded
            if name in relations
            and relations[name].direction is not RelationshipDirection.MANYTOONE
            and relations[name].lazy not in NEVER_LOADED
        ]
        if replaced and inspect(self).has_identity:
            await self.refresh(*replaced, session=session)

    @belongs_to_instance
    async def remove(self, *, session: AsyncSession | None = None, auto_commit: bool = False) -> None:
        """Delete the row."""
        session = session or self._served_by
        self._guard_write(f"{type(self).__name__}.remove", session, auto_commit=auto_commit)
        async with self.resolve(session) as work:
            self._require_hooks(work)
            await work.delete(self)
            await (work.commit() if auto_commit else work.flush())

    @classmethod
    def _require_attributes(cls, names: Iterable[str]) -> None:
        known = inspect(cls).attrs.keys()
        for name in names:
            if name not in known:
                raise UnknownLookupError(
                    f"{cls.__name__} has no attribute {name!r}; it has {', '.join(sorted(known))}."
                )

    @classmethod
    def _require_values(cls, values: Mapping[str, Any]) -> None:
        """Check the values of a verb: SQLAlchemy refuses a value that is not a row only later, without the name of the relation."""
        cls._require_attributes(values)
        relations = inspect(cls).relationships
        for name in relations.keys() & values.keys():
            model, found = relations[name].mapper.class_, values[name]
            many = relations[name].uselist and found is not None
            for one in (found.values() if isinstance(found, Mapping) else found) if many else (found,):
                if one is not None and not isinstance(one, model):
                    raise NotARowError(f"{cls.__name__}.{name}", model.__name__, type(one))

    # ------------------------------------------------------------------ reading

    @belongs_to_instance
    async def refresh(self, *names: str, session: AsyncSession | None = None) -> Self:
        """Read the row again, or only the attributes `names`, which may include relations.

        Pending changes are flushed first. Without `names`, loaded relations are kept.
        """
        self._require_attributes([require_name("refresh", name) for name in names])
        session = session or self._served_by
        if inspect(self).modified:
            what = f"a pending change, which {type(self).__name__}.refresh writes first,"
            self._guard_write(what, session, auto_commit=False)
        async with self.resolve(session) as work:
            work.add(self)
            await work.flush()
            await work.refresh(self, names or inspect(type(self)).column_attrs.keys())
        return self

    @overload
    @classmethod
    async def get(cls, identity: Any, /, *, session: AsyncSession | None = None) -> Self | None: ...
    @overload
    @classmethod
    async def get(
        cls, first: Any, second: Any, /, *more: Any, session: AsyncSession | None = None
    ) -> list[Self]: ...
    @classmethod
    async def get(cls, *identities: Any, session: AsyncSession | None = None) -> Self | list[Self] | None:
        """Return the row with this primary key, or None; for several keys, the rows in the given order.

        A primary key of several columns is a tuple.

        Raises:
            MissingRowsError: some of several keys have no row; `missing` lists them.
            InvalidValueError: a key is an integer of more than 64 bits.
        """
        if not identities:
            raise TypeError(f"{cls.__name__}.get() needs at least one primary key.")
        for one in identities:
            bounds.require_sendable(cls.__name__, "get", one)
        async with cls.resolve(session) as work:
            if len(identities) == 1:
                return await work.get(cls, identities[0])
            keys = [one if isinstance(one, tuple) else (one,) for one in identities]
            rows = (await work.execute(select(cls).where(identified(cls, keys)))).scalars().all()
        found = {inspect(row).identity: row for row in rows}
        if missing := [one for one, key in zip(identities, keys, strict=True) if key not in found]:
            raise MissingRowsError(cls.__name__, missing)
        return [found[key] for key in keys]

    @classmethod
    def filter_by(cls, *, session: AsyncSession | None = None, **values: Any) -> Query[Self]:
        """Start a query for rows whose attributes equal `values`."""
        return cls.filter(session=session, **values)

    @classmethod
    def filter(
        cls, *conditions: Condition, session: AsyncSession | None = None, **lookups: Any
    ) -> Query[Self]:
        """Start a query: `User.filter(name__like="a%", id__in=[1, 2])`, `Key.filter(user__name="Ann")`.

        Args:
            conditions: `Q(...) | Q(...)`, or conditions of SQLAlchemy; all of them must hold.
            session: the session of the query; None resolves one when it runs.
            lookups: the name of a column with an operator, also of a related row, whose relation comes first. There are
                `eq`, which may be left out, `ne`, `lt`, `lte`, `gt`, `gte`, `like`, `in`, `not_in` and `is_null`.
        """
        return Query(cls, session).filter(*conditions, **lookups)

    # ------------------------------------------------------------------ hooks

    async def after_commit(self, session: AsyncSession) -> None:
        """Run after a change of this instance is durable; override to declare the hook.

        Use the given session; writes on it are committed after the hook. A failure of the hook is rolled back and logged,
        and does not turn the commit into a failure.
        """

    @classmethod
    def has_after_commit(cls) -> bool:
        """Return whether the model declares an after-commit hook."""
        return cls.after_commit is not Base.after_commit

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the session of `set_session`: a pickled or copied instance has none."""
        return {name: value for name, value in self.__dict__.items() if name != "_served_by"}

    def __repr__(self) -> str:
        """Return the class and the primary key, without values, which may be secret."""
        state = inspect(self)
        return f"<{type(self).__name__} {state.identity or 'unsaved'}>"


ARGUMENTS = names.arguments_beside_names(Base, Query)
"""The arguments of verbs that also accept attributes by name."""

event.listen(
    Base, "mapper_configured", lambda _, model: names.require_free(model, Base, ARGUMENTS), propagate=True
)  # again, for attributes that were added after the class was created, such as the other side of a `backref`
# For models on any base:
event.listen(Mapper, "mapper_configured", loading.raise_by_name)
event.listen(Mapper, "before_insert", bounds.before_insert, raw=True)
event.listen(Mapper, "before_update", bounds.before_update, raw=True)
