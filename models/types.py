"""Column types with the same meaning on MariaDB, MySQL and SQLite."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import BigInteger, DateTime, Dialect, Integer, LargeBinary, Text, literal
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

# SQLite generates ids only for a column that is declared INTEGER, which holds 64 bits there.
BigId = BigInteger().with_variant(Integer(), "sqlite")


# On these servers a plain TEXT holds at most 64 kB.
LongText = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def cut(text: str, most: int) -> str:
    """Return the longest start of a text that has at most `most` bytes in UTF-8, which a column can hold."""
    return text.encode()[:most].decode(errors="ignore")


class UtcDateTime(TypeDecorator[datetime]):
    """A date and time in UTC with microseconds: aware in Python, without a time zone in the database."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return a type that keeps the microseconds, which a plain DATETIME of MariaDB and MySQL drops."""
        if dialect.name in {"mysql", "mariadb"}:
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Convert to UTC; raise ValueError for a value without a time zone, which would be ambiguous."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the time has no time zone: use datetime.now(UTC)")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return the value with the time zone UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


class Binary(TypeDecorator[Any]):
    """At most `length` bytes that can be indexed: VARBINARY on servers that cannot index a BLOB."""

    impl = LargeBinary
    cache_ok = True

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return VARBINARY on the servers that have it."""
        if dialect.name in {"mysql", "mariadb"}:
            return dialect.type_descriptor(mysql.VARBINARY(self.length))
        return dialect.type_descriptor(LargeBinary(self.length))


class BinaryText(Binary):
    """Text that is compared byte by byte, whatever the collation of the database; `length` is in bytes."""

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:  # noqa: ARG002
        """Encode as UTF-8."""
        return None if value is None else value.encode()

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Decode from UTF-8."""
        return None if value is None else bytes(value).decode()


class Uuid(Binary):
    """A UUID as 16 bytes, which sort as its text does."""

    cache_ok = True

    def __init__(self) -> None:
        super().__init__(16)

    @property
    def python_type(self) -> type[UUID]:
        """Return the type of the values."""
        return UUID

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> bytes | None:  # noqa: ARG002
        """Return the bytes."""
        return None if value is None else value.bytes

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> UUID | None:  # noqa: ARG002
        """Return the UUID."""
        return None if value is None else UUID(bytes=bytes(value))


class Words(TypeDecorator[tuple[str, ...]]):
    """A tuple of words, stored as one text with spaces between them."""

    impl = Text
    cache_ok = True

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        """Compare with a text as text, as for `LIKE`, and with any other value as words."""
        return Text() if isinstance(value, str) else super().coerce_compared_value(op, value)

    def process_bind_param(self, value: tuple[str, ...] | str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Join the words; raise ValueError for a word with white space, or for a text in place of the tuple."""
        if value is None:
            return None
        if isinstance(value, str) or any(word.split() != [word] for word in value):
            raise ValueError("the value must be a tuple of words without white space, and not a text")
        return " ".join(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[str, ...] | None:  # noqa: ARG002
        """Split."""
        return None if value is None else tuple(value.split())


class Json(TypeDecorator[Any]):
    """A value of the type `kind` as JSON text; `empty` is stored as NULL."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: Any, *, empty: Any = None) -> None:
        super().__init__()
        self.kind = kind
        self.empty = empty
        self._empty_json = msgspec.json.encode(empty)

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Encode."""
        return None if value == self.empty else msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002
        """Decode; each row gets a value of its own, which may be changed."""
        if value is None:
            return None if self.empty is None else msgspec.json.decode(self._empty_json, type=self.kind)
        return msgspec.json.decode(value, type=self.kind)


class LongJson(Json):
    """JSON that may have more than 64 kB."""

    impl = LongText  # type: ignore[assignment]  # with a variant, an instance
    cache_ok = True


class utc_now(FunctionElement[datetime]):  # noqa: N801 - it reads as the SQL function that it is
    """The database's clock, in UTC with microseconds: one clock for any number of workers."""

    type = UtcDateTime()
    inherit_cache = True


@compiles(utc_now, "mysql")
@compiles(utc_now, "mariadb")
def _mysql_now(element: utc_now, compiler: Any, **kwargs: Any) -> str:  # noqa: ARG001
    return "UTC_TIMESTAMP(6)"


@compiles(utc_now, "sqlite")
def _sqlite_now(element: utc_now, compiler: Any, **kwargs: Any) -> str:  # noqa: ARG001
    # SQLite's clock has milliseconds; SQLAlchemy reads the digits after the point as microseconds.
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


class utc_in(FunctionElement[datetime]):  # noqa: N801 - it reads as the SQL function that it is
    """The database's clock, plus a number of seconds."""

    type = UtcDateTime()
    inherit_cache = True

    def __init__(self, seconds: int) -> None:
        super().__init__(literal(seconds))


@compiles(utc_in, "mysql")
@compiles(utc_in, "mariadb")
def _mysql_in(element: utc_in, compiler: Any, **kwargs: Any) -> str:
    return f"UTC_TIMESTAMP(6) + INTERVAL {compiler.process(element.clauses, **kwargs)} SECOND"


@compiles(utc_in, "sqlite")
def _sqlite_in(element: utc_in, compiler: Any, **kwargs: Any) -> str:
    seconds = compiler.process(element.clauses, **kwargs)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', {seconds} || ' seconds')"
