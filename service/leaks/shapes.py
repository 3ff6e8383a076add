"""The types of reports of leaked secrets."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from latchkey.service.shapes import END, Input, Moment, Output

MOST_LEAKS = 1000  # in one report
URL_LENGTH = 2048

Label = Literal["true_positive", "false_positive"]


class FoundSecret(Input, frozen=True, kw_only=True):
    """A text that may be the secret of a key, and the URL where it was found."""

    secret: Annotated[str, Meta(min_length=1, max_length=512)]
    url: Annotated[str, Meta(max_length=URL_LENGTH, pattern=r"^[!-~]+" + END)] | None = None

    def __repr__(self) -> str:
        return "FoundSecret(secret=<hidden>)"


class LeakReport(Input, frozen=True, kw_only=True):
    """The body of `POST /v1/leaks`."""

    data: Annotated[list[FoundSecret], Meta(min_length=1, max_length=MOST_LEAKS)]


class Leak(Output, frozen=True, kw_only=True):
    """The result for one text; a false positive is the secret of no key.

    `works_until` is the time at which the secret ends; it is null if the secret works no longer.
    """

    label: Label
    access_key: str | None
    works_until: Moment | None


class Leaks(Output, frozen=True, kw_only=True):
    """The results, in the order of the report."""

    data: list[Leak]


class GitHubMatch(msgspec.Struct, frozen=True, kw_only=True):
    """A match of GitHub's secret scanning; fields that GitHub may add are ignored."""

    token: str
    type: str
    url: str | None = None
    source: str | None = None

    def __repr__(self) -> str:
        return "GitHubMatch(token=<hidden>)"


GitHubReport = Annotated[list[GitHubMatch], Meta(max_length=MOST_LEAKS)]


class GitHubLabel(Output, frozen=True, kw_only=True):
    """The label of a match, whose token is named by its SHA-256 in hexadecimal."""

    token_hash: str
    token_type: str
    label: Label
