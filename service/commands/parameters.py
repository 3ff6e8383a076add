"""The parameters of the commands: the same types as in the endpoints, with error messages for people."""

import re
from datetime import datetime
from typing import Any, get_args

import click
import msgspec

from latchkey.models.limit import MOST_CREDITS, Quota, RateLimit, Refill
from latchkey.service import shapes
from latchkey.service.authentication.wire.credentials import AccessKey, parse_access_key
from latchkey.service.keys.values import canonical_networks, future_utc
from latchkey.service.limits.rules import distinct_limits
from latchkey.service.rule_error import RuleError

SECONDS = {"": 1, "s": 1, "m": 60, "h": 60 * 60, "d": 24 * 60 * 60}
EMAIL_RULE = "at most 254 characters with one @, and no space or control character"


class Shaped(click.ParamType[Any]):
    """A value of one of the types in `shapes`.

    Args:
        name: its name in the help.
        shape: the type.
        rule: the condition for a value, as the end of a sentence that begins with "it must be".
    """

    def __init__(self, name: str, shape: Any, rule: str) -> None:
        self.name = name
        self.shape = shape
        self.rule = rule

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return msgspec.convert(value, self.shape, strict=False)
        except msgspec.ValidationError:
            self.fail(f"it must be {self.rule}.", param, ctx)


class FutureMoment(Shaped):
    """A time that has not passed."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        moment: datetime = super().convert(value, param, ctx)
        try:
            return future_utc(moment)
        except RuleError as error:
            self.fail(f"{error.reason}.", param, ctx)


class ScopeList(Shaped):
    """Scopes, separated by commas; an empty text means none. The command itself checks whether there are such scopes."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        words = [word.strip() for word in value.split(",")] if value.strip() else []
        scopes: list[str] = super().convert(words, param, ctx)
        return scopes


class NetworkList(Shaped):
    """Networks, separated by commas; an empty text means anywhere."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        words = [word.strip() for word in value.split(",")] if value.strip() else []
        texts: list[str] = super().convert(words, param, ctx)
        try:
            return canonical_networks(texts)
        except RuleError as error:
            self.fail(f"{error.item_in(texts)!r}: {error.reason}.", param, ctx)


class Duration(click.ParamType[int]):
    """A number of seconds, minutes, hours or days, up to the longest grace period."""

    name = "7d or seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", value, re.ASCII)
        seconds = int(found[1]) * SECONDS[found[2]] if found else None
        if seconds is None or seconds > shapes.GRACE_LIMIT_S:
            self.fail(
                "it must be a number of seconds, or a duration such as 30m, 12h or 7d; at most 30d.",
                param,
                ctx,
            )
        return seconds


class LimitValue(click.ParamType[RateLimit]):
    """A limit with its name, its amount and its window."""

    name = "name=n/window"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> RateLimit:
        found = re.fullmatch(r"([^=]*)=([0-9]{1,10})/([0-9]{1,9})([smhd]?)", value, re.ASCII)
        fields = found and {
            "name": found[1],
            "limit": int(found[2]),
            "window_s": int(found[3]) * SECONDS[found[4]],
        }
        try:
            limit = msgspec.convert(fields, RateLimit)
            distinct_limits([limit])
        except (msgspec.ValidationError, RuleError):
            self.fail(
                "it must be a name, an amount and a window, as in burst=100/60s or hourly=1000/1h; "
                "names are lower-case and not 'quota', and the window is at most 31d.",
                param,
                ctx,
            )
        return limit


class QuotaValue(click.ParamType[Quota]):
    """A quota with its period."""

    name = "n/day or n/month"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Quota:
        limit, _, per = value.partition("/")
        try:
            return msgspec.convert({"limit": limit, "per": per}, Quota, strict=False)
        except msgspec.ValidationError:
            self.fail("it must be an amount and a period, as in 10000/day or 250000/month.", param, ctx)


class RefillValue(click.ParamType[Refill]):
    """A refill with its period."""

    name = "n/day or n/month"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Refill:
        amount, _, every = value.partition("/")
        try:
            return msgspec.convert({"amount": amount, "every": every}, Refill, strict=False)
        except msgspec.ValidationError:
            self.fail("it must be an amount and a period, as in 1000/day or 50000/month.", param, ctx)


class UserReference(click.ParamType[int | str]):
    """A user's id or email."""

    name = "id or email"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value.isascii() and value.isdigit():
            return int(ID.convert(value, param, ctx))
        return str(EMAIL.convert(value, param, ctx))


class PublicId(click.ParamType[AccessKey]):
    """An access key. An invalid one is never shown, because it may be the secret, passed in the wrong place."""

    name = "lka_…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> AccessKey:
        marked = len("a_") + 22
        found = parse_access_key(value, value[:-marked])
        if found is None:
            self.fail("it must be an access key, such as lka_ followed by 22 letters and digits.", param, ctx)
        return found


class PortOption(click.Option):
    """A port, which `make` knows as PORT."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Return the number, or raise an error that names what the user has typed."""
        try:
            return super().type_cast_value(ctx, value)
        except click.BadParameter:
            if not ctx.params.get("from_make"):
                raise
            raise click.ClickException(
                f"PORT={value} is no port: it must be a number from 1 to 65535."
            ) from None


EMAIL = Shaped("email", shapes.Email, EMAIL_RULE)
NAME = Shaped("name", shapes.Name, "1 to 200 characters, and none of them a control character")
SCOPE = Shaped("noun:verb", shapes.ScopeName, "a noun and a verb in lower case, as in orders:read")
DESCRIPTION = Shaped(
    "text", shapes.Description, "at most 200 characters, and none of them a control character"
)
ROLE = Shaped(
    "name", shapes.RoleName, "a lower-case letter and at most 39 more letters, digits, `_`, `.` or `-`"
)
ROLES = ScopeList("a,b", shapes.Roles, "at most 20 roles of at most 40 characters each")
ID = Shaped("id", shapes.Id, "a positive 64-bit number")
SCOPES = ScopeList("a:b,c:d", shapes.Scopes, "at most 100 scopes of at most 100 characters each")
NETWORKS = NetworkList("a/n,b/n", shapes.Networks, "at most 100 blocks of at most 50 characters each")
A_MOMENT = "a time with its offset, as in 2031-12-31T12:00:00Z"
MOMENT = FutureMoment("RFC 3339", shapes.Moment, A_MOMENT)
WHEN = Shaped("RFC 3339", shapes.Moment, A_MOMENT)
GRACE = Duration()
LIMIT = LimitValue()
QUOTA = QuotaValue()
CREDITS = click.IntRange(0, MOST_CREDITS)
CREDIT_CHANGE = click.IntRange(-MOST_CREDITS, MOST_CREDITS)
REFILL = RefillValue()
USER = UserReference()
ACCESS_KEY = PublicId()

USER_STATUS = click.Choice(get_args(shapes.UserStatus))
KEY_STATUS = click.Choice(get_args(shapes.KeyStatus))
MODE = click.Choice(get_args(shapes.Mode))
PORT = click.IntRange(1, 65535)

as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print the JSON that the HTTP endpoint returns."
)
limit = click.option(
    "--limit", type=click.IntRange(min=1), help="The maximum number of rows; by default, all."
)
