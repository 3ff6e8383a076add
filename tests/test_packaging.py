"""The files from which a clone is installed, built and started agree with each other."""

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
LOCKS = (
    "requirements.txt",
    "requirements-dev.txt",
    "requirements-bench.txt",
    "requirements-clients.txt",
    "requirements-build.txt",
    "requirements-docs.txt",
)
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())

# The folders that git ignores, and git's own.
UNTRACKED = {".git", ".venv", "var", "build", "dist", "__pycache__"}


def name_of(requirement: str) -> str:
    """Return a requirement's name in the spelling of the locks."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def pins(lock: str) -> dict[str, str]:
    """Return the versions of a lock, by name."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def stages() -> list[str]:
    """Return the stages of the Containerfile without comments."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Containerfile").read_text(), flags=re.MULTILINE)
    return re.split(r"^(?=FROM )", text, flags=re.MULTILINE)[1:]


def tracked() -> list[Path]:
    """Return the files that git would list, without git, because a tree may come without it."""
    found = []
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        cached = any(
            part in UNTRACKED or part.startswith(".venv-") or part.endswith(("_cache", ".egg-info"))
            for part in parts
        )
        if not cached and path.is_file():
            found.append(path)
    return found


class TestLocks:
    @pytest.mark.parametrize("lock", LOCKS)
    def test_a_lock_names_no_host(self, lock: str) -> None:
        text = (ROOT / lock).read_text()

        assert "://" not in text
        assert not re.search(r"^\s*-[^-]|^\s*--(?!hash=)", text, re.MULTILINE)

    @pytest.mark.parametrize("lock", LOCKS)
    def test_every_pin_has_a_hash(self, lock: str) -> None:
        entries = re.split(r"^(?=[\w.-]+==)", (ROOT / lock).read_text(), flags=re.MULTILINE)[1:]

        assert entries
        assert [entry for entry in entries if "--hash=sha256:" not in entry] == []

    @pytest.mark.parametrize(
        ("lock", "requirements"),
        [
            ("requirements.txt", PROJECT["project"]["dependencies"]),
            ("requirements-dev.txt", PROJECT["project"]["dependencies"]),
            ("requirements.txt", PROJECT["project"]["optional-dependencies"]["redis"]),
            ("requirements-dev.txt", PROJECT["project"]["optional-dependencies"]["redis"]),
            ("requirements-dev.txt", PROJECT["project"]["optional-dependencies"]["dev"]),
            ("requirements-bench.txt", PROJECT["project"]["dependencies"]),
            ("requirements-bench.txt", PROJECT["project"]["optional-dependencies"]["bench"]),
            ("requirements-build.txt", PROJECT["build-system"]["requires"]),
            ("requirements-docs.txt", PROJECT["project"]["optional-dependencies"]["docs"]),
        ],
        ids=[
            "service",
            "service in dev",
            "redis",
            "redis in dev",
            "dev",
            "service in bench",
            "bench",
            "build",
            "docs",
        ],
    )
    def test_every_dependency_is_locked(self, lock: str, requirements: list[str]) -> None:
        locked = pins(lock)

        assert [name for name in map(name_of, requirements) if name not in locked] == []

    def test_the_locks_agree(self) -> None:
        everything = pins("requirements-dev.txt")

        assert pins("requirements.txt").items() <= everything.items()
        assert pins("requirements-build.txt").items() <= everything.items()

    def test_the_peers_run_on_the_versions_of_the_service(self) -> None:
        assert pins("requirements.txt").items() <= pins("requirements-bench.txt").items()

    @pytest.mark.parametrize("extra", ["dev", "bench", "docs"])
    def test_the_service_brings_no_tool_of_development(self, extra: str) -> None:
        tools = {name_of(tool) for tool in PROJECT["project"]["optional-dependencies"][extra]}

        assert tools & pins("requirements.txt").keys() == set()


class TestMake:
    def test_help_is_the_default_and_names_every_target(self) -> None:
        make = shutil.which("make")
        assert make, "make is missing"
        targets = re.findall(r"^([.a-z][.a-z-]*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
        targets = [target for target in targets if target == ".env" or not target.startswith(".")]

        told = subprocess.run([make], cwd=ROOT, capture_output=True, text=True, check=True).stdout

        described = dict(re.findall(r"^make (\S+)\s+(\S.*)$", told, re.MULTILINE))
        assert {
            "help",
            "dev",
            "test",
            "test-mysql",
            "test-mariadb",
            "test-galera",
            "test-storm",
            "check",
            "bench",
            "bench-growth",
            "bench-soak",
            "lock",
            "openapi",
            "api",
            "docs",
            "up",
            "down",
            "clean",
        } <= set(targets)
        assert sorted(described) == sorted(targets)

    def test_an_old_python_is_refused_with_what_to_do(self, tmp_path: Path) -> None:
        make = shutil.which("make")
        assert make, "make is missing"
        for name in ("Makefile", "pyproject.toml", "requirements-dev.txt"):
            shutil.copy(ROOT / name, tmp_path)
        old = tmp_path / "python3.8"
        old.write_text("#!/bin/sh\nexit 1\n")
        old.chmod(0o755)

        done = subprocess.run(
            [make, f"PYTHON={old}", "dev"], cwd=tmp_path, capture_output=True, text=True, check=False
        )

        assert done.returncode
        assert "needs Python 3.11 or later" in done.stderr
        assert "make PYTHON=python3.13 dev" in done.stderr
        assert not list(tmp_path.glob(".venv*"))

    @pytest.fixture
    def plan(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
        """Return what `make test` would run on machines with certain Pythons."""
        make = shutil.which("make")
        assert make, "make is missing"
        for name in ("Makefile", "pyproject.toml", "requirements-dev.txt"):
            shutil.copy(ROOT / name, tmp_path)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        for name in ("PYTHON", "MAKEFLAGS", "MAKEOVERRIDES"):  # of the `make` that runs the tests
            monkeypatch.delenv(name, raising=False)

        def plan(*arguments: str, **versions: str) -> str:
            for name, version in versions.items():
                python = tmp_path / name.replace("_", ".")
                python.write_text(f"#!/bin/sh\necho {version}\n")
                python.chmod(0o755)
            done = subprocess.run(
                [make, "--dry-run", *arguments, "test"],
                cwd=tmp_path, capture_output=True, text=True, check=True,
            )  # fmt: skip
            return done.stdout

        return plan

    def test_each_python_has_an_environment_of_its_own(self, plan: Callable[..., str]) -> None:
        assert "\n.venv/bin/python -m pytest" in plan(python3="3.11")
        assert "\n.venv-3.13/bin/python -m pytest" in plan("PYTHON=python3.13", python3_13="3.13")
        assert "\n.venv-3.14/bin/python -m pytest" in plan("PYTHON=./new", new="3.14")

    @pytest.mark.parametrize(
        ("now", "venv"),
        [
            pytest.param("3.11", None, id="the same"),
            pytest.param("3.12", "python3 -m venv --clear .venv", id="another"),
        ],
    )
    def test_an_environment_of_another_version_is_made_anew(
        self, plan: Callable[..., str], tmp_path: Path, now: str, venv: str | None
    ) -> None:
        (tmp_path / ".venv").mkdir()
        (tmp_path / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
        (tmp_path / ".venv" / ".ready").touch()

        found = plan(python3=now)

        assert [line for line in found.splitlines() if " -m venv " in line] == ([venv] if venv else [])

    def test_secrets_are_made_once_and_for_their_owner_alone(self, tmp_path: Path) -> None:
        make = shutil.which("make")
        assert make, "make is missing"
        shutil.copy(ROOT / "Makefile", tmp_path)
        secrets = tmp_path / ".env"

        subprocess.run([make, ".env"], cwd=tmp_path, capture_output=True, check=True)
        first = secrets.read_text()
        subprocess.run([make, ".env"], cwd=tmp_path, capture_output=True, check=True)

        assert secrets.stat().st_mode & 0o777 == 0o600
        assert secrets.read_text() == first
        assert re.fullmatch(
            r"LATCHKEY_KEYRING=1:[A-Za-z0-9+/]{43}=\n"
            r"MARIADB_PASSWORD=[0-9a-f]{48}\nMARIADB_ROOT_PASSWORD=[0-9a-f]{48}\n",
            first,
        )

    def test_git_never_sees_the_secrets(self) -> None:
        assert {".env", "var/", ".venv", ".venv-*"} <= set((ROOT / ".gitignore").read_text().splitlines())


class TestContainerfile:
    def test_the_last_stage_runs_as_a_numbered_user_that_is_not_root(self) -> None:
        *_, last = stages()

        assert re.findall(r"^USER (.*)$", last, re.MULTILINE) == ["10001:10001"]
        assert last.index("\nUSER ") < last.index("\nENTRYPOINT ")

    def test_the_last_stage_checks_its_health_and_serves(self) -> None:
        *_, last = stages()

        assert re.search(r"^HEALTHCHECK .*\n? *CMD .*/healthz", last, re.MULTILINE)
        assert 'ENTRYPOINT ["latchkey"]' in last
        assert 'CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]' in last

    def test_nothing_of_development_gets_in(self) -> None:
        builder, last = stages()

        assert "requirements-dev" not in builder + last
        assert "pip" not in last
        assert "requirements-build" not in last
        assert builder.count("--require-hashes") == 2

    def test_its_labels_are_those_of_the_project(self) -> None:
        labels = dict(
            re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', (ROOT / "Containerfile").read_text())
        )
        project = PROJECT["project"]

        assert labels == {
            "title": "Latchkey",
            "description": project["description"],
            "version": project["version"],
            "revision": "$REVISION",
            "licenses": project["license"],
            "source": project["urls"]["Source"],
            "documentation": project["urls"]["Documentation"],
        }

    def test_no_secret_is_built_in(self) -> None:
        assert not re.search(
            r"^(ARG|ENV)\b.*(KEYRING|PASSWORD|SECRET|LATCHKEY_)", "".join(stages()), re.MULTILINE
        )

    def test_only_what_is_named_reaches_the_builder(self) -> None:
        ignored, *named = [
            line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] != "#"
        ]
        copied = re.findall(r"^COPY (?!--from)(.*) \S+$", stages()[0], re.MULTILINE)

        assert ignored == "*"
        assert {line[1:] for line in named if line[0] == "!"} == {
            name for line in copied for name in line.split()
        }


class TestCompose:
    def test_every_serving_container_has_a_health_check(self) -> None:
        services = compose()["services"]

        assert set(services) == {"db", "migrate", "api"}
        assert services["db"]["healthcheck"]["test"][1:] == [
            "healthcheck.sh",
            "--connect",
            "--innodb_initialized",
        ]
        assert "/readyz" in services["api"]["healthcheck"]["test"][-1]

    def test_the_api_waits_for_the_migrations_and_they_for_the_database(self) -> None:
        services = compose()["services"]

        assert services["migrate"]["command"] == ["migrate"]
        assert services["migrate"]["depends_on"] == {"db": {"condition": "service_healthy"}}
        assert services["api"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}

    def test_no_secret_has_a_default(self) -> None:
        text = (ROOT / "compose.yaml").read_text()
        secret = re.compile(r"\$\{?(\w*(?:PASSWORD|KEYRING|SECRET)\w*)([^}]*)")

        assert {name for name, _ in secret.findall(text)} == {
            "LATCHKEY_KEYRING",
            "MARIADB_PASSWORD",
            "MARIADB_ROOT_PASSWORD",
        }
        assert [found for found in secret.findall(text) if not found[1].startswith(":?")] == []
        for service in compose()["services"].values():
            for name, value in service["environment"].items():
                assert value.startswith("${") or not re.search("PASSWORD|KEYRING", name)

    def test_the_api_is_published_on_this_host_alone(self) -> None:
        services = compose()["services"]

        assert services["api"]["ports"] == ["127.0.0.1:${PORT:-8000}:8000"]
        assert "ports" not in services["db"]


class TestContinuousIntegration:
    def test_it_requires_the_servers_and_runs_check_and_test(self) -> None:
        script = (ROOT / ".ci" / "run").read_text()

        required = re.findall(r"LATCHKEY_TEST_REQUIRE_(\w+)=1", script)
        assert required == ["MARIADB", "REDIS", "CADDY", "CHROMIUM"]
        assert [
            name for name in ("mariadb-server", "redis-server") if f"missing+=({name})" not in script
        ] == []
        assert re.findall(r"^make .* (\w+)$", script, re.MULTILINE) == ["check", "test"]


def test_r2_no_middleware_moves_the_endpoint_to_another_task() -> None:
    """Nothing names Starlette's `BaseHTTPMiddleware`, except this test, which forbids it."""
    forbidden = b"BaseHTTPMiddleware"

    assert [path for path in tracked() if forbidden in path.read_bytes()] == [Path(__file__)]
