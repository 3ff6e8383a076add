"""The codes that may be raised: Latchkey's own, and those that a team registers."""

import difflib
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus

from latchkey.service.problems.kinds import KINDS, ProblemKind

CODE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


class ProblemType(ProblemKind, frozen=True, kw_only=True):
    """A team's own problem; `create_app(problems=[...])` registers it.

    Args:
        code: lower-case words separated by underscores, as in `order_closed`.
        status: 400 to 599.
        title: a sentence without its full stop, the same for every occurrence.
        explanation: the paragraph at `/problems/<code>`.
    """

    code: str


class UnknownProblemError(LookupError):
    """A code was used that is not registered."""

    def __init__(self, code: str) -> None:
        near = difflib.get_close_matches(code, known(), 1)
        meant = f"; did you mean {near[0]!r}?" if near else "."
        super().__init__(
            f"there is no problem {code!r}: register it, `create_app(problems=[ProblemType(code={code!r}, ...)])`{meant}"
        )


class ProblemTypeError(TypeError):
    """A problem type cannot be registered; the service does not start with it."""


_own: dict[str, ProblemKind] = {}


def known() -> Mapping[str, ProblemKind]:
    """Return all codes that may be raised: Latchkey's, then those of the application that was built last."""
    return {**KINDS, **_own}


def register(types: Iterable[ProblemType]) -> None:
    """Register a team's own problems, replacing those that were registered before.

    Raises:
        ProblemTypeError: one has a wrong form, is given twice, or has a code of Latchkey's.
    """
    found: dict[str, ProblemKind] = {}
    for one in types:
        if not isinstance(one, ProblemType):
            raise ProblemTypeError(f"{one!r} is not a ProblemType.")
        if not CODE.fullmatch(one.code):
            raise ProblemTypeError(f"{one.code!r}: a code must be lower-case words separated by underscores.")
        if one.code in KINDS or one.code in found:
            raise ProblemTypeError(f"{one.code!r}: a problem with this code exists already.")
        if one.status not in set(HTTPStatus) or one.status < 400:  # noqa: PLR2004 - RFC 9110, section 15.5
            raise ProblemTypeError(
                f"{one.code!r}: the status of a problem must be from 400 to 599, not {one.status}."
            )
        if not one.title.strip() or one.title.endswith(".") or not one.explanation.strip():
            raise ProblemTypeError(
                f"{one.code!r}: a problem must have a title without a full stop, and an explanation."
            )
        found[one.code] = one
    _own.clear()
    _own.update(found)


def kind_of(code: str) -> ProblemKind:
    """Return the kind of a code.

    Raises:
        UnknownProblemError: the code is not registered.
    """
    kind = KINDS.get(code) or _own.get(code)
    if kind is None:
        raise UnknownProblemError(code)
    return kind
