"""Running PostgreSQL's own programs, which the wheel brings along: pg_dump, pg_restore and psql."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import IO

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from market_data.model.errors import DiskFull, MissingPrivilege, StorageError
from market_data.storage.server.account import binaries
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import surroundings


def program(name: str) -> str:
    """Where that program is."""
    return str(binaries().folder / name)


def target(database: Database) -> tuple[str, dict[str, str]]:
    """Which database, as an argument and an environment: the list of processes never shows the password."""
    conninfo = database.conninfo()
    parts = conninfo_to_dict(conninfo)
    password = parts.pop("password", None)
    secret = {"PGPASSWORD": str(password)} if password else {}
    return f"--dbname={make_conninfo('', **parts)}", surroundings(conninfo) | secret


def run(database: Database, name: str, *arguments: str) -> None:
    """Run one of them on the database.

    Raises:
        DiskFull, MissingPrivilege, StorageError: what it said.
    """
    where, environment = target(database)
    _finished(name, [program(name), where, "--no-password", *arguments], environment)


def read_file(path: Path, *arguments: str) -> str:
    """What pg_restore says of a file, no database being asked.

    Raises:
        StorageError: what it said when it cannot read the file.
    """
    return _finished("pg_restore", [program("pg_restore"), *arguments, str(path)], surroundings(""))


def said(file: IO[bytes]) -> str:
    """All that a program wrote into a file."""
    file.seek(0)
    return file.read().decode(errors="replace").strip()


def failure(name: str, message: str) -> StorageError:
    """Our error for what a program said when it failed."""
    last = message.splitlines()[-1] if message else "no message"
    if "No space left on device" in message:
        return DiskFull(f"No space is left: {last}")
    if "Permission denied" in message or "permission denied" in message:
        return MissingPrivilege(f"{name} was refused: {last}")
    if "server version mismatch" in message:
        return StorageError(
            f"The server is newer than the {name} that comes with this program: use the server's own. ({message})"
        )
    errors = [line for line in message.splitlines() if "error:" in line]
    return StorageError(f"{name} failed: {errors[0] if errors else last}")


def _finished(name: str, command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != 0:
        raise failure(name, done.stderr.strip())
    return done.stdout
