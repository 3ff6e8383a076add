"""A bound on what is quoted from a client, in answers and in log lines."""

LONGEST = 300  # characters
TAIL = 20


def excerpt(text: str, longest: int = LONGEST) -> str:
    """Return a text of at most `longest` characters.

    A longer one loses its middle, in whose place stands an ellipsis; `longest` is more than 21.
    """
    if len(text) <= longest:
        return text
    return f"{text[: longest - TAIL - 1]}…{text[-TAIL:]}"
