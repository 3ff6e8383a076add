"""Methods that belong to the class or to an instance, and raise an explanation when called on the other."""

from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal


class class_or_instance_method:  # noqa: N801 - a decorator, as classmethod is
    """Bind a verb to the class or to the instance, and refuse the other with an explanation.

    `User.create(…)` inserts a row, so `user.create(…)` is a mistake. `user.update(…)` changes one row, so
    `User.update(…)`, which reads like "all of them", is a mistake too.
    """

    def __init__(self, function: Callable[..., Any], *, belongs_to: Literal["class", "instance"]) -> None:
        self.function = function
        self.belongs_to = belongs_to
        self.__doc__ = function.__doc__

    def __get__(self, instance: object, owner: type) -> MethodType:
        """Return the bound method, or raise TypeError."""
        name, model = self.function.__name__, owner.__name__
        if self.belongs_to == "class":
            if instance is not None:
                raise TypeError(f"{name} belongs to the class: `await {model}.{name}(...)`.")
            return MethodType(self.function, owner)
        if instance is None:
            raise TypeError(
                f"{name} belongs to an instance: `one = await {model}.get(...)`, then `await one.{name}(...)`."
            )
        return MethodType(self.function, instance)


__all__ = ["belongs_to_class", "belongs_to_instance", "class_or_instance_method"]

if TYPE_CHECKING:
    from builtins import classmethod as belongs_to_class
    from typing import TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

    def belongs_to_instance(function: F) -> F:
        """Return the function, for the type checker: an ordinary method."""
        return function
else:
    belongs_to_class = partial(class_or_instance_method, belongs_to="class")
    belongs_to_instance = partial(class_or_instance_method, belongs_to="instance")
