"""The keys in the files of other systems, one after the other, in the form of `POST /v1/keys/import`.

`latchkey` and `unkey` files have a JSON object in each line. Those of Kong and APISIX have a consumer in each line, or are one
JSON document with all consumers.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import IO, Any

import msgspec

from latchkey.service.rule_error import RuleError

MILLISECONDS = 1000  # in a second
LONGEST_LINE_BYTES = 64 * 1024
LARGEST_DOCUMENT_BYTES = 512 * 1024 * 1024
NO_OBJECT = "it is not a JSON object of at most 64 KiB"

Fields = dict[str, Any]
REFERENCES = ("$env://", "$secret://", "{vault://")
REFILLS = {"daily": "day", "monthly": "month"}


class Entry(msgspec.Struct, frozen=True):
    """A key in a file, or a part of the file that is none."""

    place: str
    """Where it is, as `line 3` or `consumer 3`."""
    fields: Fields | None = None
    """As in the body of an import; None if there is no key."""
    fault: str | None = None
    """Why there is no key."""

    def __repr__(self) -> str:
        return f"Entry(place={self.place!r}, fault={self.fault!r})"


class FileFormatError(ValueError):
    """A file has another format."""


class Format(msgspec.Struct, frozen=True):
    """A format of files.

    Args:
        keys_of: returns the keys of an object, and a sentence for each part that cannot be imported.
        is_line: whether an object is that of a line, and not a document with all of them.
        objects_in: returns the list of objects in a document.
    """

    keys_of: Callable[[Fields], Iterable[Fields | str]]
    is_line: Callable[[Fields], bool]
    objects_in: Callable[[Fields], Any] = lambda _: None


def read_entries(file: IO[bytes], format: Format) -> Iterator[Entry]:
    """Return the keys in a file, in their order.

    Raises:
        FileFormatError: the file is neither lines nor a document of the format.
    """
    for place, found in read_objects(file, format):
        if not isinstance(found, dict):
            yield Entry(place, fault=NO_OBJECT)
            continue
        try:
            for key in format.keys_of(found):
                yield Entry(place, fault=key) if isinstance(key, str) else Entry(place, key)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            yield Entry(place, fault="it has not the form of this format")


def read_objects(file: IO[bytes], format: Format) -> Iterator[tuple[str, Any]]:
    """Return the objects in a file with their places; None for a line without one."""
    first = file.readline(LARGEST_DOCUMENT_BYTES + 1)
    if not first:
        return
    found = decoded(first)
    if format.is_line is every_line or (found is not None and format.is_line(found)):
        lines = itertools.chain([first], iter(lambda: read_line(file), b""))
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"line {number}", decoded(line) if len(line) <= LONGEST_LINE_BYTES else None
        return
    text = first + file.read(LARGEST_DOCUMENT_BYTES + 1 - len(first))
    document = decoded(text) if len(text) <= LARGEST_DOCUMENT_BYTES else None
    objects = None if document is None else format.objects_in(document)
    if not isinstance(objects, list):
        raise FileFormatError(
            "it is neither JSON lines with a consumer in each line nor a JSON document with consumers"
        )
    for number, one in enumerate(objects, start=1):
        yield f"consumer {number}", one


def read_line(file: IO[bytes]) -> bytes:
    """Return the next line; of one that is too long only the start, which is longer than permitted."""
    line = file.readline(LONGEST_LINE_BYTES + 1)
    rest = line
    while len(rest) > LONGEST_LINE_BYTES and not rest.endswith(b"\n"):
        rest = file.readline(LONGEST_LINE_BYTES + 1)
    return line


def decoded(text: bytes) -> Fields | None:
    """Return the JSON object in a text; None for anything else."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


# ---------------------------------------------------------------------- Unkey


def unkey_keys(key: Fields) -> Iterator[Fields | str]:
    """Return the key of a line as Unkey's migration takes it: its hash, its metadata and its limits."""
    owner = key.get("externalId") or key.get("ownerId")
    fields: Fields = {"name": key.get("name") or owner or "imported", "meta": key.get("meta") or {}}
    if owner is not None:
        fields["user_external_id"] = owner
    if key.get("enabled") is False:
        yield "the key is disabled"
        return
    try:
        fields |= unkey_secret(key)
        fields |= unkey_limits(key)
    except RuleError as error:
        yield error.reason
        return
    if key.get("permissions"):
        fields["scopes"] = [":".join(one.rsplit(".", 1)) for one in key["permissions"]]
    if key.get("roles"):
        fields["roles"] = key["roles"]
    if key.get("expires"):
        fields["expires_at"] = datetime.fromtimestamp(key["expires"] / MILLISECONDS, UTC)
    yield fields


