"""The settings: every `LATCHKEY_*` variable, with its type, bounds and default. No other module reads the environment."""

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from latchkey.models.api_key import ENVIRONMENT_PATTERN
from latchkey.service.secret_files import SecretFileError, read_secret_files
from latchkey.service.value_rules import describe_type

PREFIX = "LATCHKEY_"
BYTE_ORDER_MARK = "\ufeff"  # some editors begin a file with it, and `$(cat FILE)` keeps it
TEST_PREFIX = "LATCHKEY_TEST_"
CALLERS_SECRET = "LATCHKEY_SECRET"  # noqa: S105 - the variable with the secret for `latchkey call` and `latchkey sign`
SECRETS = frozenset({"keyring", "database_url", "reader_url", "redis_url"})  # URLs contain passwords


def application_named_in(environ: Mapping[str, str]) -> str | None:
    """Return only the setting `app`: a team's application may read the others in another way."""
    return environ.get(f"{PREFIX}APP") or None


class SettingsError(ValueError):
    """A setting is unknown, missing or out of bounds; the message names it and explains what is valid."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a process.

    Each field is the variable `LATCHKEY_<NAME>`; `docs/settings.md` has a paragraph for each.
    """

    app: str | None = None
    database_url: str = "sqlite+aiosqlite:///latchkey.db"
    reader_url: str | None = None
    read_your_writes: Literal["gtid"] | None = None
    pool_size: Annotated[int, Meta(ge=1, le=1000)] = 10
    pool_timeout_s: Annotated[float, Meta(gt=0, le=60)] = 2.0
    database_timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 15.0
    connection_idle_s: Annotated[float, Meta(gt=0, le=86_400)] = 300.0
    lock_wait_s: Annotated[int, Meta(ge=1, le=3600)] = 5
    keyring: str | None = None
    key_prefix: Annotated[
        str,
        Meta(
            pattern=r"^[a-z][a-z0-9]{0,15}$(?![\s\S])",
            description="a lower-case letter and up to 15 lower-case letters or digits",
        ),
    ] = "lk"
    environments: Annotated[str, Meta(max_length=200)] = "live,test"
    public_authority: (
        Annotated[
            str,
            Meta(
                pattern=r"^[a-z0-9.:\[\]-]{1,255}$(?![\s\S])",
                description="a host in lower case, with a port if it is not the default one, as in api.example.com",
            ),
        ]
        | None
    ) = None
    public_origin: (
        Annotated[
            str,
            Meta(
                pattern=r"^https?://[a-z0-9.:\[\]-]{1,255}$(?![\s\S])",
                description="a scheme and a host in lower case, without a path, as in https://api.example.com",
            ),
        ]
        | None
    ) = None
    root_path: (
        Annotated[
            str,
            Meta(
                pattern=r"^(/[A-Za-z0-9._~-]{1,100}){1,5}$(?![\s\S])",
                description="one to five names of letters, digits and . _ ~ -, each after a slash, as in /partners",
            ),
        ]
        | None
    ) = None
    clock_window_s: Annotated[int, Meta(ge=1, le=3600)] = 60
    body_limit_bytes: Annotated[int, Meta(ge=1024, le=1024 * 1024 * 1024)] = 1024 * 1024
    body_timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    stream_timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    request_memory_bytes: Annotated[int, Meta(ge=1024, le=64 * 1024 * 1024 * 1024)] = 8 * 1024 * 1024
    header_limit_bytes: Annotated[int, Meta(ge=1024, le=1024 * 1024)] = 16 * 1024
    header_limit_lines: Annotated[int, Meta(ge=10, le=10_000)] = 100
    header_timeout_s: Annotated[float, Meta(gt=0, le=600)] = 10.0
    keep_alive_s: Annotated[int, Meta(ge=1, le=3600)] | None = None
    connections: Annotated[int, Meta(ge=1, le=100_000)] = 512
    pipelined_requests: Annotated[int, Meta(ge=0, le=1000)] = 16
    key_cache_ttl_s: Annotated[int, Meta(ge=0, le=3600)] = 0
    redis_url: str | None = None
    nonces: Literal["database", "redis"] = "database"
    limits: Literal["database", "redis"] = "database"
    imported_secrets: Annotated[str, Meta(max_length=500)] | None = None
    key_headers: Annotated[str, Meta(max_length=1000)] | None = None
    trusted_proxies: str | None = None
    gate_rules: str | None = None
    auth_failures_per_min: Annotated[int, Meta(ge=0, le=1_000_000)] = 1000
    keys_per_owner: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    audit_head_path: str | None = None
    ended_keys_kept_days: Annotated[int, Meta(ge=1, le=36_500)] = 365
    leak_grace_s: Annotated[int, Meta(ge=0, le=2_592_000)] = 0
    github_public_keys: Annotated[str, Meta(max_length=2048)] | None = None
    webhook_networks: Annotated[str, Meta(max_length=5000)] | None = None
    webhook_http: Literal["refuse", "allow"] = "refuse"
    webhook_retry_s: Annotated[float, Meta(ge=0.001, le=3600)] = 5.0
    webhook_give_up_s: Annotated[float, Meta(gt=0, le=2_592_000)] = 259_200.0
    webhook_timeout_s: Annotated[float, Meta(gt=0, le=60)] = 10.0
    stored_answers_per_key: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 100_000
    usage_flush_s: Annotated[float, Meta(ge=0.1, le=60)] = 5.0
    usage_minutes_kept_hours: Annotated[int, Meta(ge=1, le=720)] = 6
    usage_hours_kept_days: Annotated[int, Meta(ge=1, le=3660)] = 14
    usage_days_kept_days: Annotated[int, Meta(ge=1, le=36_500)] = 400
    limits_on_outage: Literal["refuse", "allow"] | None = None
    log_format: Literal["text", "json"] = "text"
    traces: Literal["off", "opentelemetry"] = "off"
    server_timing: bool = False
    docs: bool = True
    host: Annotated[
        str, Meta(min_length=1, max_length=255, description="an address, or the name of a host")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65_535)] = 8000
    workers: Annotated[int, Meta(ge=1, le=1000)] = 1

    def __repr__(self) -> str:
        """Return all values except secrets."""
        shown = (
            f"{name}={'…' if name in SECRETS and value is not None else repr(value)}"
            for name, value in ((name, getattr(self, name)) for name in self.__struct_fields__)
        )
        return f"Settings({', '.join(shown)})"

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Return the settings in `environ`; an empty value counts as absent.

        `LATCHKEY_KEYRING_FILE`, and the same for the other `SECRETS`, names a file with the value.

        Raises:
            SettingsError: there is an unknown `LATCHKEY_` name, for which the message suggests the nearest one, or a value
                out of bounds. `LATCHKEY_TEST_` names belong to the tests, and `LATCHKEY_SECRET` to the commands that make a
                partner's calls; both are ignored.
        """
        passed_over = {variable for variable in environ if variable.startswith(TEST_PREFIX)} | {
            CALLERS_SECRET
        }
        own = {variable: value for variable, value in environ.items() if variable not in passed_over}
        try:
            with_secrets = read_secret_files(own, [PREFIX + name.upper() for name in sorted(SECRETS)])
        except SecretFileError as error:
            raise SettingsError(str(error)) from None
        return read_settings(cls, with_secrets, prefix=PREFIX)


SettingsStruct = TypeVar("SettingsStruct", bound=msgspec.Struct)


def read_settings(kind: type[SettingsStruct], environ: Mapping[str, str], *, prefix: str) -> SettingsStruct:
    """Return a team's own settings: each field is the variable with the prefix and the field's name in upper case.

    An empty value counts as absent. Types and bounds are those of the fields; texts are converted to the type of the
    field::

        class OrderSettings(msgspec.Struct, frozen=True, kw_only=True):
            carrier: str
            largest: Annotated[int, Meta(ge=1, le=1000)] = 100


        settings = read_settings(OrderSettings, os.environ, prefix="ORDERS_")

    Args:
        kind: the Struct.
        environ: variables and their values, as in `os.environ`.
        prefix: of the names of all variables. Every variable with this prefix must be a setting.

    Raises:
        SettingsError: there is an unknown variable with the prefix, for which the message suggests the nearest one; or a
            variable is missing, or its value out of bounds. The message does not contain the value, which may be secret.
    """
    fields = dict(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))
    names = {prefix + field.upper(): encoded for field, encoded in fields.items()}
    variables = {encoded: variable for variable, encoded in names.items()}
    values: dict[str, Any] = {}
    for variable, value in environ.items():
        if not variable.startswith(prefix):
            continue
        if variable not in names:
            # Compared without the prefix, which would make any two names similar.
            slip, right = variable.removeprefix(prefix).upper(), [field.upper() for field in fields]
            near = difflib.get_close_matches(slip, right, n=1, cutoff=0.5)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"there are {', '.join(sorted(names))}."
            raise SettingsError(f"there is no setting {variable}: {hint}")
        if value := value.removeprefix(BYTE_ORDER_MARK):
            values[names[variable]] = value
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        rules = {field.encode_name: describe_type(field.type) for field in msgspec.structs.fields(kind)}
        text, _, place = str(error).partition(" - at `$.")
        if missing := MISSING.fullmatch(text):
            raise SettingsError(f"{variables[missing['name']]} is not set.") from None
        wrong = place.rstrip("`")
        rule = rules.get(wrong)
        raise SettingsError(
            f"{variables.get(wrong, prefix)}: {text if rule is None else f'it must be {rule}'}."
        ) from None


MISSING = re.compile(r"Object missing required field `(?P<name>.*)`")


ENVIRONMENT = re.compile(ENVIRONMENT_PATTERN)


def read_environments(text: str) -> tuple[str, ...]:
    """Return the names of the environments of keys, the first of which leaves no mark in a secret.

    Raises:
        SettingsError: a name has a wrong form or is given twice.
    """
    return read_names(
        f"{PREFIX}ENVIRONMENTS",
        text,
        ENVIRONMENT,
        rule="must be a lower-case letter and up to 15 lower-case letters or digits",
    )


DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def read_public_origin(settings: Settings) -> tuple[str | None, str | None]:
    """Return the scheme and the authority that signatures cover; None for those of each request.

    Raises:
        SettingsError: the origin and the authority are both set, and differ.
    """
    authority = settings.public_authority
    if settings.public_origin is None:
        return None, authority
    scheme, _, host = settings.public_origin.partition("://")
    host = host.removesuffix(DEFAULT_PORTS[scheme])
    if authority not in {None, host}:
        raise SettingsError(
            f"{PREFIX}PUBLIC_ORIGIN and {PREFIX}PUBLIC_AUTHORITY name different hosts: set one of them."
        )
    return scheme, host


KEY_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
MOST_NAMES = 10
TAKEN_HEADERS = frozenset(
    {
        "accept", "accept-encoding", "accept-language", "accept-signature", "age", "authorization", "cache-control",
        "connection", "content-digest", "content-encoding", "content-length", "content-type", "cookie", "date", "expect",
        "forwarded", "host", "idempotency-key", "keep-alive", "origin", "proxy-authorization", "proxy-connection", "range",
        "referer", "secret", "signature", "signature-input", "te", "trailer", "transfer-encoding", "upgrade", "user-agent",
        "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id",
    }
)  # fmt: skip
"""Headers with a meaning of their own: for HTTP, for a proxy, or for another credential."""


def read_key_headers(text: str | None) -> tuple[str, ...]:
    """Return the names of the headers that may carry a key, as they are written.

    Raises:
        SettingsError: a name is not one, is given twice, or has another meaning.
    """
    if not text:
        return ()
    variable = f"{PREFIX}KEY_HEADERS"
    names = read_names(variable, text, KEY_HEADER, rule="is not the name of a header")
    for name in names:
        if name.lower() in TAKEN_HEADERS:
            raise SettingsError(f"{variable}: {name} has another meaning, so it cannot carry a key.")
    return names


def read_names(variable: str, text: str, form: re.Pattern[str], *, rule: str) -> tuple[str, ...]:
    """Return the names in a text with commas between them.

    Raises:
        SettingsError: there are too many, a name has a wrong form, or one is given twice, in whatever letter case.
    """
    names = tuple(name.strip() for name in text.split(","))
    if len(names) > MOST_NAMES:
        raise SettingsError(
            f"{variable}: there are {len(names)} names, and at most {MOST_NAMES} are allowed."
        )
    for place, name in enumerate(names):
        if not form.fullmatch(name):
            raise SettingsError(f"{variable}: name {place + 1} {rule}.")
        if name.lower() in {other.lower() for other in names[:place]}:
            raise SettingsError(f"{variable}: {name} is given twice.")
    return names
