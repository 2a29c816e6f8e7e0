"""The schema's migrations: where a database stands, bringing it up to date, and the same as SQL for a DBA."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg

from market_data.model.errors import SchemaMismatch, StorageError
from market_data.storage.server.database import Database
from market_data.storage.server.migration_files import declared_columns, feature_columns, known_revisions
from market_data.storage.wire.connection import Connection, dial
from market_data.storage.wire.errors import sqlstate, translate, translated

if TYPE_CHECKING:
    from sqlalchemy import Connection as AlchemyConnection

VERSION_TABLE: Final = "market_data_schema"
# Any number, the same in every version of the program: whoever migrates holds the advisory lock of this key.
LOCK_KEY: Final = 7_310_455_214_066_118_432


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """Where a database stands: `current` is None when it is empty."""

    current: str | None
    head: str
    pending: tuple[str, ...]
    features: tuple[str, ...] = ()
    """Features of the program that have no column yet."""

    @property
    def up_to_date(self) -> bool:
        """True when there is nothing to do."""
        return not self.pending and not self.features


@dataclass(frozen=True, slots=True)
class UpgradeSummary:
    """What an upgrade did, and what it found afterwards."""

    before: str | None
    after: str
    applied: tuple[str, ...]
    features: tuple[str, ...]
    tables: int
    columns: int
    seconds: float

    def __str__(self) -> str:
        steps = [*self.applied, *(f"column {name}" for name in self.features)]
        done = f"applied {', '.join(steps)}" if steps else "nothing to apply"
        return (
            f"schema {self.before or 'empty'} → {self.after}: {done}; "
            f"{self.tables} tables with {self.columns} columns verified in {self.seconds:.1f} s"
        )


def status(database: Database) -> SchemaStatus:
    """Where the database stands; cheap, reads one row.

    Raises:
        SchemaMismatch: when a newer program made the schema.
    """
    with database.transaction() as connection:
        return _status(connection)


def require_current(database: Database) -> None:
    """Make sure that the schema is the one of this program.

    Raises:
        SchemaMismatch: saying what to do.
    """
    found = status(database)
    if not found.up_to_date:
        raise SchemaMismatch(
            f"The schema of {database.name} is {found.current or 'empty'}, this program needs {found.head}: "
            "run `market-data db upgrade`."
        )


def upgrade(database: Database) -> UpgradeSummary:
    """Apply what is pending, all in one transaction, while others who want the same wait; then verify.

    Raises:
        SchemaMismatch: when a newer program made the schema, or a table or column is absent afterwards.
        MissingPrivilege: saying what to grant.
        StorageError: when a table of that name is there already but not ours.
    """
    started = time.monotonic()
    conninfo = database.conninfo()
    with translated(conninfo), dial(conninfo) as connection:
        # Held by the session, until the connection closes: SQLAlchemy begins with a rollback of its own.
        connection.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
        connection.commit()
        before = _status(connection)
        if before.pending:
            _apply(connection, conninfo)
        features = _missing_features(connection)
        for name in features:
            connection.execute(_add_column(name))
        problems = missing_columns(connection)
    if problems:
        raise SchemaMismatch(
            f"The schema of {database.name} says it is {before.head}, but lacks {'; '.join(problems)}. "
            "Somebody changed it by hand: restore it from a backup, or from the SQL of `market-data db sql`."
        )
    declared = declared_columns()
    return UpgradeSummary(
        before=before.current,
        after=before.head,
        applied=before.pending,
        features=features,
        tables=len(declared),
        columns=sum(map(len, declared.values())),
        seconds=time.monotonic() - started,
    )


def sql(*, after: str | None = None) -> str:
    """The statements an upgrade would run, for a DBA: from an empty database, or from revision `after`."""
    printed = io.StringIO()
    _run_alembic(output=printed, after=after)
    columns = [f"{_add_column(name)};" for name in feature_columns()]
    return "\n".join([printed.getvalue(), *columns, *([""] if columns else [])])


def missing_columns(connection: Connection) -> list[str]:
    """Declared tables and columns that the database does not have, as texts; empty when all is well."""
    found: dict[str, set[str]] = {}
    for table, column in connection.execute(
        "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        "WHERE pg_table_is_visible(c.oid) AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped "
        "AND c.relname = ANY(%s)",
        (list(declared_columns()),),
    ):
        found.setdefault(table, set()).add(column)
    problems = []
    for table, columns in sorted(declared_columns().items()):
        if table not in found:
            problems.append(f"table {table}")
        elif columns - found[table]:
            problems.append(f"{table}.{', '.join(sorted(columns - found[table]))}")
    return problems


def _status(connection: Connection) -> SchemaStatus:
    known = known_revisions()
    exists = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (VERSION_TABLE,)).fetchone()
    current: str | None = None
    if exists and exists[0]:
        row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()
        current = row[0] if row else None
    if current is not None and current not in known:
        raise SchemaMismatch(
            f"The database's schema is {current}, newer than {known[-1]}, the last this program knows: "
            "install the newer program (pip install --upgrade market-data-platform), or use another database."
        )
    pending = known if current is None else known[known.index(current) + 1 :]
    features = tuple(feature_columns()) if current is None else _missing_features(connection)
    return SchemaStatus(current=current, head=known[-1], pending=pending, features=features)


def _missing_features(connection: Connection) -> tuple[str, ...]:
    declared = feature_columns()
    if not declared:
        return ()
    found = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass('market_data_v2') AND NOT attisdropped"
    )
    return tuple(declared.keys() - {name for (name,) in found})


def _add_column(name: str) -> str:
    return f'ALTER TABLE market_data_v2 ADD COLUMN IF NOT EXISTS "{name}" {feature_columns()[name]}'


def _apply(connection: Connection, conninfo: str) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import StaticPool

    engine = create_engine("postgresql+psycopg://", creator=lambda: connection, poolclass=StaticPool)
    try:
        with engine.connect() as bound:
            _run_alembic(bound=bound)
            bound.commit()
    except DBAPIError as error:
        original = error.orig
        if not isinstance(original, psycopg.Error):
            raise
        if sqlstate(original) == "42P07":
            raise StorageError(
                f"{original.diag.message_primary}, but not made by this program: give it a database or a schema "
                "(search_path) of its own."
            ) from original
        raise translate(original, conninfo) from original


def _run_alembic(
    *, bound: AlchemyConnection | None = None, output: io.StringIO | None = None, after: str | None = None
) -> None:
    """Run every revision after the current one on a connection, or print them."""
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext

    from market_data.storage.server.revisions import Revisions

    script = Revisions()

    def steps(current: Any, _context: Any) -> Any:
        return script._upgrade_revs("head", current)  # noqa: SLF001 (as alembic.command does; it would need an env.py)

    offline = {"as_sql": True, "starting_rev": after} if output is not None else {}
    with EnvironmentContext(Config(), script, fn=steps, **offline) as environment:
        environment.configure(
            connection=bound,
            dialect_name=None if bound is not None else "postgresql",
            # Otherwise each percent sign would be printed twice.
            dialect_opts={"paramstyle": "named"},
            output_buffer=output,
            version_table=VERSION_TABLE,
            transactional_ddl=True,
        )
        with environment.begin_transaction():
            environment.run_migrations()
