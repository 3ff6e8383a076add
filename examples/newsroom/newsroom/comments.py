"""Comments on articles."""

from starlette.requests import Request

from latchkey import Answer, PageQuery, Principal, convert, or_not_found, paginate
from newsroom import models
from newsroom.articles import find
from newsroom.shapes import Author, Comment, Id, NewComment


async def comment_on(caller: Principal, slug: str, body: NewComment) -> Comment:
    """Comment on an article."""
    article = await find(slug)
    made = await models.Comment.create(article_id=article.id, author_id=caller.user.id, body=body.body)
    author = convert(caller.user, Author)
    return Comment(id=made.id, body=made.body, created_at=made.created_at, author=author)


async def list_comments(request: Request, slug: str, query: PageQuery) -> Answer:
    """List the comments on an article, oldest first."""
    article = await find(slug)
    found = models.Comment.filter(article_id=article.id)
    return await paginate(request, found.into(Comment), query)


async def delete_comment(caller: Principal, slug: str, id: Id) -> None:
    """Delete a comment, as its author or as a moderator."""
    article = await find(slug)
    query = models.Comment.filter(id=id, article_id=article.id)
    found = or_not_found(await query.first(), "There is no such comment on this article.")
    if found.author_id != caller.user.id:
        caller.require_scope("articles:moderate")
    await found.remove()
