"""Import keys of other systems with their secrets, many in one transaction.

Each key is imported, known or refused on its own. A secret identifies its key, so an import that is repeated makes no doubles.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import func, select

from latchkey.models import ApiKey, KeySecret, User
from latchkey.models.limit import RateLimit
from latchkey.models.lookups import Q
from latchkey.service.authentication.principal import Principal
from latchkey.service.authentication.wire.credentials import Secret
from latchkey.service.keys import values
from latchkey.service.keys.credits import set_credits
from latchkey.service.keys.import_shapes import ImportedKey, ImportResult, refused
from latchkey.service.keys.imported_credentials import credential_of
from latchkey.service.keys.metadata import checked_meta
from latchkey.service.keys.rules import KeyRules, require_held
from latchkey.service.keys.scopes import require_known, scopes_of_roles
from latchkey.service.limits.rules import distinct_limits
from latchkey.service.problems import Problem
from latchkey.service.rule_error import RuleError


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

    @property
    def scopes(self) -> tuple[str, ...]:
        """Its own scopes, without those of its roles."""
        return tuple(self.item.scopes)

    @property
    def roles(self) -> tuple[str, ...]:
        """The names of its roles."""
        return tuple(self.item.roles)


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
        found = await self._with_known_scopes(found)
        found, role_scopes = await self._with_roles(found)
        for draft in drafts_in(found):
            require_held(caller, (*draft.scopes, *role_scopes[draft.roles]))
        owners = await self._owners(found)
        found = await self._within_bounds(found, owners)
        keys = {
            place: self._new_key(one, owners[one.owner], role_scopes[one.roles])
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
        known = await access_keys_by_secret([draft.digest for draft in drafts_in(found)])
        before: set[bytes] = set()

        def check(draft: Draft) -> Outcome:
            if draft.digest in known:
                return ImportResult(status="known", access_key=known[draft.digest], detail=None)
            if draft.digest in before:
                return refused("the secret is that of another key of this import")
            before.add(draft.digest)
            return draft

        return checked(found, check)

    async def _with_known_scopes(self, found: list[Outcome]) -> list[Outcome]:
        """Refuse keys with scopes that do not exist."""
        faults: dict[tuple[str, ...], str] = {}
        for scopes in {draft.scopes for draft in drafts_in(found)}:
            try:
                await require_known(scopes, self.rules.scopes)
            except RuleError as error:
                faults[scopes] = f"{error.item_in(scopes)}: {error.reason}"
        return checked(
            found, lambda draft: refused(faults[draft.scopes]) if draft.scopes in faults else draft
        )

    async def _with_roles(
        self, found: list[Outcome]
    ) -> tuple[list[Outcome], dict[tuple[str, ...], tuple[str, ...]]]:
        """Refuse keys with roles that do not exist; return the scopes of each list of roles as well."""
        role_scopes: dict[tuple[str, ...], tuple[str, ...]] = {}
        faults: dict[tuple[str, ...], str] = {}
        for roles in {draft.roles for draft in drafts_in(found)}:
            try:
                role_scopes[roles] = await scopes_of_roles(roles)
            except RuleError as error:
                faults[roles] = f"{error.item_in(roles)}: {error.reason}"
        found = checked(found, lambda draft: refused(faults[draft.roles]) if draft.roles in faults else draft)
        return found, role_scopes

    async def _owners(self, found: list[Outcome]) -> dict[int | str, User]:
        """Return the owners by their id or external id, as the keys name them, locked until the transaction ends."""
        names = {draft.owner for draft in drafts_in(found)}
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

    async def _within_bounds(self, found: list[Outcome], owners: Mapping[int | str, User]) -> list[Outcome]:
        """Refuse keys without an active owner, of an owner with too many keys, and with a taken external id."""
        given = [draft.item.external_id for draft in drafts_in(found)]
        taken = await taken_external_ids([one for one in given if one is not None])
        limit = self.rules.keys_per_owner
        counts = Counter({} if limit is None else await counts_of_keys({user.id for user in owners.values()}))

        def check(draft: Draft) -> Outcome:
            owner, external_id = owners.get(draft.owner), draft.item.external_id
            if owner is None:
                return refused("there is no such user")
            if owner.status != "active":
                return refused(f"the user is {owner.status}")
            if limit is not None and counts[owner.id] >= limit:
                return refused(f"the user has {limit} keys, and may not have more")
            if external_id in taken:
                return refused("another key has this external_id")
            counts[owner.id] += 1
            if external_id is not None:
                taken.add(external_id)
            return draft

        return checked(found, check)

    def _new_key(self, draft: Draft, owner: User, role_scopes: tuple[str, ...]) -> ApiKey:
        item = draft.item
        return self.rules.issuer.adopt(
            draft.digest,
            draft.secret,
            user_id=owner.id,
            name=item.name,
            mode=item.mode,
            environment=draft.environment,
            scopes=draft.scopes,
            roles=draft.roles,
            role_scopes=role_scopes,
            allowed_networks=draft.networks,
            limits=draft.limits,
            quota=item.quota,
            external_id=item.external_id,
            meta=item.meta,
            expires_at=draft.expires_at,
        )


def drafts_in(found: Iterable[Outcome]) -> list[Draft]:
    """Return the keys that are not refused or known so far."""
    return [one for one in found if isinstance(one, Draft)]


def checked(found: Iterable[Outcome], check: Callable[[Draft], Outcome]) -> list[Outcome]:
    """Return the outcomes after a further check of the keys that are not refused or known so far."""
    return [check(one) if isinstance(one, Draft) else one for one in found]


def new_user(external_id: str) -> User:
    """Return a new user for an external id, whose email nobody can have: RFC 2606, section 2, reserves `.invalid`."""
    local = hashlib.sha256(external_id.encode()).hexdigest()[:32]
    return User(email=f"{local}@imported.invalid", name=external_id[:200], external_id=external_id)


async def write(rows: Sequence[ApiKey] | Sequence[User]) -> None:
    """Insert rows by few statements."""
    if rows:
        async with ApiKey.resolve() as session:
            session.add_all(rows)
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


async def taken_external_ids(external_ids: Collection[str]) -> set[str]:
    """Return those of some external ids that keys have."""
    if not external_ids:
        return set()
    async with ApiKey.resolve() as session:
        query = select(ApiKey.external_id).where(ApiKey.external_id.in_(external_ids))
        return {str(one) for one in (await session.execute(query)).scalars()}


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
