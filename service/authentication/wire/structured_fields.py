"""The parts of Structured Fields (RFC 8941) that are needed here: two kinds of dictionary, and a string.

    sig1=("@method" "@path");created=1700000000;tag="…"     inner_lists
    sig1=:SGVsbG8=:                                         byte_sequences
    "8e03978e"                                              string

A signature covers the text of its inner list as a serialiser writes it (RFC 9421, section 2.5).
White space that a serialiser never writes inside a member is refused here. Values stay the texts that were
received: `"1"` with its quotes is a string, `1` is an integer, so a pattern for the text checks type and spelling
too. The text as received is therefore the text that the signature covers.
"""

import re
from collections.abc import Mapping

import msgspec

from latchkey.service.authentication.wire.credentials import decode_base64

# The text after a repetition begins with a character that the repetition does not match, so a text that does not
# match fails after one pass. Possessive repetitions would state this, but Python 3.11 before 3.11.5 matches some of
# them wrongly.
_KEY = r"[a-z*][a-z0-9_.*-]*"
_STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
# Every other kind of value is a run of visible characters without delimiters. It is not parsed further.
_VALUE = rf"(?:{_STRING}|[!#-'*+\--:<-~]+)"
_PARAMETER = rf";({_KEY})(?:=({_VALUE}))?"
_PARAMETERS = rf"(?:;{_KEY}(?:={_VALUE})?)*"
_ITEM = _VALUE + _PARAMETERS

_EACH_PARAMETER = re.compile(_PARAMETER)
_INNER_LIST = re.compile(rf"({_KEY})=(\(((?:{_ITEM}(?: {_ITEM})*)?)\)({_PARAMETERS}))")
_BYTE_SEQUENCE = re.compile(rf"({_KEY})=:([A-Za-z0-9+/=]*):")
_ONE_STRING = re.compile(_STRING)
_ESCAPED = re.compile(r'\\(["\\])')
# A proxy may have joined two header lines, with white space around the comma.
_COMMA = re.compile(r"[ \t]*,[ \t]*")


class InnerList(msgspec.Struct, frozen=True, kw_only=True):
    """A list with parameters, as texts."""

    text: str
    """The whole member: `("@method" "@path");created=1700000000`."""
    items: str
    """The text between the parentheses."""
    parameters: Mapping[str, str]
    """Each value as it is spelled; empty for a parameter without a value, which means true."""

    def __repr__(self) -> str:
        return "InnerList(text=<hidden>)"


def inner_lists(text: str) -> dict[str, InnerList]:
    """Parse a dictionary whose members are inner lists.

    Raises:
        ValueError: the text is no such dictionary, or has a key twice; the message shows nothing of the text.
    """
    lists: dict[str, InnerList] = {}
    for key, match in _members(_INNER_LIST, text).items():
        given = _EACH_PARAMETER.findall(match[4])
        parameters = dict(given)
        if len(parameters) < len(given):
            raise ValueError("a parameter more than once")
        lists[key] = InnerList(text=match[2], items=match[3], parameters=parameters)
    return lists


def byte_sequences(text: str) -> dict[str, bytes]:
    """Parse a dictionary whose members are byte sequences in canonical base64, without parameters.

    Raises:
        ValueError: the text is no such dictionary, or has a key twice; the message shows nothing of the text.
    """
    sequences: dict[str, bytes] = {}
    for key, match in _members(_BYTE_SEQUENCE, text).items():
        decoded = decode_base64(match[2])
        if decoded is None:
            raise ValueError("base64 that is not canonical")
        sequences[key] = decoded
    return sequences


def string(text: str) -> str:
    """Parse an item that is a string without parameters, and return the text between its quotes.

    Raises:
        ValueError: the text is no such item; the message shows nothing of it.
    """
    if not _ONE_STRING.fullmatch(text):
        raise ValueError("no string")
    return _ESCAPED.sub(r"\1", text[1:-1])


def _members(member: re.Pattern[str], text: str) -> dict[str, re.Match[str]]:
    found: dict[str, re.Match[str]] = {}
    place = 0
    while match := member.match(text, place):
        if match[1] in found:
            raise ValueError("a key more than once")
        found[match[1]] = match
        if match.end() == len(text):
            return found
        comma = _COMMA.match(text, match.end())
        if comma is None:
            break
        place = comma.end()
    raise ValueError("no dictionary of this kind")
