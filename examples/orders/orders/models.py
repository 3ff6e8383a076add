"""The tables: orders on Latchkey's base, with its verbs, and shipments on another base."""

from datetime import datetime

from sqlalchemy import ForeignKey, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from latchkey import Base, BigId, User, UtcDateTime, utc_now


class Order(Base):
    """An order of a partner."""

    __tablename__ = "orders"
    refresh_on_commit = True

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    item: Mapped[str] = mapped_column(String(100))
    pieces: Mapped[int]
    status: Mapped[str] = mapped_column(String(16), default="open")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now())


class ShippingBase(DeclarativeBase):
    """A base that is independent of Latchkey, like that of existing models."""

    metadata = MetaData()


class Shipment(ShippingBase):
    """The shipment of an order."""

    __tablename__ = "shipments"
    __table_args__ = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}  # noqa: RUF012 - SQLAlchemy reads it

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey(Order.id), unique=True)
    signed_by: Mapped[int] = mapped_column(ForeignKey(User.id))
    carrier: Mapped[str] = mapped_column(String(50))
