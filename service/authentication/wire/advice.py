"""The advice for a credential of the wrong shape: the expected form of a part, and the usual mistake that its text shows.

Every sentence is fixed, and none contains a part of the request: a client may have sent its secret in any place.
"""

import re
from collections.abc import Iterable, Sequence

import msgspec

EXPOSED = "The secret of a key was sent here, which must never happen: it is exposed, so rotate the key."

# The end of a secret, whatever its prefix; `credentials` defines the format. In a URL the `_` may be escaped.
_SECRET = re.compile(r"s(?:_|%5[Ff])(?:[0-9A-Za-z]{1,16}(?:_|%5[Ff]))?[0-9A-Za-z]{49}")

_MESSAGE_FIELD = 'sig1=("@method" …);created=…;keyid="…";nonce="…";tag="latchkey-v1"'

# Longer than any right text of a part with costly patterns, so that a wrong one is recognised in bounded time.
_EXAMINED_CHARACTERS = 512

Looks = Sequence[tuple[str, str]]


class CredentialPart(msgspec.Struct, frozen=True):
    """The expected form of a part of a credential, and what some wrong texts mean."""

    expected: str
    looks: Looks = ()
    is_for_secrets: bool = False
    """Whether a client may send the secret of a key here."""

    def advice(self, text: str) -> str:
        """Return the expected form and, if it can be recognised, the mistake in a text."""
        if not self.is_for_secrets and contains_secret(text):
            return f"{self.expected} {EXPOSED}"
        start = text[:_EXAMINED_CHARACTERS]
        found = (words for pattern, words in self.looks if re.fullmatch(pattern, start, re.DOTALL))
        return f"{self.expected} {next(found, '')}".rstrip()


def contains_secret(text: str) -> bool:
    """Return whether a text contains the secret of a key, or the same with a typing error."""
    return _SECRET.search(text) is not None


def _time(name: str) -> CredentialPart:
    return CredentialPart(
        f"`{name}` must be the Unix time in whole seconds, in digits alone, such as 1700000000.",
        (
            (r"", "It is empty."),
            (r"[0-9]{13}", "It has 13 digits, as milliseconds have: divide by 1,000."),
            (r"[0-9]{14}", "It has 14 digits, as a date without separators has."),
            (r"[0-9]{16}", "It has 16 digits, as microseconds have: divide by 1,000,000."),
            (r"[0-9]{19}", "It has 19 digits, as nanoseconds have: divide by 1,000,000,000."),
            (r"\"?[0-9]{4}-[0-9]{2}-[0-9]{2}.*", "It is a date (ISO 8601)."),
            (r"\"?[A-Za-z]{3},? .*", "It is a date in words."),
            (r"[0-9]+[.,][0-9]*", "It has a fraction: round it down."),
            (r"[0-9.]+[eE].*", "It is written with an exponent."),
            (r"0[xX].*", "It is hexadecimal."),
            (r"\".*\"|'.*'", "It is in quotes."),
            (r"@.*", "It begins with @."),
            (r"[+-].*", "It has a sign."),
            (r"0[0-9]+", "It begins with 0."),
            (r".*\s.*", "It contains white space."),
        ),
    )


