"""`latchkey keys`: create, list, rotate, grant and revoke, with the same rows as the endpoints."""

import re
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from latchkey.service import shapes
from latchkey.service.authentication.wire.credentials import parse_access_key, parse_secret
from latchkey.service.commands.parameters import GRACE
from latchkey.service.settings import Settings
from tests.service.commands.running import EVERY_SCOPE, Run, answered, ask, good


class TestKeys:
    @pytest.fixture
    def ann(self, migrated: Settings, run: Run) -> int:
        return answered(run("users", "create", "--email", "ann@example.com", "--name", "Ann", "--json"))["id"]

    @pytest.mark.parametrize("mode", ["bearer", "signed"])
    def test_one_is_created_found_and_revoked(self, ann: int, run: Run, mode: str) -> None:
        made = answered(
            run(
                "keys", "create", "--user", "Ann@example.com", "--name", "import", "--mode", mode,
                "--scopes", "users:read, keys:read", "--expires-at", "2100-01-01T02:00:00+02:00", "--json",
            )
        )  # fmt: skip
        secret = made.pop("secret")
        listed = answered(run("keys", "list", "--user", str(ann), "--json"))
        revoked = answered(run("keys", "revoke", made["access_key"], "--json"))

        assert parse_secret(secret, "lk")
        assert parse_access_key(made["access_key"], "lk")
        assert (made["user_id"], made["mode"], made["status"]) == (ann, mode, "active")
        assert made["scopes"] == ["users:read", "keys:read"]
        assert made["expires_at"] == "2100-01-01T00:00:00Z"
        assert listed == {"data": [made], "next_cursor": None}
        assert revoked == {**made, "status": "revoked", "updated_at": revoked["updated_at"]}
        assert answered(run("keys", "revoke", made["access_key"], "--json")) == revoked
        assert answered(run("keys", "list", "--status", "active", "--json"))["data"] == []

    def test_credits_are_given_changed_and_removed(self, ann: int, run: Run) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", "bearer", "--scopes", "",
                "--credits", "100", "--refill", "50/month", "--json",
            )
        )  # fmt: skip
        key = made["access_key"]
        changes = [("--add", "500"), ("--add=-550",), ("--set", "7"), ("--none",)]
        changed = [answered(run("keys", "credits", key, *one, "--json"))["credits"] for one in changes]
        listed = answered(run("keys", "list", "--json"))["data"]

        refill = {"amount": 50, "every": "month"}
        assert made["credits"] == {"remaining": 100, "refill": refill}
        assert changed == [
            {"remaining": 600, "refill": refill},
            {"remaining": 50, "refill": refill},
            {"remaining": 7, "refill": None},
            None,
        ]
        assert listed[0]["credits"] is None

    @pytest.mark.parametrize(
        "options, words",
        [
            ((), "give one of --add, --set and --none"),
            (("--add", "1", "--none"), "give one of --add, --set and --none"),
            (("--add", "1", "--refill", "1/day"), "--refill needs the number of credits"),
            (("--set", "1", "--refill", "1/week"), "as in 1000/day or 50000/month"),
            (("--set", "-1"), "--set"),
            (("--add=-1",), "The key has 0 credits left"),
        ],
    )
    def test_a_change_of_credits_that_cannot_be_is_refused(
        self, ann: int, run: Run, options: tuple[str, ...], words: str
    ) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", "bearer", "--scopes", "",
                "--credits", "0", "--json",
            )
        )  # fmt: skip
        done = run("keys", "credits", made["access_key"], *options)

        assert done.exit_code != 0
        assert words in done.stderr

    @pytest.mark.parametrize("mode", ["bearer", "signed"])
    def test_one_is_rotated_as_the_endpoint_does_it(
        self, ann: int, migrated: Settings, run: Run, mode: str
    ) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", mode,
                "--scopes", EVERY_SCOPE, "--json",
            )
        )  # fmt: skip
        rotated = answered(run("keys", "rotate", made["access_key"], "--grace", "7d", "--json"))
        listed = answered(run("keys", "list", "--json"))["data"]

        grace = datetime.fromisoformat(rotated["old_secret_expires_at"]) - datetime.now(UTC)
        assert timedelta(days=6, hours=23) < grace <= timedelta(days=7)
        assert parse_secret(rotated["secret"], "lk")
        assert rotated["secret"] != made["secret"]
        assert msgspec.json.encode(msgspec.convert(rotated, shapes.RotatedKey)) == msgspec.json.encode(
            rotated
        )
        assert listed == [{name: rotated[name] for name in made if name != "secret"}]
        assert listed[0]["secret_version"] == 2
        if mode == "bearer":
            both = [made["secret"], rotated["secret"]]
            assert [ask(migrated, secret, ("GET", "/v1/me", ""))[0].status for secret in both] == [200, 200]

    def test_without_grace_the_old_secret_ends_at_once(self, ann: int, migrated: Settings, run: Run) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", "bearer", "--scopes", "", "--json"
            )
        )  # fmt: skip

        rotated = run("keys", "rotate", made["access_key"])

        (secret,) = re.findall(r"^secret +(lks_\w{49})$", rotated.stdout, re.MULTILINE)
        assert rotated.exit_code == 0
        assert rotated.stderr == ("The secret is shown only here: keep it safe.\nThe old secret has ended.\n")
        both = [made["secret"], secret]
        assert [ask(migrated, one, ("GET", "/v1/me", ""))[0].status for one in both] == [401, 200]

    def test_until_when_the_old_secret_works_is_told_to_people(self, ann: int, run: Run) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", "bearer", "--scopes", "",
                "--expires-at", "2100-01-01T00:00:00Z", "--json",
            )
        )  # fmt: skip

        told = run("keys", "rotate", made["access_key"], "--grace", "600").stderr

        assert re.search(
            r"^The old secret works until 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00\.$", told, re.MULTILINE
        )

    @pytest.mark.parametrize(
        "grace, seconds",
        [("0", 0), ("90", 90), ("90s", 90), ("30m", 1800), ("12h", 43200), ("7d", 604800), ("30d", 2592000)],
    )
    def test_a_grace_is_a_number_of_seconds_or_has_a_unit(self, grace: str, seconds: int) -> None:
        assert GRACE.convert(grace, None, None) == seconds

    def test_a_revoked_one_is_not_rotated(self, ann: int, run: Run) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", "bearer", "--scopes", "", "--json"
            )
        )  # fmt: skip
        good(run("keys", "revoke", made["access_key"]))

        refused = run("keys", "rotate", made["access_key"])

        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr == f"Error: the key {made['access_key']} is revoked, and stays so.\n"

    def test_the_secret_is_shown_once_and_only_on_standard_output(self, ann: int, run: Run) -> None:
        made = run(
            "keys", "create", "--user", str(ann), "--name", "k", "--mode", "bearer", "--scopes", "users:read"
        )

        assert made.exit_code == 0
        (secret,) = re.findall(r"^secret +(lks_\w{49})$", made.stdout, re.MULTILINE)
        assert made.stderr == "The secret is shown only here: keep it safe.\n"
        assert secret not in good(run("keys", "list")).stdout

    def test_one_is_given_more_scopes_and_keeps_those_that_it_has(self, ann: int, run: Run) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", "bearer", "--scopes", "users:read",
                "--json",
            )
        )  # fmt: skip
        secret = made.pop("secret")

        given = answered(
            run("keys", "grant", made["access_key"], "--scopes", "keys:read,users:read", "--json")
        )

        assert secret
        assert given == {
            **made, "scopes": ["users:read", "keys:read"], "updated_at": given["updated_at"],
        }  # fmt: skip
        assert answered(run("keys", "list", "--json"))["data"] == [given]

    def test_a_revoked_one_is_given_nothing(self, ann: int, run: Run) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", "bearer", "--scopes", "", "--json"
            )
        )  # fmt: skip
        good(run("keys", "revoke", made["access_key"]))

        refused = run("keys", "grant", made["access_key"], "--scopes", "users:read")

        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr == f"Error: the key {made['access_key']} is revoked, and stays so.\n"

    def test_one_has_at_most_a_hundred_scopes(
        self, ann: int, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", "bearer", "--scopes", EVERY_SCOPE,
                "--json",
            )
        )  # fmt: skip
        monkeypatch.setattr(shapes, "MOST_SCOPES", 5)

        refused = run("keys", "grant", made["access_key"], "--scopes", "users:read")

        assert refused.exit_code == 1
        assert f"would have {len(EVERY_SCOPE.split(','))} scopes; at most 5." in refused.stderr

    def test_a_key_may_have_no_scope_at_all(self, ann: int, run: Run) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", "signed", "--scopes", "", "--json"
            )
        )  # fmt: skip

        assert made["scopes"] == []

    def test_a_key_may_be_bound_to_networks(self, ann: int, run: Run) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", "signed", "--scopes", "",
                "--networks", "10.0.0.0/8, 2001:DB8::1", "--json",
            )
        )  # fmt: skip

        assert made["allowed_networks"] == ["10.0.0.0/8", "2001:db8::1/128"]

    def test_a_key_may_be_limited(self, ann: int, run: Run) -> None:
        options = ("--limit", "burst=100/60s", "--limit", "hourly=1000/1h", "--quota", "10000/day")
        create = ("keys", "create", "--user", str(ann), "--name", "k", "--mode", "bearer", "--scopes", "")
        made = answered(run(*create, *options, "--json"))
        shown = run(*create, *options).stdout

        assert made["limits"] == [
            {"name": "burst", "limit": 100, "window_s": 60},
            {"name": "hourly", "limit": 1000, "window_s": 3600},
        ]
        assert made["quota"] == {"limit": 10000, "per": "day"}
        assert "name=burst limit=100 window_s=60,name=hourly limit=1000 window_s=3600\n" in shown
        assert "limit=10000 per=day\n" in shown

    def test_a_blocked_owner_gets_none(self, ann: int, run: Run) -> None:
        good(run("users", "block", str(ann)))

        refused = run(
            "keys", "create", "--user", str(ann), "--name", "k", "--mode", "signed", "--scopes", "users:read"
        )

        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr == f"Error: the user {ann} is blocked: only active users get keys.\n"
        assert answered(run("keys", "list", "--json"))["data"] == []


