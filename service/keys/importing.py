"""Import keys of other systems with their secrets, many in one transaction.

Each key is imported, known or refused on its own. A secret identifies its key, so an import that is repeated makes no doubles.
"""

import base64
import hashlib
import re
from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import func, select

from latchkey.models import ApiKey, KeySecret, User
from latchkey.models.limit import RateLimit
from latchkey.models.lookups import Q
from latchkey.service.authentication.principal import Principal
from latchkey.service.authentication.wire.credentials import Secret, hash_secret
from latchkey.service.keys import values
from latchkey.service.keys.credits import set_credits
from latchkey.service.keys.import_shapes import ImportedKey, ImportResult, refused
from latchkey.service.keys.issuing import Issuer
from latchkey.service.keys.metadata import checked_meta
from latchkey.service.keys.rules import KeyRules, require_held
from latchkey.service.keys.scopes import require_known, scopes_of_roles
from latchkey.service.limits.rules import distinct_limits
from latchkey.service.problems import Problem
from latchkey.service.rule_error import RuleError

NO_FORMAT = "the secret has neither the format of this installation nor one of LATCHKEY_IMPORTED_SECRETS"
NO_FORMATS = "LATCHKEY_IMPORTED_SECRETS is not set, so no call could be made with the key"

_HEX, _BASE64 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9A-Za-z+/_-]{43}=?")
_URL_SAFE = str.maketrans("+/", "-_")
_SIGNING_SECRET = re.compile(r"[!-~]{16,200}")


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A key whose values were checked."""

    item: ImportedKey
    environment: str
    digest: bytes
    secret: Secret | None
    """The secret of a key that signs."""
    networks: tuple[str, ...]
    limits: tuple[RateLimit, ...]
    expires_at: datetime | None

    @property
    def owner(self) -> int | str:
        """The id or the external id of the owner."""
        item = self.item
        return item.user_id if isinstance(item.user_id, int) else str(item.user_external_id)


Outcome = Draft | ImportResult


class Importer(msgspec.Struct, frozen=True):
    """Imports keys by the rules of the application.

    Args:
        rules: for keys.
        creates_users: create the users whose external id does not exist.
    """

    rules: KeyRules
    creates_users: bool = False

    async def run(self, items: Sequence[ImportedKey], caller: Principal | None) -> list[ImportResult]:
        """Import keys and flush them; return the result for each, in the same order.

        Args:
            items: the keys.
            caller: the calling key, which must hold every scope that it gives; None is the operator.

        Raises:
            Problem: 403 `scope_not_held` or `other_environment`.
        """
        found: list[Outcome] = [self._checked(item, caller) for item in items]
        found = await self._without_known(found)
        found, role_scopes = await self._with_scopes(found, caller)
        owners = await self._owners(found)
        found = await self._within_bounds(found, owners)
        keys = {
            place: self._new_key(one, owners[one.owner], role_scopes[tuple(one.item.roles)])
            for place, one in enumerate(found)
            if isinstance(one, Draft)
        }
        await write(list(keys.values()))
        for place, key in keys.items():
            if items[place].credits is not None:
                await set_credits(key, items[place].credits)
        return [
            one
            if isinstance(one, ImportResult)
            else ImportResult(status="imported", access_key=keys[place].access_key, detail=None)
            for place, one in enumerate(found)
        ]

    def _checked(self, item: ImportedKey, caller: Principal | None) -> Outcome:
        """Check what needs no query."""
        if isinstance(item.user_id, int) == isinstance(item.user_external_id, str):
            return refused("either user_id or user_external_id must be given")
        try:
            digest, secret = credential_of(item, self.rules.issuer)
            return Draft(
                item=msgspec.structs.replace(item, meta=checked_meta(item.meta)),
                environment=self.rules.environment_for(item.environment, caller),
                digest=digest,
                secret=secret,
                networks=values.canonical_networks(item.allowed_networks),
                limits=distinct_limits(item.limits),
                expires_at=None if item.expires_at is None else values.future_utc(item.expires_at),
            )
        except RuleError as error:
            return refused(error.reason)
        except Problem as problem:
            if not problem.errors:
                raise
            return refused(problem.errors[0].detail)

    async def _without_known(self, found: list[Outcome]) -> list[Outcome]:
        """Set the result of the keys whose secret is that of another key, in the database or before them in the list."""
        digests = [one.digest for one in found if isinstance(one, Draft)]
        known = await access_keys_by_secret(digests)
        known_too: set[bytes] = set()
        results: list[Outcome] = []
        for one in found:
            if isinstance(one, Draft) and one.digest in known:
                one = ImportResult(status="known", access_key=known[one.digest], detail=None)  # noqa: PLW2901
            elif isinstance(one, Draft) and one.digest in known_too:
                one = refused("the secret is that of another key of this import")  # noqa: PLW2901
            elif isinstance(one, Draft):
                known_too.add(one.digest)
            results.append(one)
        return results

    async def _with_scopes(
        self, found: list[Outcome], caller: Principal | None
    ) -> tuple[list[Outcome], dict[tuple[str, ...], tuple[str, ...]]]:
        """Refuse keys with unknown scopes or roles; return the scopes of each list of roles as well."""
        drafts = [one for one in found if isinstance(one, Draft)]
        faults: dict[tuple[str, ...], str] = {}
        role_scopes: dict[tuple[str, ...], tuple[str, ...]] = {}
        for scopes in {tuple(one.item.scopes) for one in drafts}:
            try:
                await require_known(scopes, self.rules.scopes)
            except RuleError as error:
                faults[scopes] = f"the scope {scopes[error.path[0]]}: {error.reason}"  # type: ignore[index]  # its place
        for roles in {tuple(one.item.roles) for one in drafts}:
            try:
                role_scopes[roles] = await scopes_of_roles(roles)
            except RuleError as error:
                role_scopes[roles] = ()
                faults[("role", *roles)] = f"the role {roles[error.path[0]]}: {error.reason}"  # type: ignore[index]
        results: list[Outcome] = []
        for one in found:
            if isinstance(one, Draft):
                scopes, roles = tuple(one.item.scopes), tuple(one.item.roles)
                fault = faults.get(scopes) or faults.get(("role", *roles))
                if fault is None:
                    require_held(caller, (*scopes, *role_scopes[roles]))
                results.append(one if fault is None else refused(fault))
            else:
                results.append(one)
        return results, role_scopes

    async def _owners(self, found: list[Outcome]) -> dict[int | str, User]:
        """Return the owners by their id or external id, as the keys name them, locked until the transaction ends."""
        names = {one.owner for one in found if isinstance(one, Draft)}
        if not names:
            return {}
        ids = [one for one in names if isinstance(one, int)]
        external_ids = sorted(one for one in names if isinstance(one, str))
        query = User.filter(Q(id__in=ids) | Q(external_id__in=external_ids)).order_by("id")
        users = await query.for_update().all()
        owners: dict[int | str, User] = {}
        for user in users:
            owners[user.id] = user
            if user.external_id is not None:
                owners[user.external_id] = user
        if self.creates_users:
            new = [new_user(one) for one in external_ids if one not in owners]
            await write(new)
            owners |= {str(user.external_id): user for user in new}
        return owners

    async def _within_bounds(self, found: list[Outcome], owners: dict[int | str, User]) -> list[Outcome]:
        """Refuse keys without an active owner, of an owner with too many keys, and with a taken external id."""
        drafts = [one for one in found if isinstance(one, Draft)]
        taken = await taken_external_ids([one.item.external_id for one in drafts if one.item.external_id])
        limit = self.rules.keys_per_owner
        counts = {} if limit is None else await counts_of_keys({user.id for user in owners.values()})
        results: list[Outcome] = []
        for one in found:
            if isinstance(one, Draft):
                owner, external_id = owners.get(one.owner), one.item.external_id
                fault = None
                if owner is None:
                    fault = "there is no such user"
                elif owner.status != "active":
                    fault = f"the user is {owner.status}"
                elif limit is not None and counts.get(owner.id, 0) >= limit:
                    fault = f"the user has {limit} keys, and may not have more"
                elif external_id in taken:
                    fault = "another key has this external_id"
                if fault is None and owner is not None:
                    counts[owner.id] = counts.get(owner.id, 0) + 1
                    taken |= {external_id} - {None}
                results.append(one if fault is None else refused(fault))
            else:
                results.append(one)
        return results

    def _new_key(self, draft: Draft, owner: User, role_scopes: tuple[str, ...]) -> ApiKey:
        item = draft.item
        return self.rules.issuer.adopt(
            draft.digest,
            draft.secret,
            user_id=owner.id,
            name=item.name,
            mode=item.mode,
            environment=draft.environment,
            scopes=tuple(item.scopes),
            roles=tuple(item.roles),
            role_scopes=role_scopes,
            allowed_networks=draft.networks,
            limits=draft.limits,
            quota=item.quota,
            external_id=item.external_id,
            meta=item.meta,
            expires_at=draft.expires_at,
        )


def credential_of(item: ImportedKey, issuer: Issuer) -> tuple[bytes, Secret | None]:
    """Return the SHA-256 of a secret and, for a key that signs, the secret itself.

    Raises:
        RuleError: there is none, there are two, or the key could not be used with it.
    """
    if isinstance(item.secret, str) == isinstance(item.sha256, str):
        raise RuleError("either secret or sha256 must be given")
    if isinstance(item.sha256, str):
        if item.mode == "signed":
            raise RuleError("a key that signs needs its secret, not the SHA-256 of it")
        if not issuer.formats.imported:
            raise RuleError(NO_FORMATS)
        return digest_in(item.sha256), None
    text = str(item.secret)
    secret = issuer.formats.parse(text)
    if item.mode == "bearer":
        if secret is None:
            raise RuleError(NO_FORMAT)
        return hash_secret(secret), None
    is_own = text.startswith(f"{issuer.prefix}s_")
    if (is_own and secret is None) or not _SIGNING_SECRET.fullmatch(text):
        raise RuleError("the secret of a key that signs must have 16 to 200 printable ASCII characters")
    return hash_secret(Secret(text)), Secret(text)


def digest_in(text: str) -> bytes:
    """Return the bytes of a SHA-256 in hexadecimal or base64, or raise RuleError."""
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    if _BASE64.fullmatch(text):
        return base64.urlsafe_b64decode(text.translate(_URL_SAFE)[:43] + "=")
    raise RuleError("the SHA-256 is neither 64 hexadecimal digits in lower case nor 32 bytes in base64")


def new_user(external_id: str) -> User:
    """Return a new user for an external id, whose email nobody can have: RFC 2606, section 2, reserves `.invalid`."""
    local = hashlib.sha256(external_id.encode()).hexdigest()[:32]
    return User(email=f"{local}@imported.invalid", name=external_id[:200], external_id=external_id)


async def write(rows: Sequence[ApiKey] | Sequence[User]) -> None:
    """Insert rows by few statements."""
    if rows:
        async with ApiKey.resolve() as session:
            for row in rows:
                session.add(row)
            await session.flush()


async def access_keys_by_secret(digests: Collection[bytes]) -> dict[bytes, str]:
    """Return the access keys of the keys that have some secrets, by the SHA-256 of the secret."""
    if not digests:
        return {}
    query = (
        select(KeySecret.secret_sha256, ApiKey.access_key)
        .join(ApiKey, ApiKey.id == KeySecret.api_key_id)
        .where(KeySecret.secret_sha256.in_(digests))
    )
    async with ApiKey.resolve() as session:
        return {bytes(digest): access_key for digest, access_key in await session.execute(query)}


async def taken_external_ids(external_ids: Collection[str]) -> set[str | None]:
    """Return those of some external ids that keys have."""
    if not external_ids:
        return set()
    async with ApiKey.resolve() as session:
        query = select(ApiKey.external_id).where(ApiKey.external_id.in_(external_ids))
        return set((await session.execute(query)).scalars())


async def counts_of_keys(owner_ids: Collection[int]) -> dict[int, int]:
    """Return the number of keys of some users, by their id."""
    if not owner_ids:
        return {}
    query = (
        select(ApiKey.user_id, func.count().label("number"))
        .where(ApiKey.user_id.in_(owner_ids))
        .group_by(ApiKey.user_id)
    )
    async with ApiKey.resolve() as session:
        return {row.user_id: row.number for row in await session.execute(query)}
