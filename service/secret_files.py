"""Secrets in files: `LATCHKEY_KEYRING_FILE` names a file that contains the value of `LATCHKEY_KEYRING`.

Container platforms mount secrets as files, and an environment is readable in more places than a file.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

SUFFIX = "_FILE"
LONGEST_SECRET = 64 * 1024  # bytes


class SecretFileError(ValueError):
    """The file of a secret cannot be used; the message names the variable and not the content."""


def read_secret_files(environ: Mapping[str, str], variables: Iterable[str]) -> dict[str, str]:
    """Return the environment with the content of the files that `<variable>_FILE` names, instead of these variables.

    White space at the end of a file is not part of the secret. An empty variable counts as absent.

    Raises:
        SecretFileError: a secret is given in both ways; or a file cannot be read, is empty, too large or not UTF-8.
    """
    found = dict(environ)
    for variable in variables:
        named = variable + SUFFIX
        if file := found.pop(named, ""):
            if found.get(variable):
                raise SecretFileError(f"{variable} and {named} are both set: set one of them.")
            found[variable] = read_secret(named, file)
    return found


def read_secret(named: str, file: str) -> str:
    """Return the secret in a file that the variable `named` names."""
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(LONGEST_SECRET + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not the name of a file"
        raise SecretFileError(f"{named}: the file cannot be read: {reason}.") from None
    if len(content) > LONGEST_SECRET:
        raise SecretFileError(f"{named}: the file has more than {LONGEST_SECRET} bytes.")
    try:
        secret = content.decode().rstrip()
    except UnicodeDecodeError:
        raise SecretFileError(f"{named}: the file is not UTF-8.") from None
    if not secret.removeprefix("\ufeff"):
        raise SecretFileError(f"{named}: the file is empty.")
    return secret
