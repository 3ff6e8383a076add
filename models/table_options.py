"""The options of every table on `latchkey.Base`, for MariaDB and MySQL."""

from collections.abc import Mapping
from typing import Any

OPTIONS: Mapping[str, str] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}


def with_options(declared: Any) -> Any:
    """Return the `__table_args__` of a model with the options that it does not set itself."""
    match declared:
        case dict():
            return {**OPTIONS, **declared}
        case (*parts, dict() as own):
            return (*parts, {**OPTIONS, **own})
        case tuple():
            return (*declared, dict(OPTIONS))
        case _:
            return declared  # SQLAlchemy evaluates a `declared_attr`, or reports the mistake
