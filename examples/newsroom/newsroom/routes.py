"""The table of routes."""

from latchkey import Page, route
from newsroom import articles, comments, members, readers
from newsroom.shapes import Comment, Entry, FullArticle

ARTICLE = {"title": "Rain in Bergen", "summary": "Again.", "body": "It rained.", "tags": ["weather"]}
MEMBER = {"email": "ann@example.com", "name": "Ann", "role": "author"}

ROUTES = [
    route("POST", "/v1/articles", articles.publish_article, scope="articles:write", status=201, answers=FullArticle,
          problems=("title_taken", "too_many_tags"), example=ARTICLE, idempotent=True),
    route("GET", "/v1/articles", articles.list_articles, optional_key=True, answers=Page[Entry]),
    route("GET", "/v1/articles/{slug}", articles.read_article, optional_key=True),
    route("PATCH", "/v1/articles/{slug}", articles.change_article, scope="articles:write",
          problems=("not_the_author",), example={"body": "It still rains."}),
    route("DELETE", "/v1/articles/{slug}", articles.delete_article, scope="articles:write", status=204),

    route("POST", "/v1/articles/{slug}/comments", comments.comment_on, scope="comments:write", status=201,
          example={"body": "Here, too."}, idempotent=True),
    route("GET", "/v1/articles/{slug}/comments", comments.list_comments, public=True, answers=Page[Comment]),
    route("DELETE", "/v1/articles/{slug}/comments/{id}", comments.delete_comment, scope="comments:write", status=204),

    route("PUT", "/v1/articles/{slug}/favourite", readers.favour, any_key=True, status=204),
    route("DELETE", "/v1/articles/{slug}/favourite", readers.unfavour, any_key=True, status=204),
    route("GET", "/v1/authors/{id}", readers.read_author, optional_key=True),
    route("PUT", "/v1/authors/{id}/follow", readers.follow, any_key=True),
    route("DELETE", "/v1/authors/{id}/follow", readers.unfollow, any_key=True, status=204),
    route("GET", "/v1/feed", readers.read_feed, any_key=True, answers=Page[Entry]),
    route("GET", "/v1/tags", readers.read_tags, public=True),

    route("POST", "/v1/members", members.add_member, scope="members:write", status=201, example=MEMBER,
          idempotent=True),
    route("POST", "/v1/members/{id}/secret", members.replace_secret, scope="members:write"),
    route("DELETE", "/v1/members/{id}", members.remove_member, scope="members:write", status=204),
]  # fmt: skip
