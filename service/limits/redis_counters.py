"""The counters in Redis: read together with its clock, written by compare-and-set, by one script."""

from collections.abc import Sequence
from typing import Any

from latchkey.service.limits.account import Account
from latchkey.service.limits.counters import Reading, Stored, Write
from latchkey.service.limits.window import MICROSECONDS
from latchkey.service.redis.store import Store, Word

# Without arguments it reads. Otherwise each counter has four: the version that was read, or nothing if there was none, the
# new version, the state, and the time of its expiry in milliseconds. It writes all counters or none.
_SCRIPT = """
local clock = redis.call('TIME')
local found = {1, clock[1], clock[2]}
for i, key in ipairs(KEYS) do
  local stored = redis.call('HMGET', key, 'version', 'state')
  if #ARGV > 0 and (stored[1] or '') ~= ARGV[4 * i - 3] then
    found[1] = 0
  end
  found[2 * i + 2], found[2 * i + 3] = stored[1], stored[2]
end
if #ARGV > 0 and found[1] == 1 then
  for i, key in ipairs(KEYS) do
    redis.call('HSET', key, 'version', ARGV[4 * i - 2], 'state', ARGV[4 * i - 1])
    redis.call('PEXPIREAT', key, ARGV[4 * i])
  end
end
return found
"""


class RedisCounters:
    """The counters of keys and owners without credits.

    The counters of one owner and of all its keys have the same tag, so that one script can use them in a Redis Cluster.

    Args:
        store: of the installation.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self, accounts: Sequence[Account]) -> Reading:
        """Return one or two counters and the clock of Redis, in one round trip."""
        _, seconds, microseconds, *stored = await self._run(accounts, [])
        pairs = zip(accounts, stored[::2], stored[1::2], strict=True)
        return Reading(
            int(seconds) * MICROSECONDS + int(microseconds),
            {
                one.subject: Stored(int(version), state)
                for one, version, state in pairs
                if version is not None
            },
        )

    async def write(self, writes: Sequence[Write]) -> bool:
        """Write one or two counters, both or neither; return False when another writer changed one first.

        Versions start at the current time, so that a new counter never repeats the version of an expired one.
        """
        arguments: list[Word] = []
        for one in writes:
            arguments += ["", one.moment] if one.version is None else [one.version, one.version + 1]
            arguments += [one.state, -(-one.expires_at // 1000)]
        is_written, *_ = await self._run([one.account for one in writes], arguments)
        return bool(is_written)

    async def _run(self, accounts: Sequence[Account], arguments: Sequence[Word]) -> list[Any]:
        keys = [self._store.key(one.owner_id, one.subject) for one in accounts]
        found: list[Any] = await self._store.run(_SCRIPT, keys, arguments)
        return found