def _mac(name: str) -> CredentialPart:
    return CredentialPart(
        f"{name} must be the 32 bytes of the HMAC-SHA256 in base64 (RFC 4648, section 4): 44 characters that end in `=`.",
        (
            (r"", "It is empty."),
            (r"[0-9a-fA-F]{64}", "It is hexadecimal: encode the bytes of the MAC in base64."),
            (r"(?i:0x|sha256=|hmac-sha256=)[0-9a-f]{64}", "It is hexadecimal, with a prefix."),
            (r".*[= ][0-9a-fA-F]{64}", "It contains the hexadecimal output of a tool."),
            (r"[0-9A-Za-z_-]{43}=?", "It is URL-safe base64, or has no padding: use `+`, `/` and the final `=`."),
            (r"[0-9A-Za-z+/]{43}", "It lacks the padding: the final `=`."),
            (r"[0-9A-Za-z+/]{86}==", "It has 64 bytes: hexadecimal digits were encoded, or SHA-512 was used."),
            (r"[0-9A-Za-z+/]{27}=", "It has 20 bytes, as SHA-1 has."),
            (r"[0-9A-Za-z+/]{64}", "It has 48 bytes, as SHA-384 has."),
            (r"[0-9A-Za-z+/]{43}=", "Its last digit has unused bits that are not zero (RFC 4648, section 3.5)."),
            (r".*%[0-9A-Fa-f]{2}.*", "It is percent-encoded: a header is sent as it is."),
            (r"\".*\"|'.*'", "It is in quotes."),
            (r":.*|.*:", "It has colons, which belong to the header `Signature` alone."),
            (r".*\s.*", "It contains white space: it must be one line without spaces."),
        ),
    )  # fmt: skip


FIELDS = frozenset({"content-type", "content-digest", "idempotency-key"})
"""The header fields that a signature covers if they are sent."""

NONCE_LOOKS: Looks = (
    (r"\"?\"?", "It is empty."),
    (r"\"?[A-Za-z0-9_-]{1,15}\"?", "It has fewer than 16 characters."),
    (r"\"?[A-Za-z0-9_-]{65,}\"?", "It has more than 64 characters."),
    (r"[A-Za-z0-9_-]+", "It is not in quotes."),
    (r":.*:", "It is a byte sequence, and must be a string in quotes."),
    (r"\"?[A-Za-z0-9+/=_-]+\"?", "It has `+`, `/` or `=`, as base64 has: use URL-safe base64 without padding."),
    (r"\{.*\}|\"\{.*\}\"", "It has braces: leave them out."),
)  # fmt: skip

QUERY = {
    "key": CredentialPart(
        "`key` must be the access key, in visible ASCII characters.",
        ((r"", "It is empty."), (r".*\s.*", "It contains white space.")),
    ),
    "timestamp": _time("timestamp"),
    "nonce": CredentialPart("`nonce` must be 16 to 64 characters from `A-Z a-z 0-9 _ -`.", NONCE_LOOKS),
    "method": CredentialPart(
        "`method` must be the method of the request in upper case, such as POST.",
        ((r"", "It is empty."), (r"[A-Za-z-]+", "It has lower-case letters.")),
    ),
    "path": CredentialPart(
        "`path` must be the path of the request as it is sent: it begins with `/`, and everything outside visible ASCII "
        "is percent-encoded, before the query is encoded.",
        (
            (r"", "It is empty."),
            (r"(?i:https?)://.*", "It is a whole URL."),
            (r"[!-~]+", "It does not begin with `/`."),
            (r".*\s.*", "It contains white space."),
        ),
    ),
    "content_sha256": CredentialPart(
        "`content_sha256` must be the SHA-256 of the body in 64 lower-case hexadecimal digits.",
        (
            (r"", "It is empty: without a body, send the SHA-256 of the empty text."),
            (r"[0-9A-Fa-f]{64}", "It has upper-case digits."),
            (r"[0-9A-Za-z+/_ -]{43}=?", "It is base64."),
            (r"(?i:sha-?256)[=:-].*", "It has a prefix."),
            (r"[0-9A-Fa-f]{32}", "It has 32 digits, as MD5 has."),
            (r"[0-9A-Fa-f]{40}", "It has 40 digits, as SHA-1 has."),
            (r"[0-9A-Fa-f]{128}", "It has 128 digits, as SHA-512 has."),
            (r"[0-9A-Fa-f]+", "It has another number of digits."),
        ),
    ),
}
"""The parameters of a signed query."""

MAC_OF_QUERY = _mac("The header `secret`")
MAC_OF_MESSAGE = _mac("The value of `Signature` between its colons")

