"""The sentences about the keys of a ring: what to do about each, and when it may be removed."""

from collections.abc import Sequence

import pytest

from latchkey.service.ring_keys.uses import Uses, sentences

SEALED = Uses(audit_events=12, first_position=1, last_position=12)
SECRETS = {"secrets of keys": 3, "secrets of webhooks": 0}
MAY_GO = "Ring key 1 may be removed from LATCHKEY_KEYRING once every process has ring key 2 in front."
VERIFIES = "`latchkey audit verify` and `latchkey users erase` need it for 12 events, at positions 1 to 12."
REPLACES = "`latchkey keyring rewrap` replaces it."

CASES: dict[str, tuple[dict[int, Uses], Sequence[int], str]] = {
    "unused": ({}, [2, 1], f"{MAY_GO} Nothing uses it."),
    "sealed events": ({1: SEALED}, [2, 1], f"{MAY_GO} Store it elsewhere: {VERIFIES}"),
    "sealed events of a removed key": (
        {1: SEALED},
        [2],
        f"Ring key 1 is not in LATCHKEY_KEYRING, and the service does not need it. {VERIFIES}",
    ),
    "used": (
        {1: Uses(encrypted=SECRETS, audit_head=1)},
        [2, 1],
        f"Ring key 1 is used by 3 secrets of keys, the head of the audit log. {REPLACES}",
    ),
    "missing": (
        {1: Uses(encrypted=SECRETS)},
        [2],
        f"Ring key 1 is used by 3 secrets of keys. It is missing in LATCHKEY_KEYRING: add it again. {REPLACES}",
    ),
}


@pytest.mark.parametrize("uses, ids, expected", CASES.values(), ids=CASES)
def test_an_old_key_has_a_sentence(uses: dict[int, Uses], ids: Sequence[int], expected: str) -> None:
    assert sentences(uses, ids, 2) == [expected]


def test_the_first_key_has_none() -> None:
    assert sentences({2: SEALED}, [2], 2) == []
