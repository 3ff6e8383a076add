"""Decide whether a call is sent again, and after how many seconds."""

import time
import uuid
from collections.abc import Callable, Mapping, MutableMapping

from latchkey_client.signer import SAFE_METHODS, Form, Signer

RETRIES = 3
PATIENCE_S = 60
RETRIED = frozenset({429, 503})


class Attempts:
    """The attempts of one call.

    A 401 is repeated once if the server's clock differs from ours. 429 and 503 are repeated after `Retry-After` seconds, at
    most three times and for at most a minute in all. An unsafe call has an `Idempotency-Key`, the same in each attempt: the
    server carries it out once.

    Args:
        headers: of the call; the key is added, unless there is one or `idempotent` is False.
        idempotent: False for a route that does not accept an `Idempotency-Key`. Such a call is not repeated after a 503.
    """

    def __init__(
        self, signer: Signer, method: str, headers: MutableMapping[str, str], *, idempotent: bool
    ) -> None:
        is_safe = method in SAFE_METHODS
        if idempotent and not is_safe:
            headers.setdefault("idempotency-key", str(uuid.uuid4()))
        self._signer = signer
        self._statuses = RETRIED if is_safe or "idempotency-key" in headers else RETRIED - {503}
        self._corrected = False
        self._retries_left = RETRIES
        self._patience_left_s = PATIENCE_S

    def wait_s(self, status: int, headers: Mapping[str, str]) -> int | None:
        """Return the seconds after which the call is to be signed and sent again; None if this response is the last."""
        if status == 401 and not self._corrected:  # noqa: PLR2004
            self._corrected = True
            return 0 if self._signer.correct_clock(headers.get("date")) else None
        after = headers.get("retry-after", "")
        if status not in self._statuses or not self._retries_left or not after.isdecimal():
            return None
        if int(after) > self._patience_left_s:
            return None
        self._retries_left -= 1
        self._patience_left_s -= int(after)
        return int(after)


class SigningAuth:
    """The base of the classes for each library.

    Args:
        access_key: the access key, `lka_…`.
        secret: the whole secret, `lks_…`.
        form: `"query"` puts the signature into the query and the header `secret`, `"message"` into headers.
        idempotent: False for routes that do not accept an `Idempotency-Key`.
        clock: returns the Unix time in seconds.
    """

    def __init__(
        self,
        access_key: str,
        secret: str,
        *,
        form: Form = "query",
        idempotent: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._signer = Signer(access_key, secret, form=form, clock=clock)
        self._idempotent = idempotent

    def _attempts(self, method: str, headers: MutableMapping[str, str]) -> Attempts:
        return Attempts(self._signer, method, headers, idempotent=self._idempotent)
