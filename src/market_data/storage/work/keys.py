"""API keys: random tokens of which only a hash is kept, with scopes, expiry and revocation."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID, uuid4

from market_data.model.errors import UsageError
from market_data.storage.server.database import Database

PREFIX: Final = "mdk"
SECRET_BYTES: Final = 32
# The time of last use is for people: more often than this it is not written.
USE_NOTED_EVERY: Final = timedelta(minutes=1)
_TOKEN: Final = re.compile(rf"{PREFIX}_([0-9a-f]{{32}})_[A-Za-z0-9_-]{{43}}")
_LISTED: Final = "id, name, scopes, created_at, expires_at, revoked_at, last_used_at"


class Scope(StrEnum):
    """What a key may do; each includes the ones before it."""

    READ = "read"
    TRIGGER = "trigger"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it stands; never its token."""

    id: UUID
    name: str
    scopes: tuple[Scope, ...]
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    def usable(self, now: datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def allows(self, scope: Scope) -> bool:
        """Whether one of its scopes is, or includes, `scope`."""
        order = list(Scope)
        return any(order.index(own) >= order.index(scope) for own in self.scopes)


def hashed(token: str) -> str:
    """What is kept of a token. Plain SHA-256: a random secret of 256 bits leaves nothing to guess, so no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def create_key(
    database: Database, name: str, scopes: Sequence[Scope], now: datetime, *, expires_at: datetime | None = None
) -> str:
    """Make a key; returns its token, which nobody can show again.

    Raises:
        UsageError: when the name is taken or empty, there is no scope, or it would have expired already.
    """
    if not name.strip() or not scopes:
        raise UsageError("A key needs a name and at least one scope: read, trigger or admin")
    if expires_at is not None and expires_at <= now:
        raise UsageError(f"The key would have expired already at {expires_at:%Y-%m-%dT%H:%M:%SZ}")
    number = uuid4()
    token = f"{PREFIX}_{number.hex}_{secrets.token_urlsafe(SECRET_BYTES)}"
    made = database.rows(
        "INSERT INTO api_keys (id, name, hash, scopes, created_at, expires_at) VALUES (%s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (name) DO NOTHING RETURNING id",
        (number, name.strip(), hashed(token), [scope.value for scope in dict.fromkeys(scopes)], now, expires_at),
    )
    if not made:
        raise UsageError(f"There is a key named {name!r} already: revoke it or choose another name")
    return token


def revoke_key(database: Database, name: str, now: datetime) -> bool:
    """Revoke a key by name, at once and for good; returns whether it was not revoked before.

    Raises:
        UsageError: when there is no key of that name.
    """
    found = database.rows("SELECT revoked_at FROM api_keys WHERE name = %s", (name,))
    if not found:
        raise UsageError(f"There is no key named {name!r}; 'market-data keys list' shows all")
    return bool(
        database.rows(
            "UPDATE api_keys SET revoked_at = %s WHERE name = %s AND revoked_at IS NULL RETURNING id", (now, name)
        )
    )


def listed_keys(database: Database) -> list[dict[str, Any]]:
    """Every key without its hash, oldest first."""
    return database.rows(f"SELECT {_LISTED} FROM api_keys ORDER BY created_at, name")


def any_usable_key(database: Database, now: datetime) -> bool:
    """Whether a key exists that is neither revoked nor expired."""
    return bool(
        database.rows(
            "SELECT 1 FROM api_keys WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > %s) LIMIT 1",
            (now,),
        )
    )


def any_key(database: Database) -> bool:
    """Whether a key was ever made: revoking or outliving the last one must not open the door again."""
    return bool(database.rows("SELECT 1 FROM api_keys LIMIT 1"))


def number_of(token: str) -> UUID | None:
    """The public part of a token; None for what is none."""
    shape = _TOKEN.fullmatch(token)
    return None if shape is None else UUID(shape[1])


def key_numbers(database: Database) -> frozenset[UUID]:
    """The public parts of all tokens ever made."""
    return frozenset(row["id"] for row in database.rows("SELECT id FROM api_keys"))


def find_key(database: Database, token: str, now: datetime) -> Key | None:
    """The key of a token, revoked and expired ones included; None for a wrong token. Notes when it was used."""
    number = number_of(token)
    if number is None:
        return None
    rows = database.rows(f"SELECT {_LISTED}, hash FROM api_keys WHERE id = %s", (number,))
    # Found by its public part, compared by its secret one in constant time.
    if not rows or not hmac.compare_digest(rows[0]["hash"], hashed(token)):
        return None
    row = rows[0]
    key = Key(
        id=row["id"],
        name=row["name"],
        scopes=tuple(Scope(scope) for scope in row["scopes"]),
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
    )
    if key.usable(now) and (key.last_used_at is None or now - key.last_used_at >= USE_NOTED_EVERY):
        database.rows("UPDATE api_keys SET last_used_at = %s WHERE id = %s", (now, key.id))
    return key
