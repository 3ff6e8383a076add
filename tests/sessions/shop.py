"""Models on another base: the subject of the units of work in `tests.sessions.units`."""

import enum
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Enum,
    ForeignKey,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    UniqueConstraint,
    select,
    text,
)
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    column_property,
    composite,
    mapped_column,
    relationship,
    validates,
)


class Model(DeclarativeBase):
    """A base without verbs."""

    metadata = MetaData()


class Mood(enum.Enum):
    """A type of a column."""

    GOOD = "good"
    BAD = "bad"


class Point:
    """Two columns as one value."""

    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def __composite_values__(self) -> tuple[int, int]:
        return self.x, self.y

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and (self.x, self.y) == (other.x, other.y)

    def __hash__(self) -> int:
        return hash((self.x, self.y))

    def __repr__(self) -> str:
        return f"Point({self.x}, {self.y})"


orders_tags = Table(
    "like_orders_tags",
    Model.metadata,
    Column("order_id", ForeignKey("like_orders.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_id", ForeignKey("like_tags.id"), primary_key=True),
    mysql_engine="InnoDB",
)


class Person(Model):
    """A model with an owned collection, and defaults of every kind."""

    __tablename__ = "like_people"
    __table_args__: Any = {"mysql_engine": "InnoDB"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    age: Mapped[int] = mapped_column(default=18)
    city: Mapped[str | None] = mapped_column(String(50), server_default=text("'Rome'"))
    bio: Mapped[str | None] = mapped_column(Text, deferred=True)
    mood: Mapped[Mood | None] = mapped_column(Enum(Mood))
    data: Mapped[dict[str, Any] | None] = mapped_column(MutableDict.as_mutable(JSON))
    boss_id: Mapped[int | None] = mapped_column(ForeignKey("like_people.id"))

    orders: Mapped[list["Order"]] = relationship(
        back_populates="person", cascade="all, delete-orphan", order_by="Order.id"
    )
    boss: Mapped["Person | None"] = relationship(remote_side="Person.id", back_populates="staff")
    staff: Mapped[list["Person"]] = relationship(back_populates="boss", order_by="Person.id")
    doubled = column_property(age * 2)

    @hybrid_property
    def is_adult(self) -> bool:
        """Return a Python value here, and an expression in a query."""
        return self.age >= 18

    @validates("age")
    def check_age(self, _key: str, value: int) -> int:
        if value is not None and value < 0:
            raise ValueError("an age is not negative")
        return value


class Order(Model):
    """A model with a version counter."""

    __tablename__ = "like_orders"
    __table_args__: Any = {"mysql_engine": "InnoDB"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(50))
    price: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    version: Mapped[int] = mapped_column()
    person_id: Mapped[int | None] = mapped_column(ForeignKey("like_people.id"))

    person: Mapped[Person | None] = relationship(back_populates="orders")
    tags: Mapped[list["Tag"]] = relationship(
        secondary=orders_tags, back_populates="orders", order_by="Tag.id"
    )
    tag_names: AssociationProxy[list[str]] = association_proxy(
        "tags", "name", creator=lambda name: Tag(name=name)
    )

    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012


class Tag(Model):
    """The other side of many to many."""

    __tablename__ = "like_tags"
    __table_args__: Any = {"mysql_engine": "InnoDB"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)

    orders: Mapped[list[Order]] = relationship(
        secondary=orders_tags, back_populates="tags", order_by="Order.id"
    )


class Place(Model):
    """A model with a composite, and two keys."""

    __tablename__ = "like_places"
    __table_args__: Any = (UniqueConstraint("x", "y"), {"mysql_engine": "InnoDB"})

    country: Mapped[str] = mapped_column(String(2), primary_key=True)
    code: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    x: Mapped[int] = mapped_column()
    y: Mapped[int] = mapped_column()
    point: Mapped[Point] = composite(Point, "x", "y")


class Vehicle(Model):
    """The base of two joined tables, and of a class in its own table."""

    __tablename__ = "like_vehicles"
    __table_args__: Any = {"mysql_engine": "InnoDB"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    wheels: Mapped[int] = mapped_column(default=4)

    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}  # noqa: RUF012


class Car(Vehicle):
    """A table joined to the base's."""

    __tablename__ = "like_cars"
    __table_args__: Any = {"mysql_engine": "InnoDB"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("like_vehicles.id"), primary_key=True)
    doors: Mapped[int] = mapped_column()

    __mapper_args__ = {"polymorphic_identity": "car"}  # noqa: RUF012


class Bike(Vehicle):
    """In the base's own table."""

    __mapper_args__ = {"polymorphic_identity": "bike"}  # noqa: RUF012


PEOPLE = select(Person).order_by(Person.id)


def rows() -> list[Model]:
    """Return the initial rows for every unit of work."""
    ann = Person(id=1, name="ann", age=30, mood=Mood.GOOD, data={"a": 1}, bio="long")
    bob = Person(id=2, name="bob", age=17, boss=ann)
    cid = Person(id=3, name="cid", age=50, boss=ann, mood=Mood.BAD, city=None)
    red, blue = Tag(id=1, name="red"), Tag(id=2, name="blue")
    return [
        ann, bob, cid, red, blue,
        Order(id=1, title="pen", price=Decimal("1.50"), person=ann, tags=[red, blue]),
        Order(id=2, title="ink", price=Decimal("3.14"), person=ann, tags=[red]),
        Order(id=3, title="cup", person=bob),
        Place(country="it", code=1, point=Point(1, 2)),
        Place(country="fr", code=1, point=Point(3, 4)),
        Car(id=1, doors=3),
        Bike(id=2, wheels=2),
    ]  # fmt: skip
