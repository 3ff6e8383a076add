"""Client text that is quoted in responses and log lines: it has a bound, and no secret."""

import re

LONGEST = 300  # characters
TAIL = 20

SECRET = re.compile(r"(s_(?:[a-z][a-z0-9]{0,15}_)?)[0-9A-Za-z]{49}|(whsec_)[0-9A-Za-z+/_-]{32,}={0,2}")
"""The secret of a key, from the last letter of its prefix on, with any environment; and the secret of a webhook.

Both begin with fixed characters and are searched in linear time: the text is a client's.
"""


def excerpt(text: str, longest: int = LONGEST) -> str:
    """Return a text of at most `longest` characters, in which secrets are replaced by their prefix and an ellipsis.

    The middle of a longer text is replaced by an ellipsis; `longest` must be more than 21.
    """
    text = without_secrets(text)
    if len(text) <= longest:
        return text
    return f"{text[: longest - TAIL - 1]}…{text[-TAIL:]}"


def without_secrets(text: str) -> str:
    """Return a text in which secrets are replaced by their prefix and an ellipsis: a client may put one anywhere."""
    if "s_" not in text and "whsec_" not in text:
        return text
    return SECRET.sub(lambda found: f"{found[1] or found[2]}…", text)
