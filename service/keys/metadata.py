"""The metadata of users and keys: a JSON object of bounded size, which the service stores and returns unread."""

import re
from typing import Any

import msgspec
from sqlalchemy.exc import IntegrityError

from latchkey.service.problems import Problem, field_problem

LARGEST_META_BYTES = 4 * 1024

_EXTERNAL_ID = re.compile(r"(?:for key|failed:).*external_id", re.DOTALL)


def checked_meta(meta: dict[str, Any]) -> dict[str, Any]:
    """Return metadata, or raise a problem for more than 4 KiB of it."""
    try:
        size = len(msgspec.json.encode(meta))
    except (OverflowError, RecursionError):
        raise field_problem("/meta", "it has a number or a depth that cannot be stored") from None
    if size > LARGEST_META_BYTES:
        raise field_problem(
            "/meta", f"it has {size} bytes as JSON, and at most {LARGEST_META_BYTES} are allowed"
        )
    return meta


def external_id_taken(error: IntegrityError) -> Exception:
    """Return the problem for a taken external id, and any other integrity error unchanged."""
    return Problem("external_id_taken") if _EXTERNAL_ID.search(str(error.orig)) else error
