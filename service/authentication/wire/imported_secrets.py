"""The formats of secrets that other systems made, and that keys were imported with.

A format is an alphabet and a length, as in `base62:32` or `token:20-64`. A token is looked up only if it has such a format, or
that of this installation's own secrets. A token that begins as an own secret never has another format.
"""

import re

import msgspec

from latchkey.service.authentication.wire.credentials import Secret, parse_secret

ALPHABETS = {
    "hex": "[0-9a-f]",
    "base62": "[0-9A-Za-z]",
    "base64url": "[0-9A-Za-z_-]",
    "token": "[0-9A-Za-z._~+/=-]",  # all characters of a bearer token, RFC 6750, section 2.1
}
SHORTEST, LONGEST = 16, 200  # characters; fewer could be guessed
MOST_FORMATS = 10

_FORMAT = re.compile(r"(?P<alphabet>[a-z0-9]+):(?P<least>[0-9]{1,3})(?:-(?P<most>[0-9]{1,3}))?")


class SecretFormat(msgspec.Struct, frozen=True):
    """An alphabet, by its name, and the least and the greatest length."""

    alphabet: str
    least: int
    most: int

    def accepts(self, text: str) -> bool:
        """Return whether a text has the format."""
        is_as_long = self.least <= len(text) <= self.most
        return is_as_long and re.fullmatch(f"{ALPHABETS[self.alphabet]}*", text) is not None


class SecretFormats(msgspec.Struct, frozen=True):
    """The formats of bearer tokens: that of own secrets with a prefix, and those of imported ones."""

    prefix: str
    imported: tuple[SecretFormat, ...] = ()

    def parse(self, text: str) -> Secret | None:
        """Parse the secret of a bearer key, an own or an imported one; None for anything else."""
        if text.startswith(f"{self.prefix}s_"):
            return parse_secret(text, self.prefix)
        return Secret(text) if any(one.accepts(text) for one in self.imported) else None


def read_formats(text: str) -> tuple[SecretFormat, ...]:
    """Return the formats in a text, with commas between them.

    Raises:
        ValueError: there are too many, or one has a wrong form; the message says which.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MOST_FORMATS:
        raise ValueError(f"there are {len(parts)} formats, and at most {MOST_FORMATS} are allowed")
    return tuple(read_format(part, place) for place, part in enumerate(parts, start=1))


def read_format(text: str, place: int) -> SecretFormat:
    """Return one format, or raise ValueError."""
    found = _FORMAT.fullmatch(text)
    if found is None or found["alphabet"] not in ALPHABETS:
        raise ValueError(
            f"format {place} must be one of {', '.join(ALPHABETS)} and a length, as in base62:32"
        )
    least = int(found["least"])
    most = int(found["most"] or least)
    if not SHORTEST <= least <= most <= LONGEST:
        raise ValueError(f"format {place} must have a length between {SHORTEST} and {LONGEST} characters")
    return SecretFormat(found["alphabet"], least, most)
