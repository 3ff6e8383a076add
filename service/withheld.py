"""Values of rows and statements in messages of the driver, withheld before a message is logged."""

import re

NAMING = frozenset({
    1045,  # access denied for user 'app'@'host'
    1048,  # Column 'name' cannot be null
    1049,  # Unknown database
    1050, 1051, 1146,  # a table
    1054, 1060, 1091, 1364,  # a column
    1142, 1143, 1227, 1305, 1451, 1452, 2003,
})  # fmt: skip
"""The errors of MariaDB and MySQL whose message quotes only names."""

DRIVER = re.compile(r"""\((?P<number>\d{4}), (?P<quote>["'])(?P<message>.*?)(?<!\\)(?P=quote)\)""")
"""An error of the driver as it is printed: `(1062, "Duplicate entry 'ann@example.com' for key 'users.email_key'")`."""
QUOTED = re.compile(r"'.*'", re.DOTALL)
PLACE = re.compile(r" for (?:key|column) '[\w.$-]+'(?: at row \d+)?$")
OTHERS = (
    re.compile(r"(?<=LookupError: ).*(?= is not among the defined enum values)"),
    re.compile(r"(?<=LookupError\) ).*(?= is not among the defined enum values)"),
    re.compile(r"(?<=Not a boolean value: ).*"),
)
"""Values in the messages of SQLAlchemy."""


def withhold(text: str) -> str:
    """Return a message or a trace without the values that the driver and SQLAlchemy quote."""
    text = DRIVER.sub(without_values, text)
    for pattern in OTHERS:
        text = pattern.sub("…", text)
    return text


def without_values(error: re.Match[str]) -> str:
    """Return an error of the driver without the values in its message."""
    if int(error["number"]) in NAMING:
        return error[0]
    return f"({error['number']}, {error['quote']}{withhold_quoted(error['message'])}{error['quote']})"


def withhold_quoted(message: str) -> str:
    """Return a message of the server with everything between its first and last quote withheld, except a key or column."""
    place = PLACE.search(message)
    rest = message[: place.start()] if place else message
    return QUOTED.sub("'…'", rest) + (place[0] if place else "")
