"""The report about one request: its checks, with their results."""

from latchkey.service.explanation.shapes import SignatureCheck

# In the order in which the authenticator checks.
QUERY_CHECKS = (
    "credential", "shape", "public_id", "key", "proof", "target", "clock", "status", "networks", "coverage",
    "body", "nonce",
)  # fmt: skip
MESSAGE_CHECKS = (
    "credential", "components", "shape", "coverage", "public_id", "key", "proof", "clock", "status", "networks",
    "body", "nonce",
)  # fmt: skip


class Report:
    """The checks of one form with their results; a check without a result was not made."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.checks = {
            name: SignatureCheck(name=name, result="not_checked", detail="It depends on a check that failed.")
            for name in names
        }

    def passed(self, name: str, detail: str) -> None:
        self.checks[name] = SignatureCheck(name=name, result="passed", detail=detail)

    def failed(self, name: str, detail: str) -> None:
        self.checks[name] = SignatureCheck(name=name, result="failed", detail=detail)

    def unknown(self, name: str, detail: str) -> None:
        self.checks[name] = SignatureCheck(name=name, result="not_checked", detail=detail)

    def judge(self, name: str, holds: bool | None, right: str, wrong: str | None = None) -> None:
        """Record a result; None means that the check could not be made. Without `wrong`, `right` is used for both results."""
        note = self.unknown if holds is None else self.passed if holds else self.failed
        note(name, right if holds or wrong is None else wrong)
