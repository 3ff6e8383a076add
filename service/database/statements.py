"""The effect of a statement: SQLAlchemy's own constructs declare it, and text is parsed (R8)."""

import enum
import itertools
import re
from functools import lru_cache
from typing import Any

from sqlalchemy import CompoundSelect, Select, TextualSelect
from sqlalchemy.orm import FromStatement
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.lambdas import LambdaElement


class Effect(enum.Enum):
    """What would be lost if the transaction of a statement ended without COMMIT."""

    READS = "nothing"
    LOCKS = "a lock"
    WRITES = "a change"
    COMMITS = "a change, unless the server has committed it by itself"
    UNKNOWN = "perhaps something"


def unwrapped(statement: Any) -> Any:
    """Return the statement inside the wrappers of the ORM and of lambdas."""
    while True:
        if isinstance(statement, LambdaElement):
            statement = statement._resolved  # noqa: SLF001 - there is no public way to ask
        elif isinstance(statement, FromStatement | TextualSelect):
            statement = statement.element
        else:
            return statement


def locks(statement: Any) -> bool:
    """Return whether a SELECT, or a part of a UNION, is FOR UPDATE."""
    statement = unwrapped(statement)
    if isinstance(statement, CompoundSelect) and any(locks(part) for part in statement.selects):
        return True
    return getattr(statement, "_for_update_arg", None) is not None


def is_plain_read(statement: Any) -> bool:
    """Return whether a statement is a SELECT construct of SQLAlchemy without a lock; only these use the reader."""
    return isinstance(unwrapped(statement), Select | CompoundSelect) and not locks(statement)


def effect_of(statement: Any, sql: str) -> Effect:
    """Return the effect of a statement that is sent as `sql`; `statement` is None for SQL that bypassed SQLAlchemy."""
    statement = unwrapped(statement)
    if isinstance(statement, Select | CompoundSelect):
        return Effect.LOCKS if locks(statement) else Effect.READS
    if getattr(statement, "is_dml", False):
        return Effect.WRITES
    effect = effect_of_text(sql)
    return (
        Effect.COMMITS if effect is Effect.UNKNOWN and isinstance(statement, ExecutableDDLElement) else effect
    )


def is_transactional(statement: Any, sql: str) -> bool:
    """Return whether a statement that reads or changes rows cannot commit anything by itself, as DDL or CALL can."""
    statement = unwrapped(statement)
    if isinstance(statement, Select | CompoundSelect) or getattr(statement, "is_dml", False):
        return True
    words = [found["word"] or found["sign"] for found in TOKENS.finditer(sql) if found.lastgroup]
    return bool(words) and words[0].upper() in CHANGING_ROWS | {"SELECT", "WITH"} and ";" not in words


# Quoted text and names, comments, words, and other significant signs. MariaDB and MySQL execute comments that begin
# with an exclamation mark: only their delimiters are skipped, and their content is parsed.
TOKENS = re.compile(
    r"""
    '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | `(?:[^`]|``)*`
    | /\*M?!\d* | \*/ | /\*.*?\*/ | (?:--|\#)[^\n]*
    | (?P<word>[^\W\d]\w*) | (?P<sign>[;(])
    """,
    re.VERBOSE | re.DOTALL,
)
READING = frozenset({"SELECT", "WITH", "VALUES", "TABLE", "SHOW", "DESCRIBE", "DESC", "HELP"})
EXPLAINING = frozenset({"EXPLAIN", "DESCRIBE", "DESC"})
WRITING = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD"})
COMMITTING = frozenset({"CALL", "TRUNCATE", "CREATE", "DROP", "ALTER", "RENAME"})
CHANGING_ROWS = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE"})
SETTING = frozenset({"SET", "USE", "PRAGMA", "SAVEPOINT", "RELEASE", "ROLLBACK"})
LOCKING = (("FOR", "UPDATE"), ("FOR", "SHARE"), ("IN", "SHARE"))


@lru_cache(maxsize=1024)
def effect_of_text(sql: str) -> Effect:
    """Return the effect of a statement in the form of text."""
    words = [(found["word"] or found["sign"]).upper() for found in TOKENS.finditer(sql) if found.lastgroup]
    parts: list[list[str]] = [[]]
    for word in words:
        if word == ";":
            parts.append([])
        else:
            parts[-1].append(word)
    effects = [effect_of_words(part) for part in parts if part]
    return max(effects, key=ORDER.index) if effects else Effect.UNKNOWN


ORDER = (Effect.READS, Effect.UNKNOWN, Effect.LOCKS, Effect.COMMITS, Effect.WRITES)


def effect_of_words(words: list[str]) -> Effect:
    """Return the effect of one statement, given its words without quoted text and comments."""
    while words and words[0] == "(":
        words = words[1:]
    first = words[0] if words else ""
    if first == "ANALYZE" or (first in EXPLAINING and "ANALYZE" in words):
        return effect_of_analysis(words)
    if first in EXPLAINING or first in SETTING:
        return Effect.READS
    if first in WRITING or (first == "WITH" and changes_rows(words)):
        return Effect.WRITES
    if first not in READING:
        # A temporary table commits nothing, and ends with its connection: DROP TEMPORARY, CREATE OR REPLACE TEMPORARY.
        commits = first in COMMITTING and "TEMPORARY" not in words[1:4]
        return Effect.COMMITS if commits else Effect.UNKNOWN
    if any(pair in LOCKING for pair in itertools.pairwise(words)):
        return Effect.LOCKS
    return Effect.UNKNOWN if "INTO" in words else Effect.READS


def effect_of_analysis(words: list[str]) -> Effect:
    """Return the effect of ANALYZE or EXPLAIN ANALYZE, which runs the statement that it explains."""
    starts = READING | CHANGING_ROWS
    place = next((place for place, word in enumerate(words) if word in starts - EXPLAINING - {"TABLE"}), None)
    return Effect.UNKNOWN if place is None else effect_of_words(words[place:])


def changes_rows(words: list[str]) -> bool:
    """Return whether a statement that begins with its subqueries changes rows."""
    for before, word, after in zip(words, words[1:], words[2:], strict=False):
        # INSERT(...) and REPLACE(...) are functions too, and UPDATE appears in FOR UPDATE.
        if word in CHANGING_ROWS and after != "(" and before != "FOR":
            return True
    return False
