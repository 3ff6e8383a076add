"""The jobs and their contestants: the variants of the peers, and the requests that each gets."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from benchmarks import requests
from benchmarks.servers import ServerVariant

LATCHKEY = "Latchkey"
LOGGED = "Latchkey with its access log"
CACHED = "Latchkey with its key cache"
SIGNED = "Latchkey, signed"
GATE = "Latchkey, gate"
CACHED_GATE = "Latchkey, gate with its key cache"
VERIFY = "Latchkey, verification of a secret"
INTO = "Latchkey, into Structs"
PREPARED = "Latchkey, prepared"
ENTITIES = "Latchkey, entities"
ASYNCMY = "bare asyncmy function"
DEPENDS = "FastAPI with Depends"
LITESTAR = "Litestar with Advanced Alchemy"
SCOPED = "fastapi-async-sqlalchemy"
REPLACED = "the replaced design"
BARE = "bare function without a database"

PEERS = {
    "latchkey": LATCHKEY,
    "bare_asyncmy": ASYNCMY,
    "bare_asgi": BARE,
    "fastapi_depends": DEPENDS,
    "litestar_alchemy": LITESTAR,
    "async_sqlalchemy": SCOPED,
    "replaced": REPLACED,
}
"""The modules of the peers, and their names in the tables."""


class Contestant(msgspec.Struct, frozen=True, kw_only=True):
    """A contestant in a job: a variant of a peer, and the requests that it gets."""

    name: str
    variant: ServerVariant
    make: requests.MakeRequests = requests.reads
    cycles: bool = True
    """True repeats the same requests; False sends each once."""
    connections: int = 32
    idle: int = 0
    """The number of idle keep-alive clients."""
    accepts: tuple[int, ...] = ()
    """The accepted statuses other than 2xx."""
    rows: int | None = None
    """The number of users and keys in its database; None uses the number of the run."""
    beside: str | None = None
    """The contestant that the table compares it with; None is the first of the job."""
    everywhere: bool = False
    """True allows all cores instead of only the server's."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A measurement, and its contestants, which take turns."""

    name: str
    title: str
    contestants: tuple[Contestant, ...]
    same_answer: bool = False
    """True requires the same answer to the first request from all contestants."""


def variant(module: str, **environ: str) -> ServerVariant:
    """Return a contestant whose peer has additional environment variables."""
    return ServerVariant(module=module, environ=environ)


LOGGING = ServerVariant(module="latchkey", environ={"ACCESS_LOG": "1"}, discards_log=True)
WITH_CACHE = variant("latchkey", LATCHKEY_KEY_CACHE_TTL_S="60")
GATED = {
    "LATCHKEY_GATE_RULES": str(Path(__file__).parent / "peers" / "gate.toml"),
    "LATCHKEY_TRUSTED_PROXIES": "127.0.0.1",
}
READ = tuple(Contestant(name=name, variant=variant(module)) for module, name in PEERS.items())
CREATE = tuple(msgspec.structs.replace(one, make=requests.creates, cycles=False) for one in READ)

TEAM = variant("latchkey", LATCHKEY_APP="benchmarks.peers.articles:create_application")


def own(name: str, title: str, *, public: bool, page: bool) -> Job:
    """Return a job for the code of a team: Latchkey's three ways of reading, and two frameworks."""
    ways = {INTO: "/into", PREPARED: "/prepared", ENTITIES: "/entities"}
    others = {DEPENDS: "fastapi_depends", LITESTAR: "litestar_alchemy"}
    return Job(
        name=name,
        title=title,
        same_answer=True,
        contestants=(
            *(
                Contestant(name=way, variant=TEAM, make=requests.articles(prefix, public=public, page=page))
                for way, prefix in ways.items()
            ),
            *(
                Contestant(
                    name=other, variant=variant(module), make=requests.articles(public=public, page=page)
                )
                for other, module in others.items()
            ),
        ),
    )


OWN = (
    own(
        "own_read",
        "an application's own endpoint with a bearer key: an article by its slug, with its author and its tags",
        public=False,
        page=False,
    ),
    own("own_read_public", "the same without a key", public=True, page=False),
    own(
        "own_list",
        "an application's own list with a bearer key: 20 articles with their authors and their tags",
        public=False,
        page=True,
    ),
    own("own_list_public", "the same without a key", public=True, page=True),
)

JOBS = (
    Job(
        name="read",
        title="`GET /v1/me` with a bearer key; every call reads the key and its owner from the database",
        contestants=(*READ, Contestant(name=LOGGED, variant=LOGGING)),
    ),
    Job(
        name="cached",
        title="the same read with the key cache, compared with servers that query the database",
        contestants=(
            Contestant(name=CACHED, variant=WITH_CACHE),
            *(one for one in READ if one.name in {LATCHKEY, ASYNCMY, BARE}),
        ),
    ),
    Job(
        name="create",
        title="`POST /v1/users` with a bearer key: insert, commit, and return the values that the database has set",
        contestants=CREATE,
    ),
    Job(
        name="signed",
        title="the read with a message signature (RFC 9421) and a reserved nonce, compared with a bearer key",
        contestants=(
            Contestant(name=SIGNED, variant=variant("latchkey"), make=requests.signed_reads, cycles=False),
            *(one for one in READ if one.name == LATCHKEY),
        ),
    ),
    Job(
        name="gate",
        title="a decision of the gate about a GET with a bearer key, compared with the read with the key cache",
        contestants=(
            Contestant(name=CACHED, variant=WITH_CACHE),
            Contestant(
                name=CACHED_GATE,
                variant=variant("latchkey", **GATED, **WITH_CACHE.environ),
                make=requests.gated,
            ),
            Contestant(name=GATE, variant=variant("latchkey", **GATED), make=requests.gated),
            *(
                msgspec.structs.replace(one, make=requests.gated)
                for one in READ
                if one.name in {DEPENDS, BARE}
            ),
        ),
    ),
    Job(
        name="verify",
        title="`POST /v1/keys/verify` with the secret of another key, compared with the read",
        contestants=(
            Contestant(name=VERIFY, variant=variant("latchkey"), make=requests.verifications),
            *(one for one in READ if one.name == LATCHKEY),
        ),
    ),
    Job(
        name="idle",
        title="the read for 50 clients, while 1,000 other clients keep idle connections open",
        contestants=tuple(msgspec.structs.replace(one, connections=50, idle=1000) for one in READ),
    ),
)


def choose(jobs: Iterable[Job], names: Iterable[str], peers: Iterable[str]) -> list[Job]:
    """Return the jobs with these names, and in them the contestants of these peers; no names select all.

    Raises:
        ValueError: a name is unknown.
    """
    jobs, names, peers = list(jobs), list(names), list(peers)
    for given, known in ((names, [job.name for job in jobs]), (peers, list(PEERS))):
        if unknown := [name for name in given if name not in known]:
            raise ValueError(f"{', '.join(unknown)} is not among {', '.join(known)}")
    return [
        msgspec.structs.replace(
            job,
            contestants=tuple(one for one in job.contestants if not peers or one.variant.module in peers),
        )
        for job in jobs
        if not names or job.name in names
    ]
