"""Backup of the whole database into one file by pg_dump, sealed with a checksum that a restore asks for."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from market_data.model.errors import DiskFull, MissingPrivilege, UsageError
from market_data.storage.server.database import Database
from market_data.storage.server.migration_files import declared_columns
from market_data.storage.server.programs import run

# What opening a database writes by itself; they do not make it one that holds data.
_OWN_MARKS: Final = frozenset({"system_state", "providers"})
# After pg_dump's own bytes, which it finds by their place: pg_restore does not mind what follows.
SEAL: Final = b"\nmarket-data sha256 "
_DIGEST_BYTES: Final = hashlib.sha256().digest_size
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class BackupFile:
    """A written or restored backup."""

    path: Path
    bytes: int
    tables_with_rows: tuple[str, ...]


def back_up(database: Database, path: Path, *, overwrite: bool = False) -> BackupFile:
    """Write all of the database, as of one moment and while others go on working, into one compressed file.

    The file is written under a name of its own and appears whole; its time is the moment of what it holds. Of two that
    are written to one name at once, the one that holds the newer state stays.

    Raises:
        UsageError: when the file exists and may not be overwritten, or its folder does not exist.
        DiskFull, MissingPrivilege: when the file cannot be written.
        StorageError: what pg_dump said.
    """
    if path.exists() and not overwrite:
        raise _exists(path)
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    before = _identity(path)
    moment = database.now()
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    os.close(descriptor)
    part = Path(name)
    try:
        run(database, "pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={part}")
        _seal(part, moment)
        _appear(part, path, moment, before, overwrite=overwrite)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        part.unlink(missing_ok=True)
    return BackupFile(path, path.stat().st_size, tuple(tables_with_rows(database)))


def seal_holds(path: Path) -> bool | None:
    """Whether a backup's bytes are those that were sealed; None for a file without a seal."""
    length = path.stat().st_size - len(SEAL) - _DIGEST_BYTES
    with path.open("rb") as file:
        if length < 0:
            return None
        file.seek(length)
        tail = file.read()
        if not tail.startswith(SEAL):
            return None
        return _digest(path, length) == tail[len(SEAL) :]


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


def _seal(part: Path, moment: datetime) -> None:
    """Add the checksum, make the file durable, and date it by what it holds."""
    digest = _digest(part, part.stat().st_size)
    with part.open("ab") as file:
        file.write(SEAL + digest)
        file.flush()
        os.fsync(file.fileno())
    os.utime(part, (moment.timestamp(), moment.timestamp()))


def _digest(path: Path, length: int) -> bytes:
    found, left = hashlib.sha256(), length
    with path.open("rb") as file:
        while left and (piece := file.read(min(left, _CHUNK_BYTES))):
            found.update(piece)
            left -= len(piece)
    return found.digest()


def _appear(part: Path, path: Path, moment: datetime, before: tuple[int, int] | None, *, overwrite: bool) -> None:
    """Give the whole file its name."""
    if overwrite:
        present = _identity(path)
        if present not in (None, before) and path.stat().st_mtime > moment.timestamp():
            raise UsageError(f"{path} was written by another backup meanwhile, of a newer state: it stays")
        part.replace(path)
    else:
        try:
            path.hardlink_to(part)
        except FileExistsError:
            raise _exists(path) from None
        except OSError:  # a file system without links
            if path.exists():
                raise _exists(path) from None
            part.replace(path)
    with suppress(OSError):  # Not every file system lets a folder be flushed.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _exists(path: Path) -> UsageError:
    return UsageError(f"{path} exists: name another file, or give --force to replace it")


def _unwritable(path: Path, error: OSError) -> Exception:
    if isinstance(error, PermissionError):
        return MissingPrivilege(f"{path} cannot be written: {error.strerror}")
    return DiskFull(f"{path} cannot be written: {error.strerror}")