def unkey_secret(key: Fields) -> Fields:
    """Return the secret of a key, or its SHA-256: in base64 unless the hash names another variant."""
    if (secret := key.get("plaintext")) is not None:
        return {"secret": secret}
    stored = key["hash"]
    if not isinstance(stored, Mapping):
        return {"sha256": stored}
    if stored.get("variant", "sha256_base64") not in {"sha256_base64", "sha256_hex"}:
        raise RuleError("the hash is not a SHA-256")
    return {"sha256": stored["value"]}


def unkey_limits(key: Fields) -> Fields:
    """Return the rate limits that apply to each call, and the credits."""
    fields: Fields = {}
    limits = [one for one in key.get("ratelimits") or () if one.get("autoApply", True)]
    if any(one["duration"] % MILLISECONDS for one in limits):
        raise RuleError("a rate limit is not of whole seconds")
    if limits:
        fields["limits"] = [
            {"name": one["name"], "limit": one["limit"], "window_s": one["duration"] // MILLISECONDS}
            for one in limits
        ]
    held = key.get("credits") or {"remaining": key.get("remaining")}
    if held.get("remaining") is None:
        return fields
    fields["credits"] = {"remaining": held["remaining"]}
    if (refill := held.get("refill")) is not None:
        if refill.get("refillDay", 1) != 1 or refill["interval"] not in REFILLS:
            raise RuleError("a refill is neither at the start of the day nor of the month")
        fields["credits"]["refill"] = {"amount": refill["amount"], "every": REFILLS[refill["interval"]]}
    return fields


# ---------------------------------------------------------------------- Kong


def kong_keys(consumer: Fields) -> Iterator[Fields | str]:
    """Return the keys of a consumer of Kong, as decK or the Admin API describe it with its credentials."""
    owner = consumer.get("custom_id") or consumer["username"]
    name = consumer.get("username") or owner
    for credential in consumer.get("keyauth_credentials") or ():
        fields = {"user_external_id": owner, "name": f"{name} key-auth", "secret": credential["key"]}
        if credential.get("ttl") is not None:
            if credential.get("created_at") is None:
                yield "a credential of key-auth has a ttl, and no created_at"
                continue
            ends_at = datetime.fromtimestamp(credential["created_at"] + credential["ttl"], UTC)
            fields["expires_at"] = ends_at
        yield with_id(fields, credential)
    for credential in consumer.get("hmacauth_credentials") or ():
        fields = {"user_external_id": owner, "name": f"{name} hmac-auth", "mode": "signed"}
        yield with_id({**fields, "secret": credential["secret"]}, credential)
    yield from others(consumer, ("_credentials", "_secrets"), {"keyauth_credentials", "hmacauth_credentials"})


def with_id(fields: Fields, credential: Fields) -> Fields | str:
    """Return the fields of a credential with its id as the external id; a sentence if its secret is stored elsewhere."""
    if fields["secret"].startswith(REFERENCES):
        return "a credential is a reference to another store"
    return {**fields, "external_id": credential["id"]} if credential.get("id") else fields


def others(consumer: Fields, suffix: str | tuple[str, ...], known: set[str]) -> Iterator[str]:
    """Return a sentence for each kind of credential that cannot be imported."""
    for kind in sorted(name for name, found in consumer.items() if name.endswith(suffix) and found):
        if kind not in known:
            yield f"{kind} cannot be imported"


# ---------------------------------------------------------------------- APISIX


def apisix_keys(consumer: Fields) -> Iterator[Fields | str]:
    """Return the keys of a consumer of APISIX, as its Admin API describes it."""
    consumer = consumer.get("value", consumer)
    owner, plugins = consumer["username"], consumer.get("plugins") or {}
    meta = {name: consumer[name] for name in ("desc", "labels") if consumer.get(name)}
    if "key-auth" in plugins:
        fields = {"user_external_id": owner, "name": f"{owner} key-auth", "meta": meta}
        yield with_id({**fields, "secret": plugins["key-auth"]["key"]}, {})
    if "hmac-auth" in plugins:
        fields = {"user_external_id": owner, "name": f"{owner} hmac-auth", "meta": meta, "mode": "signed"}
        yield with_id({**fields, "secret": plugins["hmac-auth"]["secret_key"]}, {})
    yield from others(plugins, "-auth", {"key-auth", "hmac-auth"})


def every_line(_: Fields) -> bool:
    """Return True: the format has no documents."""
    return True


FORMATS: Mapping[str, Format] = {
    "latchkey": Format(lambda key: (key,), every_line),
    "unkey": Format(unkey_keys, every_line),
    "kong": Format(
        kong_keys,
        lambda found: not isinstance(found.get("consumers") or found.get("data"), list),
        lambda found: found.get("consumers") or found.get("data"),
    ),
    "apisix": Format(
        apisix_keys,
        lambda found: "username" in found or "value" in found,
        lambda found: found.get("list"),
    ),
}
