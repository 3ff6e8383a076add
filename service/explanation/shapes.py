"""The types of a request and a response of `POST /v1/signatures/explain`."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from latchkey.service.shapes import TOKEN, HeaderValue, Input, KeyStatus, Output


class SignedRequest(Input, frozen=True, kw_only=True):
    """The body of `POST /v1/signatures/explain` and `POST /v1/me/signatures/explain`: a request as its sender made it.

    The absolute `url` contains the query, with its percent escapes. Header names may have any letter case, and a repeated
    header has a list of values. Without `host` the host of the URL is used.
    The body of the request is text in `body` or, if it is binary, base64 in `body_base64`; without both it is empty.
    `signed_text` is the text that the sender signed, if it is known: the report says where it differs.
    """

    method: Annotated[str, Meta(pattern=TOKEN)]
    url: Annotated[str, Meta(max_length=16_384)]
    headers: Annotated[
        dict[Annotated[str, Meta(pattern=TOKEN)], HeaderValue | list[HeaderValue]], Meta(max_length=100)
    ]
    body: str | UnsetType = UNSET
    body_base64: str | UnsetType = UNSET
    signed_text: Annotated[str, Meta(max_length=32_768)] | UnsetType = UNSET


class SignedText(Output, frozen=True, kw_only=True):
    """A text that the client may have signed: its lines, each of which but the last ends in a line feed."""

    what: Literal["query_as_received", "query_reencoded", "signature_base"]
    lines: tuple[str, ...]


class SignatureCheck(Output, frozen=True, kw_only=True):
    """One check and its result; `not_checked` means that it depends on a failed check or cannot be made here."""

    name: str
    result: Literal["passed", "failed", "not_checked"]
    detail: str


class SignatureClock(Output, frozen=True, kw_only=True):
    """The time of the signature compared with the service's clock, in unix seconds; positive if it is ahead."""

    created: int
    now: float
    offset_s: float
    window_s: int
    inside: bool


class SignatureKey(Output, frozen=True, kw_only=True):
    """The key that a signature names."""

    access_key: str
    status: KeyStatus


class SignatureReport(Output, frozen=True, kw_only=True):
    """The verification of a signed request; the checks are in their order.

    `form` is null when the request has no signature, or more than one credential; `clock` when nothing could be parsed;
    `key` when there is none.
    """

    form: Literal["query", "message"] | None
    signed: tuple[SignedText, ...]
    checks: tuple[SignatureCheck, ...]
    clock: SignatureClock | None
    key: SignatureKey | None