TAG = CredentialPart(
    'Exactly one signature must have the parameter `tag="latchkey-v1"`.',
    (
        (r"", "No signature has a tag."),
        (r"latchkey-v1", "The tag is not in quotes."),
        (r"(?i:\"latchkey-v1\")", "The tag has upper-case letters."),
        (r".*", "The tag is another one."),
    ),
)

MESSAGE = {
    "created": _time("created"),
    "expires": _time("expires"),
    "keyid": CredentialPart(
        "`keyid` must be the access key in quotes.",
        (('""|', "It is empty."), (r"[!#-~]+", "It is not in quotes.")),
    ),
    "nonce": CredentialPart("`nonce` must be 16 to 64 characters from `A-Z a-z 0-9 _ -`, in quotes.", NONCE_LOOKS),
    "tag": TAG,
    "alg": CredentialPart(
        '`alg` may be left out; otherwise it must be "hmac-sha256", in quotes.',
        (
            (r"hmac-sha256", "It is not in quotes."),
            (r"(?i:\"?(hs256|hmac|hmac_sha256|sha256|sha-256)\"?)", "It is another name of the algorithm."),
            (r"(?i:\"hmac-sha256\")", "It has upper-case letters."),
            (r".*", "It is another algorithm."),
        ),
    ),
}  # fmt: skip
"""The parameters of a signed message."""

SIGNATURE_INPUT = CredentialPart(
    f"`Signature-Input` must be a dictionary of inner lists (RFC 8941): `{_MESSAGE_FIELD}`.",
    (
        (r"", "It is empty."),
        (r"\(.*", "Its label is missing."),
        (r"(?i:keyid=).*", "It is the form of the draft by Cavage, which RFC 9421 replaced."),
        (r"[^(]*", "It has no list of components in parentheses."),
        (r"[^(]*\([@a-z].*", "Its components are not in quotes."),
        (r"[^(]*\('.*", "Its components are in single quotes."),
        (r"[^(]*\([^)]*,.*", "Its components are separated by commas, and must be separated by one space."),
        (r"[^(]*\([^)]*", "The parenthesis is not closed."),
        (r"[^(]*\( .*|[^)]* \).*|[^)]*  .*", "Its components must be separated by one space, without a space at either end."),
        (r".*\)(;[^\s;]+)*(\s+;|;\s).*", "It has white space around a semicolon."),
        (r".*\)[^;]*,.*|.*\)(;[^;,]+)+,.*", "Its parameters are separated by commas, and must be separated by semicolons."),
        (r".*\)[^;].*", "A semicolon must follow the parenthesis."),
        (r".*;[a-z]*[A-Z][A-Za-z]*=.*", "The name of a parameter has upper-case letters."),
        (r".*'.*", "It has single quotes."),
    ),
)  # fmt: skip
SIGNATURE = CredentialPart(
    "`Signature` must be a dictionary of byte sequences (RFC 8941): the label of the input, and the base64 of the MAC "
    "between colons, as in `sig1=:…:`.",
    (
        (r"", "It is empty."),
        (r":.*", "Its label is missing."),
        (r"(?i:keyid=).*|.*,\s*(?i:signature=).*", "It is the form of the draft by Cavage, which RFC 9421 replaced."),
        (r"[0-9A-Za-z+/_-]{43}=?|[0-9A-Fa-f]{64}", "It is the MAC alone: its label and the colons are missing."),
        (r"[A-Z].*=.*", "Its label has upper-case letters."),
        (r"[^=]+=[^:].*[^:]", "The colons around the base64 are missing."),
        (r"[^=]+=[^:].*|[^=]+=:.*[^:]", "One of the two colons around the base64 is missing."),
    ),
)  # fmt: skip
COMPONENTS = CredentialPart(
    "The list of components must have names in quotes, in lower case, without parameters, separated by one space.",
    (
        (r"", "It is empty, so nothing of the request would be signed."),
        (r".*;.*", "A component has parameters."),
        (r".*[A-Z].*", "A name has upper-case letters."),
        (r"[a-z@].*", "A name is not in quotes."),
    ),
)
CONTENT_DIGEST = CredentialPart(
    "`Content-Digest` must contain one SHA-256 and no other digest (RFC 9530): `sha-256=:<base64 of the body's SHA-256>:`.",
    (
        (r"", "It is empty."),
        (r"(?i:sha-?256)=:[0-9A-Fa-f]{64}:", "The digest is hexadecimal, and must be base64."),
        (r"sha-256=:[0-9A-Za-z_-]{43}=?:", "The digest is URL-safe base64, or has no padding."),
        (r"sha-256=[^:].*", "The colons around the base64 are missing."),
        (r"(?i:sha-?256)=.*", "The name of the algorithm is `sha-256`, in lower case with a hyphen."),
        (r"sha-256=:.*[^:]", "The final colon is missing."),
        (r"[0-9A-Za-z+/=_-]+", "The name of the algorithm and the colons are missing."),
        (r".*sha-256=.*", "It contains another digest too."),
        (r".*(?i:md5|sha)-?[0-9]*=.*", "It contains another algorithm."),
    ),
)  # fmt: skip

