"""Readers mark articles, follow authors, and read their feed; members come and go."""

from datetime import timedelta
from typing import Any

from conftest import publish

from latchkey.testing import Client, PartnerClient, RunningApp


def test_an_article_is_a_favourite_once(reader: Client, anybody: Client, article: dict[str, Any]) -> None:
    path = "/v1/articles/rain"

    marked = [reader.put(f"{path}/favourite").status_code for _ in range(2)]

    assert marked == [204, 204]
    assert reader.get(path).json() == {**article, "favourites": 1, "favourited": True}
    assert anybody.get(path).json() == {**article, "favourites": 1}

    unmarked = [reader.delete(f"{path}/favourite").status_code for _ in range(2)]

    assert unmarked == [204, 204]
    assert reader.get(path).json() == article


def test_the_feed_has_the_articles_of_the_authors_that_a_reader_follows(
    reader: Client, author: PartnerClient
) -> None:
    slugs = [publish(author, title=title)["slug"] for title in ("Rain", "Sun")]

    before = reader.get("/v1/feed").json()["data"]
    followed = [reader.put(f"/v1/authors/{author.user_id}/follow").json() for _ in range(2)]
    feed = reader.get("/v1/feed").json()["data"]

    assert before == []
    assert followed == [{"id": author.user_id, "name": "Ann", "followers": 1, "following": True}] * 2
    assert [one["slug"] for one in feed] == slugs[::-1]

    assert reader.delete(f"/v1/authors/{author.user_id}/follow").status_code == 204
    assert reader.get("/v1/feed").json()["data"] == []


def test_anybody_sees_an_author_and_a_wrong_key_nobody(
    latchkey: RunningApp, anybody: Client, author: PartnerClient
) -> None:
    seen = anybody.get(f"/v1/authors/{author.user_id}")
    wrong = latchkey.client_with("nonsense").get(f"/v1/authors/{author.user_id}")

    assert seen.json() == {"id": author.user_id, "name": "Ann", "followers": 0, "following": False}
    assert wrong.status_code == 401
    assert anybody.get("/v1/feed").status_code == 401


def test_a_secret_is_replaced_and_a_member_removed(latchkey: RunningApp, ops: Client) -> None:
    path, old = add_member(latchkey, ops, "author")
    replaced = ops.post(f"{path}/secret").json()
    new = latchkey.client_with(replaced["secret"], access_key=replaced["access_key"])

    assert [one.get("/v1/feed").status_code for one in (old, new)] == [200, 200]

    latchkey.clock.move(timedelta(days=1))
    assert [one.get("/v1/feed").status_code for one in (old, new)] == [401, 200]

    assert ops.delete(path).status_code == 204
    assert new.get("/v1/feed").status_code == 401
    assert ops.delete(path).status_code == 404


def test_the_key_of_a_reader_ends_after_a_year(latchkey: RunningApp, ops: Client) -> None:
    _, reader = add_member(latchkey, ops, "reader")

    before = reader.get("/v1/feed")
    latchkey.clock.move(timedelta(days=365))
    after = reader.get("/v1/feed")

    assert before.status_code == 200
    assert (after.status_code, after.json()["code"]) == (401, "key_expired")


def add_member(latchkey: RunningApp, ops: Client, role: str) -> tuple[str, Client]:
    """Add a member over HTTP, and return its path and its client."""
    added = ops.post("/v1/members", json={"email": "bob@example.com", "name": "Bob", "role": role})
    assert added.status_code == 201, added.text
    member = added.json()
    access_key = member["access_key"] if role == "author" else None
    return f"/v1/members/{member['id']}", latchkey.client_with(member["secret"], access_key=access_key)
