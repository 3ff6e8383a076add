"""The public API of Latchkey: the names that a team imports and may rely on.

Every other module is internal and may change in any release; see `docs/upgrading.md`.
"""

from latchkey.middleware.background import background
from latchkey.middleware.session import SessionMiddleware
from latchkey.middleware.session_errors import (
    BrokenTransactionError,
    ChildWriteError,
    CommitForbiddenError,
    CommitUnknownError,
    EndedRequestError,
    EndedSessionError,
    ForeignBindError,
    OpenWriteError,
    OtherTaskError,
    SessionError,
    SettledSessionError,
    StreamClosedError,
    StreamTimeoutError,
    TransactionEndedError,
    UnwrittenWorkError,
)
from latchkey.migrations import steps
from latchkey.models import ApiKey, Base, User
from latchkey.models.errors import (
    BulkError,
    ForeignSessionError,
    InvalidValueError,
    LostWriteError,
    MissingRowsError,
    NotInitialisedError,
    NotLoadedError,
    StructError,
    UnknownLookupError,
)
from latchkey.models.into import Into
from latchkey.models.limit import Quota, RateLimit
from latchkey.models.lookups import Q
from latchkey.models.prepared import PreparedSelect, prepared
from latchkey.models.query import Query
from latchkey.models.types import (
    BigId,
    Binary,
    BinaryText,
    Json,
    UtcDateTime,
    Words,
    utc_now,
)
from latchkey.service import __version__
from latchkey.service.app import create_app
from latchkey.service.authentication.canary import WrongKeyRingError
from latchkey.service.authentication.keyring import KeyRing, KeyRingError
from latchkey.service.authentication.principal import Principal
from latchkey.service.client import SignedCall, sign_call
from latchkey.service.commands import command_line
from latchkey.service.conversion import AnswerError, convert
from latchkey.service.database import SQLAlchemy, db
from latchkey.service.database.schema import NotMigratedError, Schema, SchemaError, require_migrated
from latchkey.service.database.session import RequestSession
from latchkey.service.endpoints.caller import hold_caller
from latchkey.service.endpoints.paging import Page, PageQuery, paginate
from latchkey.service.from_code.keys import IssuedKey, issue_key, revoke_key, rotate_key
from latchkey.service.from_code.session import open_session
from latchkey.service.idempotency.claims import ClaimLostError
from latchkey.service.operation import Answer, Operation, RouteError, Text, route
from latchkey.service.problems import Problem, or_not_found
from latchkey.service.problems.registry import ProblemType, ProblemTypeError
from latchkey.service.settings import Settings, SettingsError, read_settings
from latchkey.service.shapes import given

__all__ = [
    "Answer",
    "AnswerError",
    "ApiKey",
    "Base",
    "BigId",
    "Binary",
    "BinaryText",
    "BrokenTransactionError",
    "BulkError",
    "ChildWriteError",
    "ClaimLostError",
    "CommitForbiddenError",
    "CommitUnknownError",
    "EndedRequestError",
    "EndedSessionError",
    "ForeignBindError",
    "ForeignSessionError",
    "Into",
    "InvalidValueError",
    "IssuedKey",
    "Json",
    "KeyRing",
    "KeyRingError",
    "LostWriteError",
    "MissingRowsError",
    "NotInitialisedError",
    "NotLoadedError",
    "NotMigratedError",
    "OpenWriteError",
    "Operation",
    "OtherTaskError",
    "Page",
    "PageQuery",
    "PreparedSelect",
    "Principal",
    "Problem",
    "ProblemType",
    "ProblemTypeError",
    "Q",
    "Query",
    "Quota",
    "RateLimit",
    "RequestSession",
    "RouteError",
    "SQLAlchemy",
    "Schema",
    "SchemaError",
    "SessionError",
    "SessionMiddleware",
    "Settings",
    "SettingsError",
    "SettledSessionError",
    "SignedCall",
    "StreamClosedError",
    "StreamTimeoutError",
    "StructError",
    "Text",
    "TransactionEndedError",
    "UnknownLookupError",
    "UnwrittenWorkError",
    "User",
    "UtcDateTime",
    "Words",
    "WrongKeyRingError",
    "__version__",
    "background",
    "command_line",
    "convert",
    "create_app",
    "db",
    "given",
    "hold_caller",
    "issue_key",
    "open_session",
    "or_not_found",
    "paginate",
    "prepared",
    "read_settings",
    "require_migrated",
    "revoke_key",
    "rotate_key",
    "route",
    "sign_call",
    "steps",
    "utc_now",
]