AUTHORIZATION = CredentialPart(
    "`Authorization` must be `Bearer <secret>`, with the secret of a key of the mode `bearer`.",
    (
        (r"", "It is empty."),
        (r"(?i:bearer)\s*", "The secret is missing."),
        (r"(?i:bearer)\s*[:=].*", "A space must follow `Bearer`, and nothing else."),
        (r"(?i:bearer) +[\"'<{].*", "The secret is in quotes or brackets: leave them out."),
        (r"(?i:bearer)\s+.*[\s,].*", "More than one word follows `Bearer`."),
        (r"(?i:bearer)\s+.*", "The token has a character that no token has."),
        (r"(?i:bearer).*", "A space must follow `Bearer`."),
        (r"(?i:basic)\b.*", "The scheme Basic is not supported."),
        (r"(?i:signature)\b.*", "It is the form of the draft by Cavage, which RFC 9421 replaced."),
        (r"(?i:aws4-hmac-sha256|hmac|hmac-sha256)\b.*", "A signature has headers of its own."),
        (r"[0-9A-Za-z]+s_(?:[0-9A-Za-z]+_)?[0-9A-Za-z]{49}", "The word `Bearer` is missing."),
        (r"(?i:token|apikey|api-key|key|digest|negotiate|dpop)\b.*", "The scheme is not supported."),
    ),
    is_for_secrets=True,
)  # fmt: skip


KEY_HEADER = CredentialPart(
    "The header must be the secret of a key of the mode `bearer`, and nothing else.",
    (
        (r"", "It is empty."),
        (r"(?i:bearer)\s.*", "The word `Bearer` belongs to the header `Authorization` alone."),
        (r"[\"'<{].*", "The secret is in quotes or brackets: leave them out."),
        (r".*\s.*", "It contains white space."),
    ),
    is_for_secrets=True,
)
NO_CREDENTIAL = CredentialPart(
    "Send `Authorization: Bearer <secret>` with a key of the mode `bearer`. With a key of the mode `signed`, sign the query or "
    "the message.",
    ((r"(.*&)?(timestamp|content_sha256|nonce)=.*", "A signed query also has the parameter `key`, and the header `secret`."),),
)  # fmt: skip
_SIGNED_QUERY = "A signed query has one parameter `key`, with the access key, and one header `secret`, with the signature of the query."
SIGNED_QUERY_WITHOUT_MAC = CredentialPart(_SIGNED_QUERY)
SIGNED_QUERY_WITHOUT_KEY = CredentialPart(
    _SIGNED_QUERY,
    ((r"(.*&)?(?i:key|access_key|accesskey|api_key|apikey|keyid|key_id)=.*", "The name of the parameter is `key`, in lower case."),),
)  # fmt: skip
SIGNED_MESSAGE = CredentialPart(
    "A signed message has the headers `Signature-Input` and `Signature`, with one label."
)


