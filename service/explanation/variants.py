"""The usual mistakes in the text or the secret of a signature, tried one by one.

`explanation` uses them for a signature that proves nothing: if the MAC of a variant is the one that was sent, the client
signed that variant. A signature that matches a variant is still refused.
"""

import hashlib
import hmac
import itertools
from collections.abc import Iterable, Iterator

import msgspec

from latchkey.service.authentication.wire.credentials import Secret, same

MOST_BYTES = 4 * 1024 * 1024  # signed in all tries together, some 20 ms
BYTES_OF_A_TRY = 200  # the cost of a MAC apart from its text, in bytes of text
MOST_WITH_OTHER_SECRETS = 60  # texts, the most usual of which come first


class Variant(msgspec.Struct, frozen=True):
    """A text or secret that a client may have used in place of the right one, and a sentence that names the mistake."""

    value: bytes
    mistake: str

    def __repr__(self) -> str:
        return f"Variant(value=<hidden>, mistake={self.mistake!r})"


def find_mistake(mac: bytes, right: Iterable[bytes], texts: Iterable[Variant], secret: Secret) -> str | None:
    """Return the sentences for the mistakes that explain a MAC: in the text, in the secret, or in both.

    Args:
        mac: as it was sent.
        right: the texts that the signature may cover.
        texts: the other texts to try.
        secret: of the key.
    """
    used = [Variant(text, "") for text in right]
    whole, others = Variant(secret.encode(), ""), list(secret_variants(secret))
    tried = list(texts)
    pairs = itertools.chain(
        itertools.product(others, used),
        itertools.product([whole], tried),
        itertools.product(others, tried[:MOST_WITH_OTHER_SECRETS]),
    )
    left = MOST_BYTES
    for key, text in pairs:
        left -= len(text.value) + BYTES_OF_A_TRY
        if left < 0:
            break
        if same(hmac.digest(key.value, text.value, "sha256"), mac):
            return " ".join(filter(None, (text.mistake, key.mistake)))
    for text in used:
        for name, digest in other_digests(secret.encode(), text.value):
            if same(digest, mac):
                return name
    return None


def secret_variants(secret: Secret) -> Iterator[Variant]:
    """Return the texts that clients use by mistake in place of the secret."""
    prefix, _, digits = secret.rpartition("_")
    for value, mistake in (
        (f"{secret}\n", "The secret was used with a newline at its end: remove it, for example from the file."),
        (f"{secret}\r\n", "The secret was used with a carriage return and a newline at its end: remove them."),
        (f"{secret}\r", "The secret was used with a carriage return at its end: remove it."),
        (f"{secret} ", "The secret was used with a space at its end: remove it."),
        (f" {secret}", "The secret was used with a space in front: remove it."),
        (f"\ufeff{secret}", "The secret was used with a byte order mark in front: remove it."),
        (f'"{secret}"', "The secret was used with its quotes: remove them."),
        (f"'{secret}'", "The secret was used with its quotes: remove them."),
        (f"Bearer {secret}", "The secret was used with the word Bearer in front: remove it."),
        (digits, f"The secret was used without its {prefix}_: use the whole secret, with the prefix and the checksum."),
        (secret[:-6], "The secret was used without its checksum, the last six characters: use the whole secret."),
        (digits[:-6], "The secret was used without its prefix and checksum: use the whole secret."),
        (secret.lower(), "The secret was used in lower case: upper and lower case differ."),
        (secret.upper(), "The secret was used in upper case: upper and lower case differ."),
        (hashlib.sha256(secret.encode()).hexdigest(), "The SHA-256 of the secret was used: use the secret itself."),
    ):  # fmt: skip
        yield Variant(value.encode(), mistake)
    yield Variant(
        hashlib.sha256(secret.encode()).digest(),
        "The bytes of the SHA-256 of the secret were used: use the secret itself.",
    )
    yield Variant(secret.encode("utf-16-le"), "The secret was encoded in UTF-16: encode it in UTF-8.")
    yield Variant(b"", "The secret was empty: the client did not load it.")


def other_digests(secret: bytes, text: bytes) -> Iterator[tuple[str, bytes]]:
    """Return the digests of 32 bytes that are no HMAC-SHA256 with the secret as its key."""
    yield "The key and the message of the HMAC were swapped.", hmac.digest(text, secret, "sha256")
    for joined in (secret + text, text + secret):
        yield "A SHA-256 of secret and text was sent: use the HMAC-SHA256.", hashlib.sha256(joined).digest()
    yield "A SHA-256 without the secret was sent: use the HMAC-SHA256.", hashlib.sha256(text).digest()
    yield (
        "The HMAC was made with SHA-512 and cut: use SHA-256.",
        hmac.digest(secret, text, "sha512")[:32],
    )
    yield "The HMAC was made with SHA3-256: use SHA-256.", hmac.digest(secret, text, "sha3_256")
    hashed = hashlib.sha256(text)
    for inner in (hashed.digest(), hashed.hexdigest().encode()):
        yield (
            "The SHA-256 of the text was signed: sign the text itself.",
            hmac.digest(secret, inner, "sha256"),
        )
