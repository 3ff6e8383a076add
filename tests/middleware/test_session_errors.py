"""The errors of sessions are one tree."""

import re

from latchkey.middleware import session_errors
from latchkey.middleware.session_errors import SessionError


def test_the_docstring_lists_every_error() -> None:
    listed = re.findall(r"── (\w+Error)\b", session_errors.__doc__ or "")

    assert sorted(listed) == sorted(one.__name__ for one in SessionError.__subclasses__())
    assert {one.__module__ for one in SessionError.__subclasses__()} == {session_errors.__name__}
