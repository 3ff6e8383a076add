"""The settings: the accepted values, the messages for mistakes, and the documentation of each."""

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta

from latchkey.service.settings import PREFIX, SECRETS, Settings, SettingsError, read_settings
from latchkey.service.value_rules import describe_type

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


def test_without_an_environment_every_setting_has_its_default_and_no_secret_has_one() -> None:
    settings = Settings.from_env({})

    assert settings == Settings()
    assert settings.keyring is None
    assert settings.database_url == "sqlite+aiosqlite:///latchkey.db"
    assert (settings.clock_window_s, settings.body_limit_bytes, settings.key_prefix) == (60, 2**20, "lk")


@pytest.mark.parametrize(
    "variable, text, value",
    [
        ("DATABASE_URL", "mysql+asyncmy://a:b@c/d", "mysql+asyncmy://a:b@c/d"),
        ("READER_URL", "mysql+asyncmy://a:b@e/d", "mysql+asyncmy://a:b@e/d"),
        ("POOL_SIZE", "1", 1),
        ("POOL_SIZE", "1000", 1000),
        ("POOL_TIMEOUT_S", "0.5", 0.5),
        ("DATABASE_TIMEOUT_S", "0.5", 0.5),
        ("DATABASE_TIMEOUT_S", "3600", 3600.0),
        ("POOL_TIMEOUT_S", "60", 60.0),
        ("KEYRING", "1:x", "1:x"),
        ("KEY_PREFIX", "acme42", "acme42"),
        ("CLOCK_WINDOW_S", "3600", 3600),
        ("BODY_LIMIT_BYTES", "1024", 1024),
        ("BODY_TIMEOUT_S", "0.5", 0.5),
        ("BODY_TIMEOUT_S", "3600", 3600.0),
        ("KEY_CACHE_TTL_S", "0", 0),
        ("KEY_CACHE_TTL_S", "3600", 3600),
        ("REDIS_URL", "redis://h:6379/0", "redis://h:6379/0"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,::1", "10.0.0.0/8,::1"),
        ("AUTH_FAILURES_PER_MIN", "0", 0),
        ("AUTH_FAILURES_PER_MIN", "1000000", 1_000_000),
        ("STORED_ANSWERS_PER_KEY", "1", 1),
        ("LIMITS_ON_OUTAGE", "allow", "allow"),
        ("LIMITS_ON_OUTAGE", "refuse", "refuse"),
        ("LOG_FORMAT", "json", "json"),
    ],
)
def test_a_setting_is_read_from_its_variable(variable: str, text: str, value: str | float) -> None:
    settings = Settings.from_env({PREFIX + variable: text, "PATH": "/bin", "latchkey_pool_size": "x"})

    assert getattr(settings, variable.lower()) == value


@pytest.mark.parametrize(
    "variable, text",
    [
        ("POOL_SIZE", "0"),
        ("POOL_SIZE", "1001"),
        ("POOL_SIZE", "ten"),
        ("POOL_SIZE", "\uff11"),
        ("POOL_SIZE", "1_0"),
        ("POOL_TIMEOUT_S", "0"),
        ("DATABASE_TIMEOUT_S", "0"),
        ("DATABASE_TIMEOUT_S", "3601"),
        ("POOL_TIMEOUT_S", "61"),
        ("POOL_TIMEOUT_S", "nan"),
        ("POOL_TIMEOUT_S", "inf"),
        ("BODY_TIMEOUT_S", "0"),
        ("BODY_TIMEOUT_S", "3601"),
        ("BODY_TIMEOUT_S", "nan"),
        ("KEY_PREFIX", "Lk"),
        ("KEY_PREFIX", "lk_"),
        ("KEY_PREFIX", "1k"),
        ("KEY_PREFIX", "lk\n"),
        ("KEY_PREFIX", "l" * 17),
        ("CLOCK_WINDOW_S", "0"),
        ("CLOCK_WINDOW_S", "3601"),
        ("CLOCK_WINDOW_S", "60.5"),
        ("BODY_LIMIT_BYTES", "1023"),
        ("BODY_LIMIT_BYTES", str(2**30 + 1)),
        ("KEY_CACHE_TTL_S", "-1"),
        ("KEY_CACHE_TTL_S", "3601"),
        ("KEY_CACHE_TTL_S", "1.5"),
        ("AUTH_FAILURES_PER_MIN", "-1"),
        ("AUTH_FAILURES_PER_MIN", "1000001"),
        ("AUTH_FAILURES_PER_MIN", "off"),
        ("LIMITS_ON_OUTAGE", "ignore"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(variable: str, text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({PREFIX + variable: text})

    assert str(refused.value).startswith(f"{PREFIX}{variable}: ")


@pytest.mark.parametrize(
    "variable, text, sentence",
    [
        ("POOL_SIZE", "0", "it must be a whole number from 1 to 1000."),
        ("POOL_SIZE", "ten", "it must be a whole number from 1 to 1000."),
        ("POOL_TIMEOUT_S", "0", "it must be a number above 0 and at most 60."),
        ("LOG_FORMAT", "xml", "it must be json or text."),
        ("LIMITS_ON_OUTAGE", "x", "it must be allow or refuse."),
        ("KEY_PREFIX", "Lk", "it must be a lower-case letter and up to 15 lower-case letters or digits."),
        ("KEY_HEADERS", "a" * 1001, "it must be a text of at most 1000 characters."),
    ],
)
def test_the_message_names_the_values_that_are_allowed(variable: str, text: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({PREFIX + variable: text})

    assert str(refused.value) == f"{PREFIX}{variable}: {sentence}"


def test_no_setting_is_described_in_the_words_of_a_library() -> None:
    for field in msgspec.structs.fields(Settings):
        if field.type not in {str, str | None}:
            assert describe_type(field.type), field.name


class Team(msgspec.Struct):
    count: Annotated[int, Meta(ge=1)] = 1
    below: Annotated[float, Meta(ge=0, lt=1)] = 0
    bare: int = 0
    is_on: bool = False


@pytest.mark.parametrize(
    "variable, sentence",
    [
        ("COUNT", "a whole number at least 1."),
        ("BELOW", "a number at least 0 and below 1."),
        ("BARE", "a whole number."),
        ("IS_ON", "true or false."),
    ],
)
def test_the_settings_of_a_team_are_described_too(variable: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings(Team, {f"X_{variable}": "x"}, prefix="X_")

    assert str(refused.value) == f"X_{variable}: it must be {sentence}"


def test_a_byte_order_mark_of_a_file_is_no_part_of_a_value() -> None:
    assert Settings.from_env({"LATCHKEY_KEYRING": "\ufeff1:x"}).keyring == "1:x"
    assert Settings.from_env({"LATCHKEY_KEYRING": "\ufeff"}).keyring is None


@pytest.mark.parametrize("variable", ["KEYRING", "DATABASE_URL", "READER_URL", "REDIS_URL", "POOL_SIZE"])
def test_an_empty_value_counts_as_absent(variable: str) -> None:
    assert Settings.from_env({PREFIX + variable: ""}) == Settings()


@pytest.mark.parametrize("text", ["null", "NULL", "Null"])
def test_a_word_that_looks_like_nothing_is_a_value(text: str) -> None:
    """Otherwise a mistake in a deployment would silently unset the setting."""
    assert Settings.from_env({"LATCHKEY_READER_URL": text}).reader_url == text


@pytest.mark.parametrize(
    "typo, meant",
    [
        ("LATCHKEY_KEY_RING", "LATCHKEY_KEYRING"),
        ("LATCHKEY_DATABASE", "LATCHKEY_DATABASE_URL"),
        ("LATCHKEY_DATABASEURL", "LATCHKEY_DATABASE_URL"),
        ("LATCHKEY_POOLSIZE", "LATCHKEY_POOL_SIZE"),
        ("LATCHKEY_CLOCK_WINDOW", "LATCHKEY_CLOCK_WINDOW_S"),
        ("LATCHKEY_BODY_LIMIT", "LATCHKEY_BODY_LIMIT_BYTES"),
        ("LATCHKEY_CACHE_TTL", "LATCHKEY_KEY_CACHE_TTL_S"),
        ("LATCHKEY_REDIS", "LATCHKEY_REDIS_URL"),
        ("LATCHKEY_LOGFORMAT", "LATCHKEY_LOG_FORMAT"),
        ("LATCHKEY_log_format", "LATCHKEY_LOG_FORMAT"),
    ],
)
def test_a_typo_stops_the_start_with_the_nearest_right_name(typo: str, meant: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({typo: "x"})

    assert str(refused.value) == f"there is no setting {typo}: did you mean {meant}?"


def test_a_name_near_to_none_is_told_them_all() -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({"LATCHKEY_ZZZ": ""})

    assert all(PREFIX + name.upper() in str(refused.value) for name in Settings.__struct_fields__)


def test_the_tests_own_variables_are_passed_over() -> None:
    assert Settings.from_env({"LATCHKEY_TEST_REQUIRE_MARIADB": "1", "LATCHKEY_TEST_X": "y"}) == Settings()


def test_no_secret_is_shown() -> None:
    secrets: dict[str, Any] = dict.fromkeys(SECRETS, "a:hush@b")
    settings = Settings(**secrets)

    for shown in (repr(settings), str(settings), f"{settings}"):
        assert "hush" not in shown
        assert "pool_size=10" in shown


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_no_secret_is_shown_when_it_is_refused(name: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({PREFIX + name.upper(): "hush", "LATCHKEY_POOL_SIZE": "hush"})

    assert "hush" not in str(refused.value)


# ---------------------------------------------------------------------- secrets in files


@pytest.mark.parametrize("name", sorted(SECRETS))
@pytest.mark.parametrize(
    "content", ["1:hush", "1:hush\n", "\ufeff1:hush \r\n"], ids=["bare", "line", "from an editor"]
)
def test_a_secret_can_be_in_a_file(name: str, content: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(content, newline="")

    settings = Settings.from_env({f"{PREFIX}{name.upper()}_FILE": str(file), PREFIX + name.upper(): ""})

    assert getattr(settings, name) == "1:hush"


@pytest.mark.parametrize(
    "content, more, sentence",
    [
        pytest.param(None, {}, "LATCHKEY_KEYRING_FILE: the file cannot be read: No such file or directory.", id="missing"),
        pytest.param(b"", {}, "LATCHKEY_KEYRING_FILE: the file is empty.", id="empty"),
        pytest.param(b" \n", {}, "LATCHKEY_KEYRING_FILE: the file is empty.", id="white space"),
        pytest.param("\ufeff".encode(), {}, "LATCHKEY_KEYRING_FILE: the file is empty.", id="a mark"),
        pytest.param(b"hush\xff", {}, "LATCHKEY_KEYRING_FILE: the file is not UTF-8.", id="bytes"),
        pytest.param(b"hush" * 20_000, {}, "LATCHKEY_KEYRING_FILE: the file has more than 65536 bytes.", id="large"),
        pytest.param(
            b"hush", {"LATCHKEY_KEYRING": "hush"},
            "LATCHKEY_KEYRING and LATCHKEY_KEYRING_FILE are both set: set one of them.", id="both",
        ),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_stops_the_start(
    content: bytes | None, more: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(SettingsError) as refused:
        Settings.from_env({"LATCHKEY_KEYRING_FILE": str(file), **more})

    assert str(refused.value) == sentence


@pytest.mark.parametrize("file", ["/", "a\0b", "x" * 5000])
def test_a_name_of_no_file_is_refused(file: str) -> None:
    with pytest.raises(SettingsError, match="LATCHKEY_KEYRING_FILE: the file cannot be read: "):
        Settings.from_env({"LATCHKEY_KEYRING_FILE": file})


def test_only_secrets_are_read_from_files() -> None:
    with pytest.raises(SettingsError, match="there is no setting LATCHKEY_POOL_SIZE_FILE"):
        Settings.from_env({"LATCHKEY_POOL_SIZE_FILE": "/etc/hostname"})


def test_the_document_names_every_file_of_a_secret() -> None:
    text = DOCUMENT.read_text().partition("\n## ")[0]

    assert set(re.findall(r"`(LATCHKEY_\w+)_FILE`", text)) == {PREFIX + name.upper() for name in SECRETS}


def test_settings_do_not_change() -> None:
    with pytest.raises(AttributeError):
        Settings().pool_size = 5  # type: ignore[misc]  # the mistake of this test


# ---------------------------------------------------------------------- of a team's own


class OrderSettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    carrier: str
    largest_order: Annotated[int, Meta(ge=1, le=100)] = 10
    express: bool = False


def read_orders(environ: dict[str, str]) -> OrderSettings:
    return read_settings(OrderSettings, environ, prefix="ORDERS_")


def test_a_team_reads_its_own_beside_latchkeys() -> None:
    environ = {
        "ORDERS_CARRIER": "post",
        "ORDERS_LARGEST_ORDER": "7",
        "ORDERS_EXPRESS": "true",
        "LATCHKEY_POOL_SIZE": "3",
    }

    assert read_orders(environ) == OrderSettings(carrier="post", largest_order=7, express=True)
    assert Settings.from_env(environ).pool_size == 3


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({}, "ORDERS_CARRIER is not set."),
        ({"ORDERS_CARRIER": ""}, "ORDERS_CARRIER is not set."),
        (
            {"ORDERS_CARRIER": "a", "ORDERS_LARGEST_ORDER": "101"},
            "ORDERS_LARGEST_ORDER: it must be a whole number from 1 to 100.",
        ),
        (
            {"ORDERS_CARRIER": "a", "ORDERS_LARGEST_ORDER": "hush"},
            "ORDERS_LARGEST_ORDER: it must be a whole number from 1 to 100.",
        ),
        ({"ORDERS_CARIER": "a"}, "there is no setting ORDERS_CARIER: did you mean ORDERS_CARRIER?"),
        ({"ORDERS_ZZZ": "a"}, "there is no setting ORDERS_ZZZ: there are ORDERS_CARRIER, ORDERS_EXPRESS, "),
    ],
)
def test_a_wrong_one_of_a_team_is_refused_by_name_and_without_its_value(
    environ: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        read_orders(environ)

    assert str(refused.value).startswith(sentence)
    assert "hush" not in str(refused.value)


# ---------------------------------------------------------------------- the document


def paragraphs() -> dict[str, str]:
    """Return the text under each heading of `docs/settings.md`."""
    pieces = re.split(r"^## `(\w+)`$", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def test_every_setting_has_its_paragraph_and_nothing_else_has() -> None:
    assert list(paragraphs()) == [PREFIX + name.upper() for name in Settings.__struct_fields__]


@pytest.mark.parametrize("name", Settings.__struct_fields__)
def test_a_paragraph_says_the_default(name: str) -> None:
    text = paragraphs()[PREFIX + name.upper()]
    default = getattr(Settings(), name)

    assert len(text.split()) > 20
    if default is None:
        assert "Default: none" in text
    else:
        shown = str(default).lower() if isinstance(default, bool) else default
        assert f"Default: `{shown}`" in text
