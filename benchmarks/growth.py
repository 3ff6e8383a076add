"""How cost grows with the pool, the clients, the workers, the database, and the rows of an answer."""

from benchmarks import requests
from benchmarks.figures import Run
from benchmarks.jobs import ASYNCMY, LATCHKEY, Contestant, Job
from benchmarks.servers import POOL_SIZE, ServerVariant
from benchmarks.targets import Target, rps

UNAVAILABLE = (503,)
BOTH = (("latchkey", LATCHKEY), ("bare_asyncmy", ASYNCMY))
POOLS = (5, 10, 20, 40, 80)
CLIENTS = (1, 8, 32, 128, 512)
WORKERS = (1, 2)
ROWS = (1_000, 100_000, 1_000_000)
ANSWER_ROWS = (1, 10, 100)
MANY_CLIENTS = 128

KEYS_IN_USE = 400
"""Enough to be spread over the largest database, and few enough for two modes in the smallest."""


def named(name: str, what: str) -> str:
    """Return the name of a point in a series."""
    return f"{name}, {what}"


JOBS = (
    Job(
        name="pool",
        title=f"the read for {MANY_CLIENTS} clients, by the size of the pool",
        contestants=tuple(
            Contestant(
                name=named(name, f"pool of {size}"),
                variant=ServerVariant(module=module, pool_size=size),
                connections=MANY_CLIENTS,
                accepts=UNAVAILABLE,
                beside=named(name, f"pool of {POOLS[0]}"),
            )
            for module, name in BOTH
            for size in POOLS
        ),
    ),
    Job(
        name="clients",
        title=f"the read with a pool of {POOL_SIZE}, by the number of clients",
        contestants=tuple(
            Contestant(
                name=named(name, f"clients: {clients}"),
                variant=ServerVariant(module=module),
                connections=clients,
                accepts=UNAVAILABLE,
                beside=named(name, f"clients: {CLIENTS[0]}"),
            )
            for module, name in BOTH
            for clients in CLIENTS
        ),
    ),
    Job(
        name="workers",
        title="the read by the number of workers, which can use every core",
        contestants=tuple(
            Contestant(
                name=named(name, f"workers: {workers}"),
                variant=ServerVariant(module=module, workers=workers),
                everywhere=True,
                beside=named(name, f"workers: {WORKERS[0]}"),
            )
            for module, name in BOTH
            for workers in WORKERS
        ),
    ),
    Job(
        name="database",
        title="the read by the number of users and keys in the database",
        contestants=tuple(
            Contestant(
                name=named(name, f"keys: {rows:,}"),
                variant=ServerVariant(module=module),
                rows=rows,
                beside=named(name, f"keys: {ROWS[0]:,}"),
            )
            for module, name in BOTH
            for rows in ROWS
        ),
    ),
    Job(
        name="answer",
        title="`GET /v1/users?limit=…`, by the rows of the answer",
        contestants=tuple(
            Contestant(
                name=named(LATCHKEY, f"rows: {rows}"),
                variant=ServerVariant(module="latchkey"),
                make=requests.lists(rows),
            )
            for rows in ANSWER_ROWS
        ),
    ),
)


def answered(run: Run) -> float | None:
    """Return the part of the requests that were answered at all, including 503, with the largest number of clients.

    Any other error would have failed the measurement, so the result is all requests or nothing.
    """
    return None if run.of("clients", named(LATCHKEY, f"clients: {CLIENTS[-1]}")) is None else 1.0


TARGETS = (
    Target(
        sentence=f"a pool of {POOL_SIZE} serves {CLIENTS[-1]} clients without errors other than 503",
        bound=1.0,
        unit="",
        value=answered,
    ),
    Target(
        sentence=f"time for a read with {ROWS[-1]:,} keys, against {ROWS[0]:,}",
        bound=1.15,
        direction="at most",
        value=rps(
            ("database", named(LATCHKEY, f"keys: {ROWS[0]:,}")),
            ("database", named(LATCHKEY, f"keys: {ROWS[-1]:,}")),
        ),
    ),
)
