"""Restore: a backup is judged completely, filled in beside what is there, verified, and only then takes its place."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from psycopg import sql

from market_data.model.errors import MarketDataError, SchemaMismatch, StorageError, UsageError
from market_data.storage.server import migrate
from market_data.storage.server.backup import BackupFile, seal_holds, tables_with_rows
from market_data.storage.server.database import Database
from market_data.storage.server.migration_files import declared_columns, known_revisions
from market_data.storage.server.programs import failure, program, read_file, said, target

# The job queue makes its own tables.
_QUEUE_PREFIX: Final = "procrastinate_"
# Where the schema waits that is being replaced.
ASIDE: Final = "market_data_replaced"
_TABLE_LINE: Final = re.compile(r"^\d+; \d+ \d+ TABLE (?P<schema>\S+) (?P<name>\S+) ", re.MULTILINE)
_COPIED: Final = re.compile(r"^COPY .*?;\n(?P<rows>.*?)^\\\.$", re.MULTILINE | re.DOTALL)


def restore(database: Database, path: Path, *, overwrite: bool = False) -> BackupFile:
    """Make the database equal to a backup, all of it or nothing, and of this program's schema.

    Args:
        overwrite: whether a database that holds data may be replaced.

    Raises:
        UsageError: when the file is no whole backup of ours, or the database holds data and may not be overwritten.
        SchemaMismatch: when a newer program made the backup, or it lacks what its schema has.
        StorageError: what pg_restore said. Whatever is raised, the database is as it was.
    """
    schema = _schema_of(database)
    judge(path, schema)
    filled = tables_with_rows(database)
    if filled and not overwrite:
        raise UsageError(
            f"{database.name} holds data ({', '.join(filled[:5])}{' …' if len(filled) > 5 else ''}): restore into an "
            "empty one (another --data-dir), or give --force to replace it"
        )
    _fill_beside(database, path, schema)
    try:
        migrate.upgrade(database)
    except BaseException:
        _swap_back(database, schema)
        raise
    with database.transaction() as connection:
        connection.execute("SET LOCAL statement_timeout = 0")
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(ASIDE)))
    return BackupFile(path, path.stat().st_size, tuple(tables_with_rows(database)))


def judge(path: Path, schema: str) -> None:
    """Refuse what is no whole backup that this program can restore into that schema; reads the file only.

    Raises:
        UsageError, SchemaMismatch, StorageError: saying what it is instead.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}")
    with path.open("rb") as file:
        if file.read(5) != b"PGDMP":
            raise UsageError(f"{path} is no backup made by `market-data db backup`")
    if seal_holds(path) is False:
        raise UsageError(f"{path} is damaged: its bytes are not those that were written; take another backup")
    tables = {(found["schema"], found["name"]) for found in _TABLE_LINE.finditer(read_file(path, "--list"))}
    schemas = {name for name, table in tables if table == migrate.VERSION_TABLE}
    if not schemas:
        raise UsageError(f"{path} is a backup of another program: it has no table {migrate.VERSION_TABLE}")
    if schemas != {schema}:
        raise UsageError(
            f"{path} was made of the schema {', '.join(sorted(schemas))}, this database works in {schema}: "
            "restore it where search_path leads there"
        )
    _judge_revision(path)
    # Reads every byte of every table, which finds a file cut short or changed that has no seal.
    read_file(path, "--data-only", "--file=/dev/null")


def _judge_revision(path: Path) -> None:
    copied = _COPIED.search(read_file(path, "--data-only", f"--table={migrate.VERSION_TABLE}", "--file=-"))
    revision, known = (copied["rows"].strip() if copied else ""), known_revisions()
    if revision in known:
        return
    if revision.isdigit() and revision > known[-1]:
        raise SchemaMismatch(
            f"{path} has the schema {revision}, newer than {known[-1]}, the last this program knows: install the "
            "newer program (pip install --upgrade market-data-platform)"
        )
    raise UsageError(f"{path} is of no schema this program ever had ({revision or 'none'})")


def _schema_of(database: Database) -> str:
    """The schema we work in.

    Raises:
        UsageError: when it holds tables that no program of ours made.
    """
    with database.transaction() as connection:
        row = connection.execute("SELECT current_schema()").fetchone()
        found = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND NOT relispartition "
            "AND relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1"
        )
        ours = declared_columns().keys() | {migrate.VERSION_TABLE}
        strangers = [name for (name,) in found if name not in ours and not name.startswith(_QUEUE_PREFIX)]
    assert row is not None
    if strangers:
        raise UsageError(
            f"{database.name} holds tables of others ({', '.join(strangers[:5])}): restore into a database of its own"
        )
    return str(row[0])


def _fill_beside(database: Database, path: Path, schema: str) -> None:
    """Put the present schema aside and fill a new one of its name from the file, in one transaction.

    Whoever writes is waited for and waits: nobody's work is half in the one and half in the other. pg_restore cannot
    drop partitioned tables, so it only prints, and psql runs what it prints. psql commits at the end of its input,
    which it is therefore given only when pg_restore ended well.
    """
    name = '"' + schema.replace('"', '""') + '"'
    opening = (
        f"DROP SCHEMA IF EXISTS {ASIDE} CASCADE;\n"
        "DO $$ DECLARE found text; BEGIN FOR found IN SELECT format('%I.%I', current_schema(), relname) FROM pg_class "
        "WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition "
        "ORDER BY relname LOOP EXECUTE 'LOCK TABLE ' || found || ' IN ACCESS EXCLUSIVE MODE'; END LOOP; END $$;\n"
        f"ALTER SCHEMA {name} RENAME TO {ASIDE}; CREATE SCHEMA {name};\n"
    )
    where, environment = target(database)
    printing = [program("pg_restore"), "--exit-on-error", "--no-owner", "--no-privileges", "--file=-", str(path)]
    running = [
        program("psql"), where, "--no-password", "--no-psqlrc", "--quiet", "--output=/dev/null",
        "--single-transaction", "--set=ON_ERROR_STOP=1", "--file=-",
    ]  # fmt: skip
    with (
        tempfile.TemporaryFile() as printed_errors,
        tempfile.TemporaryFile() as run_errors,
        subprocess.Popen(printing, stdout=subprocess.PIPE, stderr=printed_errors) as source,
        subprocess.Popen(running, stdin=subprocess.PIPE, stderr=run_errors, env=environment) as sink,
    ):
        assert source.stdout is not None
        assert sink.stdin is not None
        try:
            sink.stdin.write(opening.encode())
            shutil.copyfileobj(source.stdout, sink.stdin, 1 << 20)
        except BrokenPipeError:
            # psql gave up; what it said is raised below.
            source.kill()
        finally:
            if source.wait() != 0:
                sink.kill()
        with contextlib.suppress(BrokenPipeError):
            sink.stdin.close()
        failed = sink.wait() != 0 or source.returncode != 0
        message = said(run_errors) or said(printed_errors)
    if failed:
        raise failure("pg_restore", message)


def _swap_back(database: Database, schema: str) -> None:
    """Put what was there in its place again."""
    own, aside = sql.Identifier(schema), sql.Identifier(ASIDE)
    try:
        with database.transaction() as connection:
            connection.execute("SET LOCAL statement_timeout = 0")
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(own))
            connection.execute(sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(aside, own))
    except MarketDataError as error:
        raise StorageError(
            f"What was restored cannot be used, and what was there before waits in the schema {ASIDE}: DROP SCHEMA "
            f"{schema} CASCADE; ALTER SCHEMA {ASIDE} RENAME TO {schema}; ({error})"
        ) from error
