"""Which jobs and peers a run has."""

from typing import Any

import pytest

from benchmarks.jobs import DEPENDS, ENTITIES, INTO, JOBS, LATCHKEY, LITESTAR, OWN, PEERS, PREPARED, choose


def test_without_names_it_is_all_of_them() -> None:
    assert choose(JOBS, [], []) == list(JOBS)


def test_jobs_and_peers_are_chosen_by_name() -> None:
    (job,) = choose(JOBS, ["create"], ["latchkey", "bare_asyncmy"])

    assert job.name == "create"
    assert {one.variant.module for one in job.contestants} == {"latchkey", "bare_asyncmy"}


@pytest.mark.parametrize(
    ("names", "peers", "known"),
    [(["raed"], [], "read, cached"), ([], ["django"], ", ".join(PEERS))],
    ids=["job", "peer"],
)
def test_a_name_that_is_not_known_is_refused_with_those_that_are(
    names: list[Any], peers: list[Any], known: str
) -> None:
    with pytest.raises(ValueError, match=known):
        choose(JOBS, names, peers)


def test_latchkey_does_every_job_and_frameworks_read_and_create() -> None:
    by_name = {job.name: {one.name for one in job.contestants} for job in (*JOBS, *OWN)}

    assert set(by_name) == {
        "read",
        "cached",
        "create",
        "signed",
        "gate",
        "verify",
        "idle",
        *(job.name for job in OWN),
    }
    assert all(any(name.startswith(LATCHKEY) for name in names) for names in by_name.values())
    for name in ("read", "create", "idle"):
        assert set(PEERS.values()) <= by_name[name]
    for job in OWN:
        assert by_name[job.name] == {INTO, PREPARED, ENTITIES, DEPENDS, LITESTAR}
