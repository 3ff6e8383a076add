"""Commands notify the workers of their changes through Redis."""

import asyncio
import json
import os
import socket
import time

import pytest

from benchmarks.ports import free_port
from latchkey.service.key_cache.channel import open_channel
from latchkey.service.settings import Settings
from tests.redis import PrivateRedis
from tests.service.commands.running import Run, good


class TestTellingOfChanges:
    """With Redis, the workers are notified of a command's changes, and the command does not wait long for it."""

    async def test_a_command_tells_what_it_changed(
        self, migrated_sqlite: Settings, environ: pytest.MonkeyPatch, redis: PrivateRedis, run: Run
    ) -> None:
        environ.setenv("LATCHKEY_REDIS_URL", redis.url)
        channel = open_channel(Settings.from_env(os.environ))
        async with channel.listening() as listener:
            await asyncio.to_thread(run, "users", "create", "--email", "ann@example.com", "--name", "Ann")
            blocked = await asyncio.to_thread(run, "users", "block", "1")
            heard = [await listener.next(1) for _ in range(3)]
        await channel.close()

        good(blocked)
        assert [one for one in heard if one is not None] == [(1, "users 1"), (2, "users 1")]

    @pytest.mark.parametrize("answers", [False, True], ids=["nobody there", "somebody silent"])
    def test_without_redis_it_warns_and_changes_all_the_same(
        self, migrated_sqlite: Settings, environ: pytest.MonkeyPatch, run: Run, answers: bool
    ) -> None:
        good(run("users", "create", "--email", "ann@example.com", "--name", "Ann"))
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1] if answers else free_port()
            environ.setenv("LATCHKEY_REDIS_URL", f"redis://:hush@127.0.0.1:{port}")
            began = time.monotonic()
            blocked = run("users", "block", "1", "--json")

        assert time.monotonic() - began < 5
        assert (blocked.exit_code, json.loads(blocked.stdout)["status"]) == (0, "blocked")
        assert blocked.stderr.startswith("Redis cannot be reached (")
        assert "LATCHKEY_KEY_CACHE_TTL_S" in blocked.stderr
        assert blocked.stderr.count("\n") == 1
        assert "hush" not in blocked.stderr

    def test_reading_tells_nothing(
        self, migrated_sqlite: Settings, environ: pytest.MonkeyPatch, run: Run
    ) -> None:
        environ.setenv("LATCHKEY_REDIS_URL", f"redis://127.0.0.1:{free_port()}")

        good(run("users", "list"))

    def test_a_url_that_cannot_be_used_is_one_sentence(
        self, migrated_sqlite: Settings, environ: pytest.MonkeyPatch, run: Run
    ) -> None:
        environ.setenv("LATCHKEY_REDIS_URL", "hush")
        refused = run("users", "list")

        assert refused.exit_code == 1
        assert refused.stderr.startswith("Error: LATCHKEY_REDIS_URL cannot be used: ")
        assert "hush" not in refused.stderr
