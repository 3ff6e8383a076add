"""`latchkey users`: create, list, block and unblock."""

import re

from latchkey.service.settings import Settings
from tests.service.commands.running import Run, answered, good


class TestUsers:
    def test_one_is_created_found_blocked_and_unblocked(self, migrated: Settings, run: Run) -> None:
        made = answered(run("users", "create", "--email", "Ann@example.com", "--name", "Ann Ü", "--json"))
        listed = answered(run("users", "list", "--email", "ANN@EXAMPLE.COM", "--json"))
        blocked = answered(run("users", "block", str(made["id"]), "--json"))
        unblocked = answered(run("users", "unblock", "ann@example.com", "--json"))

        assert (made["email"], made["name"], made["status"]) == ("Ann@example.com", "Ann Ü", "active")
        assert listed == {"data": [made], "next_cursor": None}
        assert blocked["status"] == "blocked"
        assert unblocked == {**made, "updated_at": unblocked["updated_at"]}

    def test_blocking_twice_changes_nothing(self, migrated: Settings, run: Run) -> None:
        answered(run("users", "create", "--email", "ann@example.com", "--name", "Ann", "--json"))
        once = answered(run("users", "block", "ann@example.com", "--json"))

        assert answered(run("users", "block", "ann@example.com", "--json")) == once

    def test_a_taken_email_is_refused_in_whatever_letter_case(self, migrated: Settings, run: Run) -> None:
        answered(run("users", "create", "--email", "ann@example.com", "--name", "Ann", "--json"))

        refused = run("users", "create", "--email", "ANN@example.com", "--name", "Other")

        assert (refused.exit_code, refused.stdout) == (1, "")
        assert (
            refused.stderr
            == "Error: the email ANN@example.com is taken; that of a deleted user stays taken.\n"
        )

    def test_the_list_is_whole_unless_it_is_limited(self, migrated_sqlite: Settings, run: Run) -> None:
        for number in range(3):
            good(run("users", "create", "--email", f"u{number}@example.com", "--name", "U"))
        good(run("users", "block", "u1@example.com"))

        def ids(*options: str) -> list[int]:
            return [user["id"] for user in answered(run("users", "list", "--json", *options))["data"]]

        assert ids() == [1, 2, 3]
        assert ids("--limit", "2") == [1, 2]
        assert ids("--status", "active") == [1, 3]
        assert ids("--email", "nobody@example.com") == []

    def test_the_table_has_a_line_for_each(self, migrated_sqlite: Settings, run: Run) -> None:
        good(run("users", "create", "--email", "ann@example.com", "--name", "Ann"))
        good(run("users", "create", "--email", "b@example.com", "--name", "Bob Baker"))

        header, ann, bob = good(run("users", "list")).stdout.splitlines()

        assert header.split() == ["id", "email", "name", "status", "created_at"]
        assert header.index("name") == ann.index("Ann") == bob.index("Bob Baker")

    def test_one_is_shown_a_line_a_field(self, migrated_sqlite: Settings, run: Run) -> None:
        shown = good(run("users", "create", "--email", "ann@example.com", "--name", "Ann")).stdout

        assert re.match(
            r"id +1\nemail +ann@example\.com\nname +Ann\nstatus +active\nlimits +-\nquota +-\nexternal_id +-\nmeta +-\ncreated_at",
            shown,
        )
