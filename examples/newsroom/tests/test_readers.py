"""Readers mark articles, follow authors, and read their feed."""

from typing import Any

from conftest import Caller, publish


def test_an_article_is_a_favourite_once(reader: Caller, anybody: Caller, article: dict[str, Any]) -> None:
    path = f"/v1/articles/{article['slug']}"

    marked = [reader("PUT", f"{path}/favourite").status_code for _ in range(2)]

    assert marked == [204, 204]
    assert reader("GET", path).json() == {**article, "favourites": 1, "favourited": True}
    assert anybody("GET", path).json() == {**article, "favourites": 1}

    unmarked = [reader("DELETE", f"{path}/favourite").status_code for _ in range(2)]

    assert unmarked == [204, 204]
    assert reader("GET", path).json() == article


def test_the_feed_has_the_articles_of_the_authors_that_a_reader_follows(
    reader: Caller, author: Caller
) -> None:
    slugs = [publish(author)["slug"] for _ in range(2)]

    before = reader("GET", "/v1/feed").json()["data"]
    followed = [reader("PUT", f"/v1/authors/{author.id}/follow").json() for _ in range(2)]
    feed = reader("GET", "/v1/feed").json()["data"]

    assert before == []
    assert followed == [{"id": author.id, "name": "Ann", "followers": 1, "following": True}] * 2
    assert [one["slug"] for one in feed] == slugs[::-1]

    assert reader("DELETE", f"/v1/authors/{author.id}/follow").status_code == 204
    assert reader("GET", "/v1/feed").json()["data"] == []


def test_anybody_sees_an_author_and_a_wrong_key_nobody(anybody: Caller, author: Caller) -> None:
    seen = anybody("GET", f"/v1/authors/{author.id}")
    wrong = anybody("GET", f"/v1/authors/{author.id}", authorization="Bearer nonsense")

    assert seen.json() == {"id": author.id, "name": "Ann", "followers": 0, "following": False}
    assert wrong.status_code == 401
    assert anybody("GET", "/v1/feed").status_code == 401


def test_a_secret_is_replaced_and_a_member_removed(ops: Caller, author: Caller) -> None:
    replaced = ops("POST", f"/v1/members/{author.id}/secret")
    new = Caller(ops.client, replaced.json(), signs=True)

    assert [one("GET", "/v1/feed").status_code for one in (author, new)] == [200, 200]

    assert ops("DELETE", f"/v1/members/{author.id}").status_code == 204
    assert [one("GET", "/v1/feed").status_code for one in (author, new)] == [401, 401]
    assert ops("DELETE", f"/v1/members/{author.id}").status_code == 404
