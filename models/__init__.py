"""The tables and their verbs."""

from models.api_key import ApiKey, KeySecret
from models.base import Base
from models.idempotency_key import IdempotencyKey
from models.limit_counter import LimitCounter
from models.nonce import Nonce
from models.user import User
from models.watched import Watched

__all__ = ["ApiKey", "Base", "IdempotencyKey", "KeySecret", "LimitCounter", "Nonce", "User", "Watched"]
