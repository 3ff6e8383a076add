"""`latchkey keys import`: the files of other systems, the report, and calls with what was imported."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from latchkey.service.keys import dumps
from latchkey.service.keys.dumps import FORMATS, LONGEST_LINE_BYTES, NO_OBJECT, FileFormatError, read_entries
from latchkey.service.settings import Settings
from tests.service.commands.running import CREATE_USER, Run, ask, good

TOKEN = "sk_3ZabcdefghijklmnopqrstuvwxyzAB"
IMPORT = ("keys", "import", "--scopes", "users:read")
NO_FORM = "it has not the form of this format"


def sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def write(*lines: Any) -> str:
    """Write a file of lines, each of which is JSON unless it is a text, and return its name."""
    texts = [one if isinstance(one, str) else json.dumps(one) for one in lines]
    Path("keys.jsonl").write_text("".join(f"{text}\n" for text in texts))
    return "keys.jsonl"


def write_document(document: Any) -> str:
    Path("keys.json").write_text(json.dumps(document, indent=2))
    return "keys.json"


@pytest.fixture
def imports(migrated_sqlite: Settings, environ: pytest.MonkeyPatch) -> Settings:
    """Set the environment for a database and imported tokens."""
    environ.setenv("LATCHKEY_IMPORTED_SECRETS", "token:20-64")
    return msgspec.structs.replace(migrated_sqlite, imported_secrets="token:20-64")


def name_of(settings: Settings, token: str) -> str | None:
    """Return the name of the key that a token authenticates."""
    (answer,) = ask(settings, token, ("GET", "/v1/me", ""))
    return answer.json["key"]["name"] if answer.status == 200 else None


def test_keys_of_a_file_are_imported_once(imports: Settings, run: Run) -> None:
    good(run(*CREATE_USER, "ann@example.com"))
    file = write({"user_id": 1, "name": "first", "secret": TOKEN}, {"name": "second", "user_id": 1})

    first = run(*IMPORT, file)
    again = run(*IMPORT, "--json", file)

    assert first.exit_code == again.exit_code == 1
    assert first.stderr == "Error: keys that were refused: 1.\n"
    assert first.stdout.startswith(
        "line 2: either secret or sha256 must be given\n1 imported, 0 known, 1 refused; "
    )
    known, refused = map(json.loads, again.stdout.splitlines())
    assert (known["place"], known["status"], known["access_key"][:4]) == ("line 1", "known", "lka_")
    assert refused == {
        "place": "line 2",
        "status": "refused",
        "access_key": None,
        "detail": "either secret or sha256 must be given",
    }
    assert name_of(imports, TOKEN) == "first"


def test_the_options_apply_to_all_keys(imports: Settings, run: Run) -> None:
    good(run(*CREATE_USER, "ann@example.com"))
    file = write({"hash": {"value": sha256(TOKEN)}, "externalId": "nobody", "permissions": ["a.b"]})

    result = run(
        *IMPORT, "--format", "unkey", "--user", "ann@example.com", "--environment", "test", "--json", file
    )

    assert json.loads(good(result).stdout)["status"] == "imported"
    (listed,) = json.loads(good(run("keys", "list", "--json")).stdout)["data"]
    assert (listed["user_id"], listed["environment"], listed["scopes"]) == (1, "test", ["users:read"])


@pytest.mark.parametrize("creates", [True, False])
def test_users_are_created_on_request(imports: Settings, run: Run, creates: bool) -> None:
    file = write(*({"hash": sha256(TOKEN + str(one)), "externalId": "acme corp/1"[:4]} for one in range(2)))

    result = run(*IMPORT, "--format", "unkey", *(["--create-users"] if creates else []), file)

    assert result.stdout.count("there is no such user") == (0 if creates else 2)
    users = json.loads(good(run("users", "list", "--json")).stdout)["data"]
    assert [(one["name"], one["external_id"]) for one in users] == ([("acme", "acme")] if creates else [])
    assert all(one["email"].endswith("@imported.invalid") for one in users)


def test_consumers_of_kong_are_imported(imports: Settings, run: Run) -> None:
    alice = {
        "username": "alice",
        "custom_id": "A-1",
        "keyauth_credentials": [{"key": TOKEN, "id": "c1"}, {"key": "{vault://x/y}"}],
        "hmacauth_credentials": [{"username": "alice", "secret": "a-secret-of-alice"}],
        "jwt_secrets": [{"key": "x"}],
    }
    bob = {"username": "bob", "keyauth_credentials": [{"key": "b" * 32, "ttl": 60}]}

    for file in (write_document({"consumers": [alice, bob]}), write(alice, bob)):
        result = run(*IMPORT, "--format", "kong", "--create-users", file)

        place = "consumer" if file == "keys.json" else "line"
        assert result.stdout.splitlines()[:-1] == [
            f"{place} 1: a credential is a reference to another store",
            f"{place} 1: jwt_secrets cannot be imported",
            f"{place} 2: a credential of key-auth has a ttl, and no created_at",
        ]

    keys = json.loads(good(run("keys", "list", "--json")).stdout)["data"]
    assert [(one["name"], one["mode"], one["external_id"]) for one in keys] == [
        ("alice key-auth", "bearer", "c1"),
        ("alice hmac-auth", "signed", None),
    ]
    assert name_of(imports, TOKEN) == "alice key-auth"


def test_consumers_of_apisix_are_imported(imports: Settings, run: Run) -> None:
    jack = {"username": "jack", "desc": "Jack", "plugins": {"key-auth": {"key": TOKEN}, "jwt-auth": {}}}
    jill = {"username": "jill", "plugins": {"hmac-auth": {"key_id": "j", "secret_key": "a-secret-of-jill"}}}
    document = {"total": 2, "list": [{"key": "/apisix/consumers/jack", "value": jack}, {"value": jill}]}

    result = run(*IMPORT, "--format", "apisix", "--create-users", write_document(document))
    again = run(*IMPORT, "--format", "apisix", write(jack, {"value": jill}))

    assert result.stdout.startswith("2 imported, 0 known, 0 refused")
    assert again.stdout.startswith("0 imported, 2 known, 0 refused")
    assert name_of(imports, TOKEN) == "jack key-auth"


def test_no_secret_is_printed(imports: Settings, run: Run) -> None:
    broken = TOKEN[:10] + " " + TOKEN[10:]
    file = write({"user_id": 9, "name": "n", "secret": TOKEN}, {"name": "n", "secret": broken}, TOKEN)

    result = run(*IMPORT, "--json", file)

    assert "refused" in result.stdout
    assert TOKEN not in result.output
    assert broken not in result.output


@pytest.mark.parametrize(
    "arguments, fault",
    [
        pytest.param(("absent.jsonl",), "No such file", id="no file"),
        pytest.param(("--format", "kong", "keys.jsonl"), "keys.jsonl: it is neither JSON lines", id="format"),
        pytest.param(("--user", "nobody@example.com", "keys.jsonl"), "there is no user", id="user"),
    ],
)
def test_a_mistake_is_explained(imports: Settings, run: Run, arguments: tuple[str, ...], fault: str) -> None:
    write("[]")

    result = run(*IMPORT, *arguments)

    assert result.exit_code in {1, 2}
    assert fault in result.stderr


# ---------------------------------------------------------------------- the files


def entries(path: str, form: str) -> list[Any]:
    """Return the fields or the fault of each key in a file."""
    with Path(path).open("rb") as file:
        return [one.fields or one.fault for one in read_entries(file, FORMATS[form])]


UNKEY = {"hash": sha256(TOKEN), "externalId": "acme"}
UNKEY_FIELDS = {"name": "acme", "meta": {}, "user_external_id": "acme", "sha256": sha256(TOKEN)}


@pytest.mark.parametrize(
    "others, expected",
    [
        pytest.param({}, UNKEY_FIELDS, id="plain"),
        pytest.param({"meta": {"a": 1}, "name": "n"}, {**UNKEY_FIELDS, "meta": {"a": 1}, "name": "n"}, id="meta"),
        pytest.param({"permissions": ["docs.api.read"]}, {**UNKEY_FIELDS, "scopes": ["docs.api:read"]}, id="scopes"),
        pytest.param({"roles": ["admin"]}, {**UNKEY_FIELDS, "roles": ["admin"]}, id="roles"),
        pytest.param(
            {"ratelimits": [{"name": "a", "limit": 5, "duration": 2000}, {"duration": 1, "autoApply": False}]},
            {**UNKEY_FIELDS, "limits": [{"name": "a", "limit": 5, "window_s": 2}]},
            id="limits",
        ),
        pytest.param(
            {"credits": {"remaining": 0, "refill": {"interval": "daily", "amount": 3}}},
            {**UNKEY_FIELDS, "credits": {"remaining": 0, "refill": {"amount": 3, "every": "day"}}},
            id="credits",
        ),
        pytest.param({"ratelimits": [{"name": "a", "duration": 1500}]}, "a rate limit is not of whole seconds", id="ms"),
        pytest.param(
            {"credits": {"remaining": 1, "refill": {"interval": "monthly", "amount": 3, "refillDay": 9}}},
            "a refill is neither at the start of the day nor of the month",
            id="refill",
        ),
        pytest.param({"hash": {"value": "x", "variant": "bcrypt"}}, "the hash is not a SHA-256", id="hash"),
        pytest.param({"enabled": False}, "the key is disabled", id="disabled"),
        pytest.param({"expires": "soon"}, NO_FORM, id="expires"),
        pytest.param({"ratelimits": 5}, NO_FORM, id="no list"),
    ],
)  # fmt: skip
def test_a_line_of_unkey_is_read(environ: None, others: dict[str, Any], expected: Any) -> None:
    assert entries(write({**UNKEY, **others}), "unkey") == [expected]


def test_lines_are_bounded_and_counted(environ: None) -> None:
    file = write("", UNKEY, "{" + "x" * LONGEST_LINE_BYTES * 2, "[]", "\ud7ff{", UNKEY)

    assert entries(file, "unkey") == [UNKEY_FIELDS, NO_OBJECT, NO_OBJECT, NO_OBJECT, UNKEY_FIELDS]
    with Path(file).open("rb") as opened:
        assert [one.place for one in read_entries(opened, FORMATS["unkey"])][-1] == "line 6"


def test_a_file_without_keys_has_none(environ: None) -> None:
    for form in FORMATS:
        assert entries(write(), form) == []


def test_a_document_is_bounded(environ: pytest.MonkeyPatch) -> None:
    environ.setattr(dumps, "LARGEST_DOCUMENT_BYTES", 10)

    with pytest.raises(FileFormatError):
        entries(write_document({"consumers": []}), "kong")
