"""Key rings with known keys."""

import base64

from latchkey.service.authentication.keyring import KeyRing


def entry(key_id: int, byte: int) -> str:
    return f"{key_id}:{base64.b64encode(bytes([byte]) * 32).decode()}"


ONE, TWO, OTHER_ONE = entry(1, 1), entry(2, 2), entry(1, 3)


def ring(*entries: str) -> KeyRing:
    return KeyRing.from_text(",".join(entries))