def test_the_json_is_what_the_endpoints_answer(migrated: Settings, run: Run) -> None:
    """The command line and HTTP return the same rows in the same bytes."""
    user = good(run("users", "create", "--email", "Ann@example.com", "--name", "Ann Ü", "--json"))
    other = good(run("users", "create", "--email", "bob@example.com", "--name", "Bob", "--json"))
    key = answered(
        run(
            "keys", "create", "--user", "bob@example.com", "--name", "k", "--mode", "bearer",
            "--scopes", EVERY_SCOPE, "--json",
        )
    )  # fmt: skip
    bearer, access_key = key.pop("secret"), key["access_key"]
    ids = [answered(one)["id"] for one in (user, other)]

    read_user, users, read_key, keys, _, blocked, _, revoked = ask(
        migrated,
        bearer,
        ("GET", f"/v1/users/{ids[0]}", ""),
        ("GET", "/v1/users", ""),
        ("GET", f"/v1/keys/{access_key}", ""),
        ("GET", "/v1/keys", f"user_id={ids[1]}"),
        ("DELETE", f"/v1/users/{ids[0]}", ""),
        ("GET", "/v1/users", "status=deleted"),
        ("DELETE", f"/v1/keys/{access_key}", ""),
        ("GET", f"/v1/keys/{access_key}", ""),
    )

    assert user.stdout_bytes == read_user.body + b"\n"
    assert (
        users.body + b"\n"
        == b'{"data":['
        + b",".join([user.stdout_bytes.strip(), other.stdout_bytes.strip()])
        + b'],"next_cursor":null}\n'
    )
    assert read_key.json == key
    assert keys.json == {"data": [key], "next_cursor": None}
    assert good(run("users", "list", "--status", "deleted", "--json")).stdout_bytes == blocked.body + b"\n"
    assert revoked.status == 401  # its own key, from the next call on
    stored = answered(run("keys", "list", "--user", str(ids[1]), "--json"))["data"][0]
    assert stored["status"] == "revoked"
    assert stored["last_used_at"] is not None


def test_a_new_key_is_shown_with_the_fields_of_the_endpoint(migrated_sqlite: Settings, run: Run) -> None:
    good(run("users", "create", "--email", "ann@example.com", "--name", "Ann"))

    made = good(
        run("keys", "create", "--user", "1", "--name", "k", "--mode", "signed", "--scopes", "", "--json")
    )

    decoded = msgspec.json.decode(made.stdout_bytes, type=shapes.KeyWithSecret)
    assert msgspec.json.encode(decoded) + b"\n" == made.stdout_bytes
