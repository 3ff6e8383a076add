"""The errors of this package; each is explained under `/problems/`."""

from latchkey import ProblemType

PROBLEMS = [
    ProblemType(
        code="title_taken",
        status=409,
        title="The title of the article is taken",
        explanation="The title determines the address of an article. Choose a title that no other article had at first.",
    ),
    ProblemType(
        code="too_many_tags",
        status=422,
        title="The article has too many tags",
        explanation="An article has at most NEWSROOM_TAGS_PER_ARTICLE different tags.",
    ),
    ProblemType(
        code="not_the_author",
        status=403,
        title="The caller is not the author",
        explanation="An article is changed by its author. A key with the scope articles:moderate can delete it.",
    ),
]
