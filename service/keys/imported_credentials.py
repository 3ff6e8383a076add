"""The credentials of imported keys: pure rules that accept them, and return their stored form."""

import base64
import re

from latchkey.service.authentication.wire.credentials import Secret, hash_secret
from latchkey.service.keys.import_shapes import ImportedKey
from latchkey.service.keys.issuing import Issuer
from latchkey.service.rule_error import RuleError

NO_FORMAT = "the secret has neither the format of this installation nor one of LATCHKEY_IMPORTED_SECRETS"
NO_FORMATS = "LATCHKEY_IMPORTED_SECRETS is not set, so no call could be made with the key"

_HEX, _BASE64 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9A-Za-z+/_-]{43}=?")
_URL_SAFE = str.maketrans("+/", "-_")
_SIGNING_SECRET = re.compile(r"[!-~]{16,200}")


def credential_of(item: ImportedKey, issuer: Issuer) -> tuple[bytes, Secret | None]:
    """Return the SHA-256 of a secret and, for a key that signs, the secret itself.

    Raises:
        RuleError: there is none, there are two, or the key could not be used with it.
    """
    if isinstance(item.secret, str) == isinstance(item.sha256, str):
        raise RuleError("either secret or sha256 must be given")
    if isinstance(item.sha256, str):
        if item.mode == "signed":
            raise RuleError("a key that signs needs its secret, not the SHA-256 of it")
        if not issuer.formats.imported:
            raise RuleError(NO_FORMATS)
        return digest_in(item.sha256), None
    text = str(item.secret)
    secret = issuer.formats.parse(text)
    if item.mode == "bearer":
        if secret is None:
            raise RuleError(NO_FORMAT)
        return hash_secret(secret), None
    is_own = text.startswith(f"{issuer.prefix}s_")
    if (is_own and secret is None) or not _SIGNING_SECRET.fullmatch(text):
        raise RuleError("the secret of a key that signs must have 16 to 200 printable ASCII characters")
    return hash_secret(Secret(text)), Secret(text)


def digest_in(text: str) -> bytes:
    """Return the bytes of a SHA-256 in hexadecimal or base64, or raise RuleError."""
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    if _BASE64.fullmatch(text):
        return base64.urlsafe_b64decode(text.translate(_URL_SAFE)[:43] + "=")
    raise RuleError("the SHA-256 is neither 64 hexadecimal digits in lower case nor 32 bytes in base64")
