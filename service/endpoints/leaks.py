"""Reports of leaked secrets: `/v1/leaks`."""

import hashlib

from starlette.requests import Request

from latchkey.service.endpoints.caller import hold_caller
from latchkey.service.leaks import shapes
from latchkey.service.leaks.exposure import ExposureRules, Finding, Found
from latchkey.service.leaks.github import read_signature
from latchkey.service.leaks.public_keys import UnreadableKeysError
from latchkey.service.parts import parts_of
from latchkey.service.problems import Problem

GITHUB = "github"


async def report_leaks(request: Request, body: shapes.LeakReport) -> shapes.Leaks:
    """Report texts that a scanner found in public and that may be secrets.

    The key of a secret is revoked, or ends after `LATCHKEY_LEAK_GRACE_S`; a secret that a rotation has replaced ends
    without the key. Each key that was found is told by one event, `key.exposed`. The secrets of revoked keys are true positives,
    too. A text without the format of a secret, or with a wrong checksum, costs no query. The response contains no secret.
    """
    found = [Found(one.secret, one.url) for one in body.data]
    rules = rules_of(request)
    if any(rules.digest_of(one.text) is not None for one in found):
        await hold_caller(request)
    findings = await rules.report(found, "report")
    return shapes.Leaks(
        data=[
            shapes.Leak(label=label_of(one), access_key=one.access_key, works_until=one.works_until)
            for one in findings
        ]
    )


async def report_github_leaks(request: Request, body: shapes.GitHubReport) -> list[shapes.GitHubLabel]:
    """Receive matches of GitHub's secret scanning, by its partner protocol.

    GitHub signs the body: `Github-Public-Key-Identifier` names one of the keys of `LATCHKEY_GITHUB_PUBLIC_KEYS`, and
    `Github-Public-Key-Signature` is the signature. Without that setting the path does not exist. The matches have the same
    effect as in `POST /v1/leaks`, and the response labels each of them.
    """
    await require_github(request)
    findings = await rules_of(request).report([Found(one.token, one.url) for one in body], GITHUB)
    return [
        shapes.GitHubLabel(
            token_hash=hashlib.sha256(one.token.encode()).hexdigest(),
            token_type=one.type,
            label=label_of(finding),
        )
        for one, finding in zip(body, findings, strict=True)
    ]


async def require_github(request: Request) -> None:
    """Raise a problem for a report that GitHub did not sign; an address with too many of them has to wait."""
    parts = parts_of(request.app)
    if parts.github_keys is None:
        raise Problem("not_found")
    failures = parts.verifier.failures
    sender = parts.verifier.proxies.client(request.scope), GITHUB
    if wait_s := failures.wait_s(sender):
        raise Problem("too_many_failures", headers={"retry-after": str(wait_s)})
    signature = read_signature(request.headers)
    if signature is None:
        failures.note(sender)
        raise Problem("unauthenticated", "The report has no signature of GitHub, or an ill-formed one.")
    try:
        key = await parts.github_keys.find(signature.identifier)
    except UnreadableKeysError:
        raise Problem("unavailable", "The public keys of GitHub cannot be read.") from None
    if key is None or not signature.proves(key, await request.body()):
        failures.note(sender)
        raise Problem("unauthenticated")


def rules_of(request: Request) -> ExposureRules:
    """Return the rules for leaked secrets of the application."""
    return parts_of(request.app).exposure_rules


def label_of(finding: Finding) -> shapes.Label:
    """Return the label of a finding."""
    return "false_positive" if finding.access_key is None else "true_positive"
