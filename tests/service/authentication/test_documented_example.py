"""The example in docs/credentials.md: its values are right, and its commands sign a call that the service accepts."""

import base64
import hmac
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from latchkey.service.authentication.wire import message_signature, query_signature
from latchkey.service.authentication.wire.credentials import Secret

ROOT = Path(__file__).parents[3]
SECTION = (
    (ROOT / "docs" / "credentials.md").read_text().partition("## A complete example")[2].partition("\n## ")[0]
)
SCRIPTS = dict(zip(("query", "message"), re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL), strict=True))
QUERY, QUERY_MAC, BASE, BASE_MAC = re.findall(r"```text\n(.*?)\n```", SECTION, re.DOTALL)
SECRET = Secret("lks_00000000000000000000000000000000000000000003GTfko")
NOW = 1_700_000_000
VECTORS = {one["name"]: one for one in json.loads((ROOT / "tests" / "vectors.json").read_text())}

# The functions replace the programs, so that nothing is sent and the time is known.
STUBS = f"date() {{ echo {NOW}; }}\ncurl() {{ printf '%s\\0' \"$@\"; }}\n"


def mac(text: str) -> str:
    return base64.b64encode(hmac.digest(SECRET.encode(), text.encode(), "sha256")).decode()


def sent(form: str) -> tuple[str, str, list[tuple[bytes, bytes]], bytes]:
    """Run the commands of a form, and return path, query, headers and body of the call."""
    made = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", STUBS + SCRIPTS[form]], capture_output=True, timeout=30, check=True
    )
    words = made.stdout.decode().split("\0")[:-1]
    url = next(word for word in words if word.startswith("https://api.example.com/"))
    path, _, query = url.removeprefix("https://api.example.com").partition("?")
    headers = [words[n + 1].partition(": ") for n, word in enumerate(words) if word == "-H"]
    named = [(name.encode(), value.encode()) for name, _, value in headers]
    return path, query, named, words[words.index("--data-raw") + 1].encode()


def test_the_values_are_right() -> None:
    assert mac(QUERY) == QUERY_MAC == VECTORS["an unsafe method with a body"]["secret_header"]
    assert f"sig1=:{mac(BASE)}:" == BASE_MAC == VECTORS["post with body"]["signature"]
    assert VECTORS["post with body"]["signature_base"] == BASE


def test_the_commands_of_the_query_sign_it() -> None:
    path, query, headers, body = sent("query")
    signature = query_signature.parse(query.encode(), dict(headers)[b"secret"])

    assert query == QUERY
    assert query_signature.proves(signature, SECRET)
    assert query_signature.covers(signature, "POST", path.encode())
    assert query_signature.missing_coverage(signature, "POST", has_body=True) == ()
    assert body == VECTORS["post with body"]["body"].encode()


def test_the_commands_of_the_message_sign_it() -> None:
    path, query, headers, body = sent("message")
    values = message_signature.component_values(
        method="POST", scheme="https", raw_path=path.encode(), query_string=query.encode(),
        headers=[(b"host", b"api.example.com"), *headers],
    )  # fmt: skip
    signature = message_signature.parse(headers, values)

    assert message_signature.proves(signature, SECRET)
    assert message_signature.missing_coverage(signature, values, has_body=True) == ()
    assert re.sub(r'nonce="[^"]*"', 'nonce="n0nce-0123456789abcdef"', signature.signed) == BASE
    assert body == VECTORS["post with body"]["body"].encode()


def test_the_function_signs_the_same_as_the_commands() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    namespace: dict[str, Any] = {}
    repeatable = f'now={NOW}, nonce="n0nce-0123456789abcdef",\n    form="message"'
    exec(compile(example.replace('form="message"', repeatable), "credentials.md", "exec"), namespace)

    assert namespace["call"].signed_text == BASE
    assert namespace["call"].headers["signature"] == BASE_MAC


@pytest.mark.parametrize("form", SCRIPTS)
def test_the_commands_name_the_key_of_the_example(form: str) -> None:
    assert str(SECRET) in SCRIPTS[form]
