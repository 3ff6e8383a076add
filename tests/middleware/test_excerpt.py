"""Text that is quoted from a client has a maximum length, and keeps its beginning and end."""

import time

import pytest

from latchkey.middleware.excerpt import LONGEST, excerpt, without_secrets


@pytest.mark.parametrize("length", [0, 1, LONGEST])
def test_a_text_within_the_bound_stays(length: int) -> None:
    assert excerpt("x" * length) == "x" * length


@pytest.mark.parametrize("length", [LONGEST + 1, 1_000_000])
def test_a_longer_text_loses_its_middle(length: int) -> None:
    text = f"the beginning {'x' * (length - 22)} the end"

    cut = excerpt(text)

    assert len(cut) == LONGEST
    assert cut.startswith("the beginning xxx")
    assert "…" in cut
    assert cut.endswith("xxx the end")


def test_the_bound_can_be_another() -> None:
    assert excerpt("a" * 50 + "z" * 50, 32) == "a" * 11 + "…" + "z" * 20


DIGITS = "0123456789AbCdEfGhIjKlMnOpQrStUvWxYz0123456789AbC"


@pytest.mark.parametrize(
    "text, shown",
    [
        pytest.param(f"/v1/keys/lks_{DIGITS}/rotate", "/v1/keys/lks_…/rotate", id="in a path"),
        pytest.param(f"%6Cks_{DIGITS}", "%6Cks_…", id="percent-encoded"),
        pytest.param(f"acmes_test_{DIGITS}", "acmes_test_…", id="of another prefix and an environment"),
        pytest.param(f"'lks_{DIGITS}', 'lks_{DIGITS}'", "'lks_…', 'lks_…'", id="twice"),
        pytest.param(f"whsec_{'aB3+' * 11}", "whsec_…", id="of a webhook"),
        pytest.param(
            "lka_0000000000000000000000", "lka_0000000000000000000000", id="no secret, but a public id"
        ),
        pytest.param("users_of_the_team", "users_of_the_team", id="no secret, but a word"),
    ],
)
def test_a_secret_is_replaced_by_its_prefix(text: str, shown: str) -> None:
    assert without_secrets(text) == excerpt(text) == shown


@pytest.mark.parametrize(
    "part", ["x", "s_", "s_x", "lks_test_", "s_a1_", "whsec_", "whsec", f"lks_{DIGITS[1:]}_", "s" * 40 + "_"]
)
def test_a_long_text_is_searched_in_linear_time(part: str) -> None:
    """A quadratic search of a megabyte takes minutes."""
    text = part * (1_000_000 // len(part))
    began = time.process_time()

    excerpt(f"{text}s_whsec_{text}")

    assert time.process_time() - began < 1


def test_no_part_of_a_secret_is_left_where_a_text_is_cut() -> None:
    cut = excerpt("x" * (LONGEST - 25) + f"lks_{DIGITS}" + "y" * 100)

    assert DIGITS[:3] not in cut
    assert len(cut) == LONGEST
