"""The formats of the secrets of imported keys."""

import pytest

from latchkey.service.authentication.imported_formats import read_imported_formats
from latchkey.service.authentication.wire.credentials import new_secret
from latchkey.service.authentication.wire.imported_secrets import SecretFormat, SecretFormats, read_formats
from latchkey.service.settings import Settings, SettingsError

OWN = new_secret("lk")
FORMATS = SecretFormats("lk", read_formats("hex:32, base62:20-24,token:40"))


@pytest.mark.parametrize(
    "text, is_accepted",
    [
        pytest.param(OWN, True, id="own"),
        pytest.param(OWN[:-1] + ("0" if OWN[-1] != "0" else "1"), False, id="own with a typo"),
        pytest.param("lks_" + "a" * 36, False, id="beginning as an own one"),
        pytest.param("0123456789abcdef" * 2, True, id="hex"),
        pytest.param("0123456789ABCDEF" * 2, False, id="hex in upper case"),
        pytest.param("aB3" * 7, True, id="base62"),
        pytest.param("a" * 19, False, id="short"),
        pytest.param("a" * 25, False, id="long"),
        pytest.param("sk_live.~+/=" + "a" * 28, True, id="token"),
        pytest.param("a" * 39 + "!", False, id="another character"),
        pytest.param("a" * 20 + "\n", False, id="a newline at the end"),
        pytest.param("é" * 20, False, id="not ASCII"),
        pytest.param("", False, id="empty"),
    ],
)
def test_a_token_is_accepted_by_its_length_and_alphabet(text: str, is_accepted: bool) -> None:
    assert FORMATS.parse(text) == (text if is_accepted else None)


def test_without_formats_only_own_secrets_are_accepted() -> None:
    formats = SecretFormats("lk")

    assert formats.parse(OWN) == OWN
    assert formats.parse("a" * 32) is None


def test_formats_are_read() -> None:
    settings = Settings(imported_secrets="base62:32,token:20-64")

    assert read_imported_formats(settings) == (SecretFormat("base62", 32, 32), SecretFormat("token", 20, 64))
    assert read_imported_formats(Settings()) == ()


@pytest.mark.parametrize(
    "text, fault",
    [
        pytest.param("base62", "format 1 must be one of hex, base62, base64url, token", id="no length"),
        pytest.param("base62:32,ascii:32", "format 2 must be one of", id="alphabet"),
        pytest.param("hex:15", "between 16 and 200", id="short"),
        pytest.param("hex:16-201", "between 16 and 200", id="long"),
        pytest.param("hex:32-16", "between 16 and 200", id="the wrong way round"),
        pytest.param(",".join(["hex:32"] * 11), "there are 11 formats", id="many"),
    ],
)
def test_a_wrong_format_is_refused(text: str, fault: str) -> None:
    with pytest.raises(SettingsError, match=f"LATCHKEY_IMPORTED_SECRETS: .*{fault}"):
        read_imported_formats(Settings(imported_secrets=text))
