"""The command: `python -m tests.mutants`."""

import argparse
import random
import sys
from pathlib import Path

import pytest

from tests.mutants.laboratory import TEST_TIMEOUT_S, Laboratory, Plan

MODULES = (
    "middleware/*.py",
    *(
        f"service/database/{name}.py"
        for name in (
            "own_task",
            "plan",
            "routing",
            "rules",
            "session",
            "statements",
            "streams",
            "transaction",
        )
    ),
)
TESTS = ("tests/middleware", "tests/sessions", "tests/models")


def main() -> int:
    """Try the mutants, and return 0 if enough were killed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description="Mutation testing of the session layer."
    )
    parser.add_argument("modules", nargs="*", default=MODULES, help="patterns of modules (default: all)")
    parser.add_argument("--count", type=int, default=200, help="how many mutants to draw")
    parser.add_argument(
        "--seed", type=int, default=random.randrange(10**6), help="draw the same mutants again"
    )
    parser.add_argument("--jobs", type=int, default=1, help="how many run at the same time")
    parser.add_argument("--again", type=Path, help="a report whose survivors are tried in place of a draw")
    parser.add_argument("--known", type=Path, help="a file that keeps which test passes which statement")
    parser.add_argument("--tests", nargs="+", default=TESTS)
    parser.add_argument("--marks", default="", help="as -m of pytest: 'not mariadb' is faster")
    given = parser.parse_args()

    plan = Plan(given.modules, given.count, given.seed, given.jobs, given.again, given.known)
    timeout = ["-o", f"faulthandler_timeout={TEST_TIMEOUT_S}", "-o", "faulthandler_exit_on_timeout=true"]
    arguments = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", given.marks]
    return int(pytest.main([*arguments, *timeout, *given.tests], plugins=[Laboratory(plan)]))


if __name__ == "__main__":
    sys.exit(main())
