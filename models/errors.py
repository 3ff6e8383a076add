"""What can go wrong with the verbs.

ModelError
├── NotInitialisedError   no database is open
├── LostWriteError        the write would not be committed by anybody
├── NotLoadedError        an attribute is read that no query has loaded
├── UnknownLookupError    a filter names an attribute or an operator that does not exist
├── NameTakenError        an attribute has the name of a verb, or of an argument of one
├── StructError           a Struct asks for what its rows do not have, or a value does not fit its field
└── MissingRowsError      `get(1, 2, 3)` found fewer rows than it was asked for
"""

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm.exc import DetachedInstanceError


class ModelError(Exception):
    """The root of the models' own errors."""


class NotInitialisedError(ModelError, RuntimeError):
    """A model was used while no database is open."""

    def __init__(self) -> None:
        super().__init__("no database is open: call `db.init_app(app, settings)` first.")


class LostWriteError(ModelError, RuntimeError):
    """A write had no session that somebody commits."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} would be lost, because nobody commits the session that it would open for itself: "
            "pass auto_commit=True, or session=, or open `async with db.scoped_session() as session` around it."
        )


class NotLoadedError(ModelError, RuntimeError, InvalidRequestError, DetachedInstanceError):
    """An attribute was read that is not there; loading it would need an await (R11).

    It is both errors that SQLAlchemy raises in its place, so that an `except` of either still catches it.
    """

    code = None  # type: ignore[assignment]  # no link to SQLAlchemy's page: the sentence says what to do

    def __init__(self, what: str, fix: str | None = None) -> None:
        fix = fix or "`await instance.refresh()`, or give the verb that wrote it refresh=True,"
        super().__init__(f"{what} is not loaded: {fix} before it is read.")


class UnknownLookupError(ModelError, TypeError):
    """A filter or an order names what the model does not have."""


class StructError(ModelError, TypeError):
    """A field of a Struct cannot be read, or a value does not fit it; the sentence begins with `Struct.field`."""


class NameTakenError(ModelError, TypeError):
    """A model has an attribute that its verbs could not reach."""

    def __init__(self, model: str, name: str, why: str) -> None:
        other = f"{name.strip('_').replace('__', '_')}_"
        super().__init__(
            f"{model}.{name}: {why}, so the attribute has to be called otherwise; "
            f'a column may keep its name: `{other}: Mapped[...] = mapped_column("{name}")`.'
        )


class MissingRowsError(ModelError, LookupError):
    """Some of the ids that `get` was asked for have no row; `missing` lists them in the order given."""

    def __init__(self, model: str, missing: list[object]) -> None:
        self.missing = missing
        super().__init__(f"{model} has no row for {', '.join(map(repr, missing))}")
