"""The values that a setting accepts, as the end of a sentence."""

from typing import Any

from msgspec import inspect


def describe_type(annotation: Any) -> str | None:
    """Return the condition for a value of a type, such as "a whole number from 1 to 10"; None for other types.

    The `description` of a type takes precedence, because a pattern explains nothing to an operator.
    """
    return _describe(inspect.type_info(annotation))


def _describe(kind: inspect.Type) -> str | None:
    text = None
    match kind:
        case inspect.Metadata():
            description: str | None = (kind.extra_json_schema or {}).get("description")
            text = description or _describe(kind.type)
        case inspect.UnionType(types=types):
            kinds = [one for one in types if not isinstance(one, inspect.NoneType)]
            text = _describe(kinds[0]) if len(kinds) == 1 else None
        case inspect.IntType():
            text = f"a whole number{_bounds(kind)}"
        case inspect.FloatType():
            text = f"a number{_bounds(kind)}"
        case inspect.BoolType():
            text = "true or false"
        case inspect.LiteralType(values=values):
            text = " or ".join(map(str, values))
        case inspect.StrType(max_length=int(length), pattern=None):
            text = f"a text of at most {length} characters"
    return text


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.ge is not None and kind.le is not None:
        return f" from {kind.ge} to {kind.le}"
    bounds = {"above": kind.gt, "at least": kind.ge, "below": kind.lt, "at most": kind.le}
    found = " and ".join(f"{words} {bound}" for words, bound in bounds.items() if bound is not None)
    return found and f" {found}"
