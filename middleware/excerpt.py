"""A bound on the length of client text that is quoted in responses and log lines."""

LONGEST = 300  # characters
TAIL = 20


def excerpt(text: str, longest: int = LONGEST) -> str:
    """Return a text of at most `longest` characters.

    The middle of a longer text is replaced by an ellipsis; `longest` must be more than 21.
    """
    if len(text) <= longest:
        return text
    return f"{text[: longest - TAIL - 1]}…{text[-TAIL:]}"
