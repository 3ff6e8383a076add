"""Authors publish articles by signed calls, and everybody reads them."""

from typing import Any

from conftest import Caller, add_member, publish


def test_an_article_is_published_and_read_by_everybody(
    author: Caller, reader: Caller, anybody: Caller
) -> None:
    made = author(
        "POST", "/v1/articles", {"title": "Rain in Bergen!", "body": "Again.", "tags": ["b", "a", "b"]}
    )

    assert (made.status_code, made.headers["location"]) == (201, "/v1/articles/rain-in-bergen")
    assert made.json()["author"] == {"id": author.id, "name": "Ann"}
    assert made.json()["tags"] == [{"name": "a"}, {"name": "b"}]
    for caller in (author, reader, anybody):
        assert caller("GET", "/v1/articles/rain-in-bergen").json() == made.json()


def test_a_title_is_taken_once(author: Caller, article: dict[str, Any]) -> None:
    again = author("POST", "/v1/articles", {"title": article["title"], "body": "Sun."})

    assert (again.status_code, again.json()["code"]) == (409, "title_taken")


def test_a_retry_with_an_idempotency_key_publishes_once(author: Caller) -> None:
    body = {"title": "Only once", "body": "It rained.", "tags": ["once"]}

    first = author("POST", "/v1/articles", body, **{"idempotency-key": "1"})
    retry = author("POST", "/v1/articles", body, **{"idempotency-key": "1"})

    assert (first.status_code, retry.status_code) == (201, 201)
    assert retry.headers["idempotent-replayed"] == "true"
    assert retry.json() == first.json()


def test_an_article_has_a_limited_number_of_tags(author: Caller) -> None:
    refused = author(
        "POST", "/v1/articles", {"title": "x", "body": "x", "tags": [f"t{n}" for n in range(11)]}
    )

    assert (refused.status_code, refused.json()["code"]) == (422, "too_many_tags")


def test_a_reader_cannot_publish(reader: Caller) -> None:
    refused = reader("POST", "/v1/articles", {"title": "x", "body": "x"})

    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")


def test_the_newest_articles_are_listed_page_by_page(author: Caller, anybody: Caller) -> None:
    slugs = [publish(author)["slug"] for _ in range(3)]

    path = f"/v1/articles?author={author.id}&limit=2"

    first = anybody("GET", path).json()
    second = anybody("GET", f"{path}&cursor={first['next_cursor']}").json()

    assert [one["slug"] for one in first["data"] + second["data"]] == slugs[::-1]
    assert second["next_cursor"] is None


def test_articles_are_listed_by_their_tags(author: Caller, anybody: Caller) -> None:
    tag = f"only-{author.id}"
    tagged = publish(author, tags=[tag, "weather"])
    publish(author)

    assert anybody("GET", f"/v1/articles?tag={tag}").json()["data"] == [
        {name: value for name, value in tagged.items() if name != "body"}
    ]
    assert {"name": tag, "articles": 1} in anybody("GET", "/v1/tags").json()


def test_articles_are_found_by_a_text_in_title_or_summary(author: Caller, anybody: Caller) -> None:
    word = f"storm{author.id}"
    slugs = {publish(author, title=f"A {word} comes")["slug"], publish(author, summary=f"No {word}.")["slug"]}
    publish(author, body=word)

    found = anybody("GET", f"/v1/articles?text={word}&author={author.id}").json()["data"]
    refused = anybody("GET", "/v1/articles?text=%25%25%25")

    assert {one["slug"] for one in found} == slugs
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_parameter")


def test_only_the_author_changes_an_article(ops: Caller, author: Caller, article: dict[str, Any]) -> None:
    path = f"/v1/articles/{article['slug']}"

    changed = author("PATCH", path, {"summary": "Short."})
    refused = add_member(ops, "author")("PATCH", path, {"summary": "Mine."})

    assert changed.json()["summary"] == "Short."
    assert changed.json()["body"] == article["body"]
    assert changed.json()["updated_at"] > article["updated_at"]
    assert (refused.status_code, refused.json()["code"]) == (403, "not_the_author")


def test_the_author_or_a_moderator_deletes_an_article(
    ops: Caller, author: Caller, article: dict[str, Any]
) -> None:
    other = publish(author)
    author("POST", f"/v1/articles/{article['slug']}/comments", {"body": "x"})

    refused = add_member(ops, "author")("DELETE", f"/v1/articles/{article['slug']}")
    deleted = author("DELETE", f"/v1/articles/{article['slug']}")
    moderated = ops("DELETE", f"/v1/articles/{other['slug']}")

    assert (refused.status_code, deleted.status_code, moderated.status_code) == (403, 204, 204)
    assert author("GET", f"/v1/articles/{article['slug']}").status_code == 404


def test_a_comment_is_made_listed_and_deleted(
    reader: Caller, author: Caller, anybody: Caller, article: dict[str, Any]
) -> None:
    path = f"/v1/articles/{article['slug']}/comments"

    made = reader("POST", path, {"body": "Here, too."})
    listed = anybody("GET", path).json()["data"]
    refused = author("DELETE", f"{path}/{made.json()['id']}")
    deleted = reader("DELETE", f"{path}/{made.json()['id']}")

    assert made.status_code == 201
    assert made.json()["author"] == {"id": reader.id, "name": "Ann"}
    assert listed == [made.json()]
    assert (refused.status_code, deleted.status_code) == (403, 204)
    assert anybody("GET", path).json()["data"] == []


def test_what_is_not_there_is_not_found(author: Caller) -> None:
    for method, path in (
        ("GET", "/v1/articles/none"),
        ("PATCH", "/v1/articles/none"),
        ("DELETE", "/v1/articles/none"),
        ("GET", "/v1/articles/none/comments"),
        ("PUT", "/v1/articles/none/favourite"),
        ("GET", "/v1/authors/999999"),
        ("PUT", "/v1/authors/999999/follow"),
    ):
        missing = author(method, path, {} if method == "PATCH" else None)
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
