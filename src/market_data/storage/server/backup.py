"""Backup and restore of the whole database by PostgreSQL's own pg_dump and pg_restore, which the wheel brings along."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from market_data.model.errors import DiskFull, MissingPrivilege, StorageError, UsageError
from market_data.storage.server import migrate
from market_data.storage.server.account import binaries
from market_data.storage.server.database import Database
from market_data.storage.server.migration_files import declared_columns

# What opening a database writes by itself; they do not make it one that holds data.
_OWN_MARKS: Final = frozenset({"system_state", "providers"})
# The job queue makes its own tables.
_QUEUE_PREFIX: Final = "procrastinate_"


@dataclass(frozen=True, slots=True)
class BackupFile:
    """A written or restored backup."""

    path: Path
    bytes: int
    tables_with_rows: tuple[str, ...]


def back_up(database: Database, path: Path, *, overwrite: bool = False) -> BackupFile:
    """Write all of the database, as of one moment and while others go on working, into one compressed file.

    Raises:
        UsageError: when the file exists and may not be overwritten, or its folder does not exist.
        DiskFull, MissingPrivilege: when the file cannot be written.
        StorageError: what pg_dump said.
    """
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists: name another file, or give --force to replace it")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    # Under another name until it is whole, so that a broken one is never taken for a backup.
    part = path.with_name(path.name + ".part")
    try:
        _run(database, "pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={part}")
        _flush(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return BackupFile(path, path.stat().st_size, tuple(tables_with_rows(database)))


def restore(database: Database, path: Path, *, overwrite: bool = False) -> BackupFile:
    """Make the database equal to a backup, all of it or nothing, then bring its schema up to date.

    Args:
        overwrite: whether a database that holds data may be replaced.

    Raises:
        UsageError: when the file is no backup, or the database holds data and may not be overwritten.
        StorageError: what pg_restore said; the database is as it was then.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}")
    with path.open("rb") as file:
        if file.read(5) != b"PGDMP":
            raise UsageError(f"{path} is no backup made by `market-data db backup`")
    filled = tables_with_rows(database)
    if filled and not overwrite:
        raise UsageError(
            f"{database.name} holds data ({', '.join(filled[:5])}{' …' if len(filled) > 5 else ''}): restore into an "
            "empty one (another --data-dir), or give --force to replace it"
        )
    _replace(database, path)
    migrate.upgrade(database)
    return BackupFile(path, path.stat().st_size, tuple(tables_with_rows(database)))


def tables_with_rows(database: Database) -> list[str]:
    """Our tables that hold at least one row, besides what opening a database writes by itself."""
    found = []
    with database.transaction() as connection:
        for table in sorted(declared_columns().keys() - _OWN_MARKS):
            exists = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
            if exists and exists[0]:
                row = connection.execute(f"SELECT EXISTS (SELECT FROM {table})").fetchone()
                if row and row[0]:
                    found.append(table)
    return found


def _replace(database: Database, path: Path) -> None:
    """Empty the schema and fill it from the file, in one transaction.

    pg_restore cannot drop partitioned tables that are there already, so it only prints, and psql runs what it prints.
    psql commits at the end of its input, which it is therefore given only when pg_restore ended well.
    """
    strangers, schema = _strangers(database)
    if strangers:
        raise UsageError(
            f"{database.name} holds tables of others ({', '.join(strangers[:5])}): restore into a database of its own"
        )
    name = '"' + schema.replace('"', '""') + '"'
    target, environment = _target(database)
    printing = [_program("pg_restore"), "--exit-on-error", "--no-owner", "--no-privileges", "--file=-", str(path)]
    running = [
        _program("psql"), target, "--no-password", "--no-psqlrc", "--quiet", "--output=/dev/null",
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
            sink.stdin.write(f"DROP SCHEMA {name} CASCADE; CREATE SCHEMA {name};\n".encode())
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
        said = _read_all(run_errors) or _read_all(printed_errors)
    if failed:
        raise _failure("pg_restore", said)


def _strangers(database: Database) -> tuple[list[str], str]:
    """Tables in our schema that no program of ours made, and the schema's name."""
    with database.transaction() as connection:
        row = connection.execute("SELECT current_schema()").fetchone()
        found = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND NOT relispartition "
            "AND relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1"
        )
        ours = declared_columns().keys() | {migrate.VERSION_TABLE}
        strangers = [name for (name,) in found if name not in ours and not name.startswith(_QUEUE_PREFIX)]
    assert row is not None
    return strangers, row[0]


def _run(database: Database, program: str, *arguments: str) -> None:
    target, environment = _target(database)
    command = [_program(program), target, "--no-password", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode != 0:
        raise _failure(program, done.stderr.strip())


def _target(database: Database) -> tuple[str, dict[str, str]]:
    """Which database, as an argument and an environment: the list of processes never shows the password."""
    parts = conninfo_to_dict(database.conninfo())
    password = parts.pop("password", None)
    return f"--dbname={make_conninfo('', **parts)}", os.environ | ({"PGPASSWORD": str(password)} if password else {})


def _program(name: str) -> str:
    return str(binaries().folder / name)


def _read_all(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").strip()


def _failure(program: str, message: str) -> StorageError:
    last = message.splitlines()[-1] if message else "no message"
    if "No space left on device" in message:
        return DiskFull(f"No space is left: {last}")
    if "Permission denied" in message or "permission denied" in message:
        return MissingPrivilege(f"{program} was refused: {last}")
    if "server version mismatch" in message:
        return StorageError(
            f"The server is newer than the {program} that comes with this program: use the server's own. ({message})"
        )
    errors = [line for line in message.splitlines() if "error:" in line]
    return StorageError(f"{program} failed: {errors[0] if errors else last}")


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
