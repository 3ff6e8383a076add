"""Generated clients against a live server, and schemathesis with a valid key.

`make test-generators` brings their programs: `LATCHKEY_TEST_GENERATORS` is the Python environment with them.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from latchkey.service.routes import ROUTES, declared_scopes
from tests.server.raw_requests import ServerWithKeys, run_command, serve_with_keys

HERE = Path(__file__).parent
NPM = HERE.parent / "npm"
DOCUMENT = HERE.parents[1] / "docs" / "openapi.json"
PROGRAMS = os.environ.get("LATCHKEY_TEST_GENERATORS")
MOST_MODELS = 80
MOST_FILES = 90  # with the enumerations
# What a schema cannot say, because it depends on rows, on settings, on another call or on two fields together.
NOT_IN_A_SCHEMA = (
    "there is no such scope",
    "there is no such environment",
    "The cursor is invalid",
    "The Idempotency-Key was used for another call",
    "the range has more than",
    "set exactly one of `scope`",
    "the body is given twice",
    "either `credential` or `request` must be given",
)

pytestmark = pytest.mark.skipif(PROGRAMS is None, reason="make test-generators runs it")


def run(command: Sequence[str | Path], folder: Path, *, may_fail: bool = False) -> str:
    """Run a program and return its output; a failure shows it, unless the output is what counts."""
    path = f"{PROGRAMS}/bin:{os.environ['PATH']}"
    done = subprocess.run(
        [str(one) for one in command],
        check=False,
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert may_fail or done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    return done.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerWithKeys]:
    folder = tmp_path_factory.mktemp("generators")
    scopes = ",".join(sorted(declared_scopes(ROUTES)))
    environ = {"LATCHKEY_KEYS_PER_OWNER": "100000", "LATCHKEY_AUTH_FAILURES_PER_MIN": "0"}
    url = f"sqlite+aiosqlite:///{folder / 'latchkey.db'}"
    with serve_with_keys(folder, url, environ=environ, scopes=scopes) as served:
        yield served


@pytest.fixture
def arguments(server: ServerWithKeys) -> list[str]:
    """Return the URL of the server, a secret, and the id of its owner, who is a new one for each client."""
    environ = server.served.environ
    owner = run_command(
        environ, "users", "create", "--email", f"{os.urandom(4).hex()}@example.com", "--name", "O"
    )
    key = run_command(
        environ, "keys", "create", "--user", str(owner["id"]), "--name", "k", "--mode", "bearer",
        "--scopes", ",".join(sorted(declared_scopes(ROUTES))),
    )  # fmt: skip
    return [f"http://127.0.0.1:{server.port}", key["secret"], str(owner["id"])]


def test_the_typescript_client_compiles_without_casts_and_works(tmp_path: Path, arguments: list[str]) -> None:
    for name in ("client.ts", "tsconfig.json", "package.json"):
        shutil.copy(NPM / name, tmp_path / name)
    (tmp_path / "node_modules").symlink_to(NPM / "node_modules")
    programs = NPM / "node_modules" / ".bin"

    run([programs / "openapi-typescript", DOCUMENT, "--output", "schema.d.ts"], tmp_path)
    run([programs / "tsc", "--project", "tsconfig.json"], tmp_path)
    said = run(["node", "built/client.js", *arguments], tmp_path)

    assert said == "done\n"
    assert " as " not in (NPM / "client.ts").read_text()


def test_the_types_of_the_client_to_copy_are_right(tmp_path: Path) -> None:
    """Those of examples/clients/node, as TypeScript sees them."""
    for name in ("latchkey.js", "latchkey.d.ts"):
        shutil.copy(HERE.parents[1] / "examples" / "clients" / "node" / name, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "use.ts").write_text(
        """import { Latchkey, verifyWebhook, type CallOptions } from "./latchkey.js";
const client = new Latchkey({ accessKey: "lka_", secret: "lks_", form: "message" });
const options: CallOptions = { method: "POST", body: "{}", headers: { "idempotency-key": "k" } };
const response: Response = await client.fetch("https://latchkey.example.com/v1/me/keys", options);
const event = await verifyWebhook("whsec_", response.headers, await response.text());
export const type: string = event.type;
// @ts-expect-error there is no such form
new Latchkey({ accessKey: "lka_", secret: "lks_", form: "header" });
"""
    )

    options = (
        "--noEmit",
        "--strict",
        "--module",
        "nodenext",
        "--target",
        "es2022",
        "--lib",
        "es2022,dom",
    )
    run([NPM / "node_modules" / ".bin" / "tsc", *options, "use.ts"], tmp_path)


def test_the_python_client_has_few_models_and_works(tmp_path: Path, arguments: list[str]) -> None:
    run(
        [
            "openapi-python-client",
            "generate",
            "--path",
            DOCUMENT,
            "--output-path",
            "latchkey_client",
            "--meta",
            "none",
        ],
        tmp_path,
    )
    models = [one.read_text() for one in (tmp_path / "latchkey_client" / "models").glob("*.py")]
    classes = [text for text in models if "\nclass " in text and "(StrEnum)" not in text]
    shutil.copy(HERE / "use_python_client.py", tmp_path)

    run(["python", "use_python_client.py", *arguments], tmp_path)

    assert 40 < len(classes) <= MOST_MODELS
    assert len(models) <= MOST_FILES


def test_schemathesis_finds_nothing_that_a_schema_could_say(tmp_path: Path, arguments: list[str]) -> None:
    """With one form of credential: it sends all of a list at once, which is `two_credentials`.

    The gate answers proxies only. `/v1/keys/verify` is a path of `/v1/keys/{access_key}` too, and `Allow` names its methods.
    """
    url, secret, _ = arguments
    document: dict[str, Any] = json.loads(DOCUMENT.read_text())
    for methods in document["paths"].values():
        for operation in methods.values():
            operation["security"] = [one for one in operation["security"] if "bearer" in one]
    document["components"]["securitySchemes"] = {
        "bearer": document["components"]["securitySchemes"]["bearer"]
    }
    (tmp_path / "openapi.json").write_text(json.dumps(document))

    said = run(
        [
            "schemathesis", "run", "openapi.json", "--url", url, "--header", f"Authorization: Bearer {secret}",
            "--phases", "examples,coverage,fuzzing", "--max-examples", os.environ.get("LATCHKEY_TEST_FUZZ", "20"),
            "--generation-deterministic", "--exclude-path-regex", "^/v1/gate(/nginx|/envoy)?$",
            "--exclude-checks", "allow_header_conformance",
        ],
        tmp_path,
        may_fail=True,
    )  # fmt: skip

    assert "operations" in said.lower(), said
    failures = re.split(r"(?m)^- (?=ST\d+ )", said)[1:]
    unexpected = [one for one in failures if not any(words in one for words in NOT_IN_A_SCHEMA)]
    assert not unexpected, "\n".join(unexpected)
