"""The errors of the verbs.

ModelError
├── NotInitialisedError   no database is open
├── LostWriteError        nothing would commit the write
├── ForeignSessionError   a plain session would not run the after-commit hook of the model
├── NotLoadedError        the code reads an attribute that no query has loaded
├── UnknownLookupError    a filter names an attribute or an operator that does not exist
├── NotARowError          a relation is set to an object that is no row of its model
├── InvalidValueError     a value is too long, out of range or no number for its column
├── BulkError             an UPDATE or DELETE of many rows would differ between servers, or skip a hook
├── NameTakenError        an attribute has the name of a verb, or of an argument of one
├── StructError           a Struct has a field that its rows do not have, or a value does not fit its field
└── MissingRowsError      `get(1, 2, 3)` found fewer rows than requested
"""

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm.exc import DetachedInstanceError


class ModelError(Exception):
    """The base class of the models' own errors."""


class NotInitialisedError(ModelError, RuntimeError):
    """A model was used while no database was open."""

    def __init__(self) -> None:
        super().__init__("no database is open: call `db.init_app(app, settings)` first.")


class LostWriteError(ModelError, RuntimeError):
    """Nothing would commit the write of a verb."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} would be lost, because nothing commits the session that the verb would open: "
            "pass auto_commit=True, or session=, or open `async with db.scoped_session() as session` around it, in the "
            "same task: `asyncio.gather` starts other tasks, and so does `asyncio.wait_for` before Python 3.12."
        )


class ForeignSessionError(ModelError, RuntimeError):
    """A session that runs no after-commit hooks would write a model that has one."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"{model} has an after-commit hook, which only the sessions of the database run: write it with a session "
            "of `db.scoped_session()`, or use `add` of the other session if the hook must not run."
        )


class NotLoadedError(ModelError, RuntimeError, InvalidRequestError, DetachedInstanceError):
    """An attribute was read that is not loaded; loading it would need an await (R11).

    It derives from both errors that SQLAlchemy raises in this case, so that an `except` for either still catches it.
    """

    code = None  # type: ignore[assignment]  # no link to SQLAlchemy's page: the message explains what to do

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what} is not loaded: {fix}.")


class UnknownLookupError(ModelError, TypeError):
    """A filter or an order contains a name that the model does not have."""


class NotARowError(ModelError, TypeError):
    """A relation is set to an object that is no row of its model."""

    def __init__(self, relation: str, model: str, kind: type) -> None:
        super().__init__(
            f"{relation} is a relation to {model}, and {kind.__module__}.{kind.__qualname__} is not one of its rows: "
            f"pass the result of `await {model}.get(…)`, or set the foreign key instead of the relation."
        )


class InvalidValueError(ModelError, ValueError):
    """A value does not fit its column; the message does not contain it.

    Attributes:
        name: the attribute.
        fault: what is wrong, as part of a sentence.
        value: the value.
    """

    def __init__(self, model: str, name: str, fault: str, value: object) -> None:
        self.name = name
        self.fault = fault
        self.value = value
        super().__init__(f"{model}.{name}: {fault}.")


class BulkError(ModelError, TypeError):
    """`update` or `delete` of many rows would not mean the same on every server, or would skip a hook."""


class StructError(ModelError, TypeError):
    """A field of a Struct cannot be read, or a value does not fit it; the message begins with `Struct.field`."""


class NameTakenError(ModelError, TypeError):
    """A model has an attribute that its verbs could not access."""

    def __init__(self, model: str, name: str, why: str) -> None:
        other = f"{name.strip('_').replace('__', '_')}_"
        super().__init__(
            f"{model}.{name}: {why}, so the attribute needs another name; "
            f'the column may keep its name: `{other}: Mapped[...] = mapped_column("{name}")`.'
        )


class MissingRowsError(ModelError, LookupError):
    """Some of the ids passed to `get` have no row; `missing` lists them in the given order."""

    def __init__(self, model: str, missing: list[object]) -> None:
        self.missing = missing
        super().__init__(f"{model} has no row for {', '.join(map(repr, missing))}")