def access_key_part(name: str, prefix: str) -> CredentialPart:
    """Return the form of an access key in a place of this name."""
    return CredentialPart(
        f"`{name}` must be the access key: `{prefix}a_` and 22 letters and digits.",
        (
            (r"", "It is empty."),
            (rf"{re.escape(prefix)}s_.*", "It begins as a secret does."),
            (rf"{re.escape(prefix)}a_[0-9A-Za-z]{{0,21}}", "Some of its characters are missing."),
            (rf"{re.escape(prefix)}a_[0-9A-Za-z]{{23,}}", "It has too many characters."),
            (rf"(?i:{re.escape(prefix)}a_).*", "It has a character that no access key has."),
            (r"[0-9A-Za-z]{22}", "It lacks its prefix."),
            (r"[0-9A-Za-z]+a_[0-9A-Za-z]{22}", "It has the prefix of another installation."),
            (r".*@.*", "It is an email address."),
        ),
    )


def token_part(prefix: str) -> CredentialPart:
    """Return the form of a bearer token."""
    digits = r"[0-9A-Za-z]"
    mark = r"(?:[a-z][a-z0-9]{0,15}_)?"  # of an environment
    return CredentialPart(
        f"The token must be the secret of a key: `{prefix}s_` and 49 letters and digits, the last six of which are a checksum. "
        f"It may name an environment, as in `{prefix}s_test_`.",
        (
            (rf"{re.escape(prefix)}a_.*", "It is an access key, which is public and proves nothing."),
            (rf"{re.escape(prefix)}s_{mark}{digits}{{49}}", "The checksum is wrong: a character of the secret is mistyped."),
            (rf"{re.escape(prefix)}s_{mark}{digits}{{0,48}}", "Some of its characters are missing."),
            (rf"{re.escape(prefix)}s_{mark}{digits}{{50,}}", "It has too many characters."),
            (rf"(?i:{re.escape(prefix)}s_{mark}{digits}{{49}})", "Its prefix must be in lower case."),
            (rf"{digits}{{49}}", "It lacks its prefix."),
            (rf"[0-9A-Za-z]+s_{mark}{digits}{{49}}", "It has the prefix of another installation."),
            (r"[0-9A-Za-z_-]+\.[0-9A-Za-z_-]+\.[0-9A-Za-z_-]*", "It is a JSON Web Token, which this service does not accept."),
        ),
        is_for_secrets=True,
    )  # fmt: skip


def of_signature(text: str) -> str:
    """Return the advice for a `Signature` that is no dictionary of base64: for its form, or for a MAC in it."""
    value = re.fullmatch(r"[a-z*][a-z0-9_.*-]*=:([^:,]*):", text)
    return MAC_OF_MESSAGE.advice(value[1]) if value else SIGNATURE.advice(text)


OF_TARGET = "`@target-uri` may replace `@authority`, `@path` and `@query`."


def of_components(surplus: Iterable[str], allowed: Sequence[str]) -> str:
    """Return the advice for a signature that covers components that it must not cover."""
    names = sorted(name for name in surplus if name in FIELDS)
    absent = f" The request has no header {', '.join(names)}." if names else ""
    whole = [name for name in allowed if name != "@target-uri"]
    return f"A signature of this request covers {', '.join(whole)}, and nothing else. {OF_TARGET}{absent}"


def of_coverage(missing: Sequence[str], needed: Sequence[str]) -> str:
    """Return the advice for a signature that does not cover every part that it must cover."""
    digest = "content-digest" in missing and "content-digest" not in needed
    added = " Send `Content-Digest` with the SHA-256 of the body." if digest else ""
    whole = ", ".join(dict.fromkeys((*needed, *missing)))
    return f"A signature of this request must cover {whole}. {OF_TARGET}{added}"
