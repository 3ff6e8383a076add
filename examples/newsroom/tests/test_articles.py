"""Authors publish articles by signed calls, and everybody reads them."""

from datetime import timedelta
from typing import Any

from conftest import publish

from latchkey.testing import Client, PartnerClient, RunningApp


def test_an_article_is_published_and_read_by_everybody(
    author: PartnerClient, reader: Client, anybody: Client
) -> None:
    made = author.post(
        "/v1/articles", json={"title": "Rain in Bergen!", "body": "Again.", "tags": ["b", "a", "b"]}
    )

    assert (made.status_code, made.headers["location"]) == (201, "/v1/articles/rain-in-bergen")
    assert made.json()["author"] == {"id": author.user_id, "name": "Ann"}
    assert made.json()["tags"] == [{"name": "a"}, {"name": "b"}]
    for caller in (author, reader, anybody):
        assert caller.get("/v1/articles/rain-in-bergen").json() == made.json()


def test_a_title_is_taken_once(author: Client, article: dict[str, Any]) -> None:
    again = author.post("/v1/articles", json={"title": article["title"], "body": "Sun."})

    assert (again.status_code, again.json()["code"]) == (409, "title_taken")


def test_a_retry_with_an_idempotency_key_publishes_once_in_a_day(
    latchkey: RunningApp, author: Client
) -> None:
    body = {"title": "Only once", "body": "It rained.", "tags": ["once"]}
    once = {"idempotency-key": "1"}

    first = author.post("/v1/articles", json=body, headers=once)
    retry = author.post("/v1/articles", json=body, headers=once)
    latchkey.clock.move(timedelta(days=1))
    late = author.post("/v1/articles", json=body, headers=once)

    assert (first.status_code, retry.status_code) == (201, 201)
    assert retry.headers["idempotent-replayed"] == "true"
    assert retry.json() == first.json()
    assert (late.status_code, late.json()["code"]) == (409, "title_taken")


def test_an_article_has_a_limited_number_of_tags(author: Client) -> None:
    body = {"title": "x", "body": "x", "tags": [f"t{n}" for n in range(11)]}

    refused = author.post("/v1/articles", json=body)

    assert (refused.status_code, refused.json()["code"]) == (422, "too_many_tags")


def test_a_reader_cannot_publish(reader: Client) -> None:
    refused = reader.post("/v1/articles", json={"title": "x", "body": "x"})

    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")


def test_the_newest_articles_are_listed_page_by_page(author: Client, anybody: Client) -> None:
    slugs = [publish(author, title=title)["slug"] for title in ("Rain", "Sun", "Fog")]

    first = anybody.get("/v1/articles?limit=2").json()
    second = anybody.get(f"/v1/articles?limit=2&cursor={first['next_cursor']}").json()

    assert [one["slug"] for one in first["data"] + second["data"]] == slugs[::-1]
    assert second["next_cursor"] is None


def test_a_list_costs_as_many_round_trips_as_one_article(
    latchkey: RunningApp, author: Client, anybody: Client
) -> None:
    for title in ("Rain", "Sun", "Fog"):
        publish(author, title=title)

    with latchkey.assert_round_trips(2):
        anybody.get("/v1/articles")
    with latchkey.assert_round_trips(2):
        anybody.get("/v1/articles/rain")


def test_articles_are_listed_by_their_tags(author: Client, anybody: Client) -> None:
    tagged = publish(author, tags=["storm", "weather"])
    publish(author, title="Sun")

    assert anybody.get("/v1/articles?tag=storm").json()["data"] == [
        {name: value for name, value in tagged.items() if name != "body"}
    ]
    assert {"name": "storm", "articles": 1} in anybody.get("/v1/tags").json()


def test_articles_are_found_by_a_text_in_title_or_summary(author: PartnerClient, anybody: Client) -> None:
    slugs = {publish(author, title="A storm comes")["slug"], publish(author, summary="No storm.")["slug"]}
    publish(author, title="Sun", body="storm")

    found = anybody.get(f"/v1/articles?text=storm&author={author.user_id}").json()["data"]
    refused = anybody.get("/v1/articles?text=%25%25%25")

    assert {one["slug"] for one in found} == slugs
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_parameter")


def test_only_the_author_changes_an_article(
    latchkey: RunningApp, author: Client, article: dict[str, Any]
) -> None:
    other = latchkey.client("articles:write")

    changed = author.patch("/v1/articles/rain", json={"summary": "Short."})
    refused = other.patch("/v1/articles/rain", json={"summary": "Mine."})

    assert changed.json()["summary"] == "Short."
    assert changed.json()["body"] == article["body"]
    assert changed.json()["updated_at"] > article["updated_at"]
    assert (refused.status_code, refused.json()["code"]) == (403, "not_the_author")


def test_the_author_or_a_moderator_deletes_an_article(
    latchkey: RunningApp, ops: Client, author: Client, article: dict[str, Any]
) -> None:
    publish(author, title="Sun")
    author.post("/v1/articles/rain/comments", json={"body": "x"})

    refused = latchkey.client("articles:write").delete("/v1/articles/rain")
    deleted = author.delete("/v1/articles/rain")
    moderated = ops.delete("/v1/articles/sun")

    assert (refused.status_code, deleted.status_code, moderated.status_code) == (403, 204, 204)
    assert author.get("/v1/articles/rain").status_code == 404


def test_a_comment_is_made_listed_and_deleted(
    reader: PartnerClient, author: Client, anybody: Client, article: dict[str, Any]
) -> None:
    path = "/v1/articles/rain/comments"

    made = reader.post(path, json={"body": "Here, too."})
    listed = anybody.get(path).json()["data"]
    refused = author.delete(f"{path}/{made.json()['id']}")
    deleted = reader.delete(f"{path}/{made.json()['id']}")

    assert made.status_code == 201
    assert made.json()["author"] == {"id": reader.user_id, "name": "Ann"}
    assert listed == [made.json()]
    assert (refused.status_code, deleted.status_code) == (403, 204)
    assert anybody.get(path).json()["data"] == []


def test_what_is_not_there_is_not_found(author: Client) -> None:
    for method, path in (
        ("GET", "/v1/articles/none"),
        ("PATCH", "/v1/articles/none"),
        ("DELETE", "/v1/articles/none"),
        ("GET", "/v1/articles/none/comments"),
        ("PUT", "/v1/articles/none/favourite"),
        ("GET", "/v1/authors/999999"),
        ("PUT", "/v1/authors/999999/follow"),
    ):
        missing = author.request(method, path, json={} if method == "PATCH" else None)
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


def test_the_migrations_create_what_the_models_describe(latchkey: RunningApp) -> None:
    latchkey.assert_migrated()
