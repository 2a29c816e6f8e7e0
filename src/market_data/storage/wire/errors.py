"""From an error of PostgreSQL or its drivers to one of ours, with what to do about it and never with a password."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from market_data.model.errors import (
    BadCredentials,
    ConfigError,
    DatabaseBusy,
    DatabaseReadOnly,
    DatabaseUnavailable,
    DiskFull,
    MarketDataError,
    MissingPrivilege,
    SchemaMismatch,
    StorageError,
    Where,
)

# Serialization failure and deadlock: the transaction was rolled back whole and may simply be run again.
RETRYABLE: Final = frozenset({"40001", "40P01"})
_NAME: Final = r'(?P<kind>[a-z -]+?) "?(?P<name>[^"\n]+?)"?(?= DETAIL:| \(|$)'
_DENIED: Final = re.compile(f"permission denied for {_NAME}", re.MULTILINE)
_OWNER: Final = re.compile(f"must be owner of {_NAME}", re.MULTILINE)
_PRIVILEGES: Final = {
    "table": "SELECT, INSERT, UPDATE, DELETE ON TABLE",
    "view": "SELECT ON TABLE",
    "sequence": "USAGE, SELECT ON SEQUENCE",
    "schema": "USAGE, CREATE ON SCHEMA",
    "database": "CONNECT, CREATE, TEMPORARY ON DATABASE",
    "function": "EXECUTE ON FUNCTION",
    "language": "USAGE ON LANGUAGE",
    "type": "USAGE ON TYPE",
    "tablespace": "CREATE ON TABLESPACE",
}


def masked_url(conninfo: str) -> str:
    """The connection string as a URL without its password, for messages; `a database` when it cannot be read."""
    try:
        parts = conninfo_to_dict(conninfo)
    except psycopg.Error:
        return "the database of DATABASE_URL"
    user = f"{parts['user']}{':***' if parts.get('password') else ''}@" if parts.get("user") else ""
    port = f":{parts['port']}" if parts.get("port") else ""
    return f"postgresql://{user}{parts.get('host') or ''}{port}/{parts.get('dbname') or ''}"


@contextmanager
def translated(conninfo: str) -> Iterator[None]:
    """Turn psycopg's errors inside the block into ours; `conninfo` is named in them, masked."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error, conninfo) from error


def translate(error: Exception, conninfo: str) -> MarketDataError:
    """Our error for one of psycopg or psycopg_pool; whatever its class, it lies with storage."""
    message = _without_password(_message(error), conninfo)
    state = sqlstate(error)
    found = _connection_failure(error, message, conninfo) if state is None else _by_state(state, message, conninfo)
    found.where = Where.STORAGE
    return found


def sqlstate(error: BaseException) -> str | None:
    """The five characters PostgreSQL gave the error, None when it did not come from the server."""
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) and len(state) == 5 else None


def retryable(error: MarketDataError) -> bool:
    """True when the transaction that ended with this error may simply be run again."""
    return error.__cause__ is not None and sqlstate(error.__cause__) in RETRYABLE


def _by_state(state: str, message: str, conninfo: str) -> MarketDataError:
    where = masked_url(conninfo)
    if state in ("53100", "58030") and (state == "53100" or "No space left" in message):
        return DiskFull(f"No space is left on the database's disk ({where}): {message}")
    if state == "25006":
        return DatabaseReadOnly(
            f"{where} accepts no writes (a standby, or default_transaction_read_only is on): {message}"
        )
    if state == "42501":
        return MissingPrivilege(f"{message}. {_grant(message, conninfo)}")
    if state in ("28P01", "28000"):
        return BadCredentials(f"{where} refused the user or password: {message}")
    if state in ("3D000", "3F000"):
        return ConfigError(f"{message} ({where}): create it, or correct DATABASE_URL.")
    if state in ("42P01", "42703", "42883", "42704"):
        return SchemaMismatch(f"{message}: the schema is not the one of this program; run `market-data db upgrade`.")
    if state in RETRYABLE or state in ("55P03", "53200", "57014", "40003"):
        return DatabaseBusy(f"The database is busy, try again: {message}")
    if state.startswith(("08", "57P")) or state in ("53300", "25P03", "25P04"):
        return DatabaseUnavailable(f"{where} cannot be reached: {message}")
    return StorageError(f"The database refused ({state}): {message}")


def _connection_failure(error: Exception, message: str, conninfo: str) -> MarketDataError:
    """Errors without SQLSTATE: the driver's own, or a failed connection whose reason is only in the text."""
    where = masked_url(conninfo)
    if "password authentication failed" in message or "no password supplied" in message:
        return BadCredentials(f"{where} refused the user or password: {message}")
    if re.search(r'(database|role) "[^"]*" does not exist', message):
        return ConfigError(f"{message} ({where}): create it, or correct DATABASE_URL.")
    if "no pg_hba.conf entry" in message or "is not permitted to log in" in message:
        return BadCredentials(f"{where} does not let this user in: {message}")
    if "permission denied for database" in message:
        return MissingPrivilege(f"{message}. {_grant(message, conninfo)}")
    # A result that the driver made up itself when the server went away is of no particular class.
    gone = "server closed the connection" in message or "no connection to the server" in message
    if gone or isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return DatabaseUnavailable(f"{where} cannot be reached: {message}")
    return StorageError(f"The database driver refused: {message}")


def _grant(message: str, conninfo: str) -> str:
    """The statement that would have allowed what was denied."""
    user = _user(conninfo)
    denied = _DENIED.search(message)
    if denied:
        kind = denied["kind"].removeprefix("materialized ").removeprefix("foreign ")
        privileges = _PRIVILEGES.get(kind, f"ALL ON {kind.upper()}")
        return f"Ask the database's owner for: GRANT {privileges} {_quoted(denied['name'])} TO {user};"
    owned = _OWNER.search(message)
    if owned:
        kind = "TABLE" if owned["kind"] == "relation" else owned["kind"].upper()
        return f"Ask the database's owner for: ALTER {kind} {_quoted(owned['name'])} OWNER TO {user};"
    return f"Ask the database's owner to grant it to {user}."


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def _user(conninfo: str) -> str:
    user = conninfo_to_dict(conninfo).get("user")
    return _quoted(str(user)) if user else "CURRENT_USER"


def _message(error: Exception) -> str:
    diagnostic = getattr(error, "diag", None)
    primary = getattr(diagnostic, "message_primary", None)
    if primary:
        detail = getattr(diagnostic, "message_detail", None)
        return f"{primary} ({detail})" if detail else str(primary)
    return re.sub(r"\s+", " ", str(error)).strip()


def _without_password(message: str, conninfo: str) -> str:
    try:
        password = conninfo_to_dict(conninfo).get("password")
    except psycopg.Error:
        return message
    return message.replace(str(password), "***") if password else message
