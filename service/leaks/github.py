"""GitHub's secret scanning partner protocol: pure functions that read and verify a report.

GitHub signs the raw body with ECDSA on the curve P-256 and SHA-256. `Github-Public-Key-Identifier` names the key, and
`Github-Public-Key-Signature` is the signature in DER and base64.
"""

import re
from collections.abc import Mapping
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import Meta
from starlette.datastructures import Headers

from latchkey.service.authentication.wire.credentials import decode_base64

IDENTIFIER_HEADER = "github-public-key-identifier"
SIGNATURE_HEADER = "github-public-key-signature"

PublicKeyMap = Mapping[str, ec.EllipticCurvePublicKey]

_IDENTIFIER = re.compile(r"[0-9A-Za-z_-]{1,128}")
_LARGEST_SIGNATURE = 128  # characters of base64; a signature on P-256 has at most 72 bytes


class ReportSignature(msgspec.Struct, frozen=True):
    """The signature of a report; nothing of it is verified yet."""

    identifier: str
    signature: bytes

    def proves(self, key: ec.EllipticCurvePublicKey, body: bytes) -> bool:
        """Return whether the holder of the key signed the body."""
        try:
            key.verify(self.signature, body, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


def read_signature(headers: Headers) -> ReportSignature | None:
    """Return the signature in the headers of a report; None if one is missing, repeated or ill-formed."""
    identifiers, signatures = headers.getlist(IDENTIFIER_HEADER), headers.getlist(SIGNATURE_HEADER)
    if len(identifiers) != 1 or len(signatures) != 1 or len(signatures[0]) > _LARGEST_SIGNATURE:
        return None
    signature = decode_base64(signatures[0])
    if signature is None or not _IDENTIFIER.fullmatch(identifiers[0]):
        return None
    return ReportSignature(identifiers[0], signature)


class ListedKey(msgspec.Struct, frozen=True):
    """A key of GitHub's list."""

    key_identifier: Annotated[str, Meta(pattern=rf"^{_IDENTIFIER.pattern}$")]
    key: str


class KeyList(msgspec.Struct, frozen=True):
    """GitHub's list of public keys."""

    public_keys: Annotated[list[ListedKey], Meta(min_length=1, max_length=100)]


def read_public_keys(content: bytes) -> PublicKeyMap:
    """Return the keys in GitHub's list, by their identifiers.

    Raises:
        ValueError: the content is no such list, or a key is not one of P-256 in PEM.
    """
    try:
        listed = msgspec.json.decode(content, type=KeyList).public_keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is not a list of GitHub's public keys: {error}") from None
    return {one.key_identifier: read_public_key(one) for one in listed}


def read_public_key(listed: ListedKey) -> ec.EllipticCurvePublicKey:
    """Return a key of the list, or raise ValueError."""
    try:
        key = load_pem_public_key(listed.key.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError(  # noqa: TRY004 - a fault in the list, as the others
            f"the key {listed.key_identifier} is not a public key of P-256 in PEM"
        )
    return key
