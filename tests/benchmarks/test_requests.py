"""The requests of the jobs."""

import collections
import re

import msgspec
import pytest

from benchmarks import requests
from benchmarks.load import decode_request
from benchmarks.rows import Database, HeldKey
from latchkey.service.authentication.wire.credentials import new_access_key, new_secret, parse_secret
from latchkey.service.shapes import NewUser

KEYS = tuple(HeldKey(new_access_key("lk"), new_secret("lk")) for _ in range(3))
SIGNING = tuple(HeldKey(new_access_key("lk"), new_secret("lk")) for _ in range(3))
DATABASE = Database(url="", keyring="", rows=10, bearer=KEYS, signed=SIGNING, pid=0)


def test_reads_use_every_key() -> None:
    found = [decode_request(one) for one in requests.reads(DATABASE, 8000, 1)]

    assert {(method, target) for method, target, _, _ in found} == {("GET", "/v1/me")}
    assert {headers["authorization"] for _, _, headers, _ in found} == {
        f"Bearer {key.secret}" for key in KEYS
    }
    assert {headers["host"] for _, _, headers, _ in found} == {"127.0.0.1:8000"}


@pytest.mark.parametrize("limit", [1, 100])
def test_lists_ask_for_so_many_rows(limit: int) -> None:
    assert {decode_request(one)[1] for one in requests.lists(limit)(DATABASE, 8000, 1)} == {
        f"/v1/users?limit={limit}"
    }


def test_no_email_is_sent_twice_not_even_by_two_rounds() -> None:
    found = [decode_request(one) for _ in range(2) for one in requests.creates(DATABASE, 8000, 50)]

    bodies = [msgspec.json.decode(body, type=NewUser) for _, _, _, body in found]
    assert len({body.email for body in bodies}) == 100


def test_no_nonce_is_sent_twice_not_even_by_two_rounds() -> None:
    found = [decode_request(one) for _ in range(2) for one in requests.signed_reads(DATABASE, 8000, 50)]

    nonces = {
        nonce
        for _, _, headers, _ in found
        for nonce in re.findall(r'nonce="([^"]+)"', headers["signature-input"])
    }
    assert len(nonces) == 100
    assert len({headers["signature"] for _, _, headers, _ in found}) == 100


@pytest.mark.parametrize("public", [False, True], ids=["with a key", "public"])
def test_articles_are_spread_over_the_table(public: bool) -> None:
    database = msgspec.structs.replace(DATABASE, articles=1000)
    reads, pages = (
        [decode_request(one) for one in requests.articles("/into", public=public, page=page)(database, 1, 0)]
        for page in (False, True)
    )

    place = "/into/public/articles" if public else "/into/articles"
    assert [target for _, target, _, _ in reads][:1] == [f"{place}/article-1000"]
    assert [target for _, target, _, _ in pages][:1] == [f"{place}?before=1000"]
    assert len({target for _, target, _, _ in (*reads, *pages)}) == 2 * len(KEYS)
    assert all(("authorization" in headers) is not public for _, _, headers, _ in (*reads, *pages))


def test_the_mixture_is_of_ten() -> None:
    found = [decode_request(one) for one in requests.mixture(DATABASE, 8000, 95)]

    ours = {f"Bearer {key.secret}" for key in KEYS}
    kinds = collections.Counter(
        (method, target.rsplit("/", 1)[0], headers["authorization"] in ours)
        for method, target, headers, _ in found
    )
    assert kinds == {
        ("GET", "/v1", True): 60,
        ("POST", "/v1", True): 20,
        ("GET", "/v1/users", True): 10,
        ("GET", "/v1", False): 10,
    }
    strangers = {headers["authorization"] for _, _, headers, _ in found} - ours
    assert len(strangers) == 10
    assert all(parse_secret(one.removeprefix("Bearer "), "lk") for one in strangers)
