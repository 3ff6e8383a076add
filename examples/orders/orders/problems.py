"""The errors of this package; each is explained under `/problems/`."""

from latchkey import ProblemType

PROBLEMS = [
    ProblemType(
        code="order_closed",
        status=409,
        title="The order is closed",
        explanation="A closed order is shipped and stays as it is. Place another order.",
    ),
    ProblemType(
        code="order_too_large",
        status=422,
        title="The order is too large",
        explanation="An order has at most ORDERS_LARGEST_ORDER pieces. Place several orders.",
    ),
]
