"""Text that is quoted from a client has a maximum length, and keeps its beginning and end."""

import pytest

from latchkey.middleware.excerpt import LONGEST, excerpt


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
