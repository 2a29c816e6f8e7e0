"""The embedded server: shared, stopped by the last user, and back after being killed."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from market_data.model.errors import BadCredentials, DatabaseUnavailable, DiskFull, MissingPrivilege, SchemaMismatch
from market_data.storage.server import embedded
from market_data.storage.server.database import Database
from market_data.storage.server.embedded import EmbeddedServer
from market_data.storage.server.postmaster import Postmaster

# Opens the database, says so, and closes it when its input ends.
HOLDER = """
import sys
from pathlib import Path
from market_data.storage.server.database import Database
with Database.open(None, Path(sys.argv[1])) as database:
    with database.transaction() as connection:
        # Two CREATE TABLE IF NOT EXISTS at once may fail in PostgreSQL.
        connection.execute("SELECT pg_advisory_xact_lock(1)")
        connection.execute("CREATE TABLE IF NOT EXISTS notes (note text)")
        connection.execute("INSERT INTO notes VALUES ('kept')")
    print("open", flush=True)
    sys.stdin.read()
"""


Holder = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def holder() -> Iterator[Holder]:
    """Starts processes that hold a database open; those left at the end are killed."""
    started: list[subprocess.Popen[str]] = []

    def start(data_dir: Path, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", "-c", HOLDER, str(data_dir)]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        started.append(subprocess.Popen(command, text=True, **pipes, **options))
        return started[-1]

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            process.communicate()


def wait_open(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    if process.stdout.readline() != "open\n":
        pytest.fail(process.stderr.read())


def leave(process: subprocess.Popen[str]) -> None:
    _, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (0, "")


@pytest.fixture(scope="session")
def made() -> Path:
    """A data directory whose cluster was made once, with the settings users get."""
    data_dir = Path(tempfile.mkdtemp(dir=os.environ["MARKET_DATA_TEST_SERVERS"]))
    with EmbeddedServer(data_dir):
        pass
    return data_dir


@pytest.fixture
def data_dir(made: Path, data_home: Path) -> Iterator[Path]:
    """A data directory of the test's own; whatever server still runs there is ended with it."""
    folder = data_home / "data"
    shutil.copytree(made, folder, symlinks=True, copy_function=copy_with_owner)
    for copied in (made / "postgres").rglob("*"):
        if copied.is_dir():
            status = copied.stat()
            os.chown(folder / copied.relative_to(made), status.st_uid, status.st_gid)
    yield folder
    left = Postmaster.of(folder / "postgres" / "cluster")
    if left is not None:
        os.kill(left.pid, signal.SIGQUIT)


def copy_with_owner(source: str, target: str) -> str:
    shutil.copy2(source, target)
    status = Path(source).stat()
    os.chown(target, status.st_uid, status.st_gid)
    return target


def running(data_dir: Path) -> Postmaster | None:
    return Postmaster.of(data_dir / "postgres" / "cluster")


def test_durable_and_without_tcp(data_dir: Path) -> None:
    with Database.open(None, data_dir) as database:
        settings = database.rows(
            "SELECT current_setting('fsync') AS fsync, current_setting('listen_addresses') AS tcp, "
            "current_setting('synchronous_commit') AS commit, current_setting('full_page_writes') AS pages, "
            "current_setting('unix_socket_permissions') AS socket, current_setting('data_checksums') AS checksums"
        )
        assert settings == [
            {"fsync": "on", "tcp": "", "commit": "on", "pages": "on", "socket": "0700", "checksums": "on"}
        ]


def test_the_last_to_leave_stops_the_server(data_dir: Path, holder: Holder) -> None:
    other = holder(data_dir)
    wait_open(other)
    with Database.open(None, data_dir) as first, Database.open(None, data_dir) as second:
        assert first.rows("SELECT note FROM notes") == second.rows("SELECT note FROM notes") == [{"note": "kept"}]
    assert running(data_dir) is not None
    leave(other)
    assert running(data_dir) is None


def test_four_processes_race_for_the_first_start(data_home: Path, holder: Holder) -> None:
    racers = [holder(data_home / "fresh") for _ in range(4)]
    for racer in racers:
        wait_open(racer)
    server = running(data_home / "fresh")
    assert server is not None
    for racer in racers:
        leave(racer)
    assert running(data_home / "fresh") is None


def test_kill_of_the_program_leaves_nothing_in_the_way(data_dir: Path, holder: Holder) -> None:
    killed = holder(data_dir)
    wait_open(killed)
    killed.kill()
    killed.communicate()
    with Database.open(None, data_dir) as database:
        assert database.rows("SELECT note FROM notes") == [{"note": "kept"}]
    assert running(data_dir) is None


def child_is_gone(child: threading.Thread) -> bool:
    child.join(timeout=0.01)
    return not child.is_alive()


def test_kill_of_postgres_is_healed_while_open(data_dir: Path) -> None:
    with Database.open(None, data_dir) as database:
        database.rows("CREATE TABLE notes (note text)")
        database.rows("INSERT INTO notes VALUES ('committed')")
        assert database.frame("SELECT note FROM notes").to_dicts() == [{"note": "committed"}]
        server = running(data_dir)
        assert server is not None
        # A child in the middle of a long computation outlives its server and holds the shared memory.
        busy = psycopg.connect(database.conninfo())
        started = threading.Event()

        def compute() -> None:
            busy.execute("SELECT 1")
            started.set()
            with pytest.raises(psycopg.OperationalError):
                busy.execute("SELECT sum(sqrt(i)) FROM generate_series(1, 4000000000) AS i")

        child = threading.Thread(target=compute)
        child.start()
        started.wait()
        os.kill(server.pid, signal.SIGKILL)
        # Until its children notice, they may still answer, or die while they do: that one call is told to try again.
        while running(data_dir) is None or not child_is_gone(child):
            with suppress(DatabaseUnavailable):
                assert database.rows("SELECT note FROM notes") == [{"note": "committed"}]
        assert database.rows("SELECT note FROM notes") == [{"note": "committed"}]
        assert database.frame("SELECT note FROM notes").to_dicts() == [{"note": "committed"}]
        busy.close()
        revived = running(data_dir)
        assert revived is not None
        assert revived.pid != server.pid


def test_kill_of_both_is_healed_on_reopening(data_dir: Path, holder: Holder) -> None:
    killed = holder(data_dir)
    wait_open(killed)
    server = running(data_dir)
    assert server is not None
    os.kill(server.pid, signal.SIGKILL)
    killed.kill()
    killed.communicate()
    with Database.open(None, data_dir) as database:
        assert database.rows("SELECT note FROM notes") == [{"note": "kept"}]


def test_a_stale_pid_file_that_names_a_living_stranger(data_dir: Path) -> None:
    pid_file = data_dir / "postgres" / "cluster" / "postmaster.pid"
    pid_file.write_text(f"{os.getppid()}\n{pid_file.parent}\n1700000000\n5432\n/nowhere\n\n  1 1\nready\n")
    with Database.open(None, data_dir) as database:
        assert database.rows("SELECT 1 AS one") == [{"one": 1}]


def test_a_cluster_killed_while_being_made_is_made_again(data_home: Path) -> None:
    half = data_home / "postgres" / "cluster.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with Database.open(None, data_home) as database:
        assert database.rows("SELECT 1 AS one") == [{"one": 1}]


def test_a_path_too_long_for_a_socket(data_dir: Path) -> None:
    long = data_dir / ("x" * 60) / ("y" * 60)
    long.mkdir(parents=True)
    (data_dir / "postgres").rename(long / "postgres")
    with Database.open(None, long) as database:
        assert database.rows("SELECT 1 AS one") == [{"one": 1}]
        folder = Path(database.rows("SELECT current_setting('unix_socket_directories') AS folder")[0]["folder"])
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


def test_data_of_another_major_version(data_dir: Path) -> None:
    (data_dir / "postgres" / "cluster" / "PG_VERSION").write_text("17\n")
    with pytest.raises(SchemaMismatch, match="written by PostgreSQL 17, this program brings 18"):
        Database.open(None, data_dir)


def test_a_broken_setting_names_the_log(data_dir: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="postgres/log"):
        Database.open(None, data_dir, server_settings={"shared_buffers": "'many'"})
    assert running(data_dir) is None


def test_a_file_in_the_way(data_home: Path) -> None:
    (data_home / "data").write_text("")
    with pytest.raises(DatabaseUnavailable, match="Not a directory"):
        Database.open(None, data_home / "data")


def test_a_closed_database_says_so(data_dir: Path) -> None:
    database = Database.open(None, data_dir)
    database.close()
    database.close()
    with pytest.raises(DatabaseUnavailable, match="closed"):
        database.rows("SELECT 1")


def test_without_a_runtime_folder_and_without_warnings(data_dir: Path, holder: Holder) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    quiet = holder(data_dir, env=environment)
    wait_open(quiet)
    leave(quiet)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_as_a_normal_user(data_home: Path, holder: Holder) -> None:
    data_home.chmod(0o777)
    data_home.parent.chmod(0o755)
    account: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": [], "cwd": "/"}
    probe = ["/bin/sh", "-c", '"$0" -c "import market_data.storage.server.database"', sys.executable]
    if subprocess.run(probe, capture_output=True, check=False, **account).returncode != 0:
        pytest.skip("the interpreter or this checkout is closed to other users")
    process = holder(data_home / "theirs", **account)
    wait_open(process)
    server = running(data_home / "theirs")
    assert server is not None
    assert Path(f"/proc/{server.pid}").stat().st_uid == 65534
    leave(process)
    assert running(data_home / "theirs") is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_closed_to_us(data_home: Path) -> None:
    data_home.chmod(0o500)
    with pytest.raises(MissingPrivilege, match="write access"):
        Database.open(None, data_home / "data")


@pytest.fixture
def small_disk(data_home: Path) -> Iterator[Path]:
    """A file system of 110 MB, without asking for more than a mount."""
    folder = data_home / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=110m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield folder
    left = running(folder)
    if left is not None:
        os.kill(left.pid, signal.SIGQUIT)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    ballast = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(ballast, b"\0" * 4096)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(ballast)


def test_a_full_disk(small_disk: Path) -> None:
    with Database.open(None, small_disk, server_settings={"min_wal_size": "'32MB'"}) as database:
        database.rows("CREATE TABLE notes (note text)")
        with pytest.raises(DiskFull, match="No space is left"):
            database.rows("INSERT INTO notes SELECT repeat(md5(i::text), 40) FROM generate_series(1, 200000) AS i")
        assert database.rows("SELECT count(*) AS n FROM notes") == [{"n": 0}]
    fill(small_disk / "ballast")
    with pytest.raises(DiskFull, match="postgres/log"):
        Database.open(None, small_disk)
    (small_disk / "ballast").unlink()
    with Database.open(None, small_disk) as database:
        assert database.rows("SELECT count(*) AS n FROM notes") == [{"n": 0}]


def test_no_room_for_the_log_of_changes(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL ends at once then, now and then without a word; what was committed is there again with more room."""
    monkeypatch.setattr(embedded, "STOP_SECONDS", 1.0)
    with Database.open(None, small_disk, server_settings={"min_wal_size": "32MB"}) as database:
        database.rows("CREATE TABLE notes (note text)")
        database.rows("INSERT INTO notes VALUES ('kept')")
        fill(small_disk / "ballast")
        with pytest.raises(DiskFull, match="No space is left"):
            database.rows("SELECT pg_logical_emit_message(false, 'much', repeat('x', 40000000))")
    (small_disk / "ballast").unlink()
    with Database.open(None, small_disk) as database:
        assert database.rows("SELECT note FROM notes") == [{"note": "kept"}]


def test_a_server_that_does_not_shut_down_is_ended(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "STOP_SECONDS", 0.2)
    with Database.open(None, data_dir) as database:
        database.rows("CREATE TABLE notes AS SELECT 'kept' AS note")
        (backend,) = database.rows("SELECT pg_backend_pid() AS pid")
        os.kill(backend["pid"], signal.SIGSTOP)
    assert running(data_dir) is None
    with Database.open(None, data_dir) as database:
        assert database.rows("SELECT note FROM notes") == [{"note": "kept"}]


def test_a_wrong_password_over_tcp(data_dir: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    asked = {"listen_addresses": "'127.0.0.1'", "port": str(port)}
    with Database.open(None, data_dir, server_settings=asked) as database:
        database.rows("CREATE ROLE trader LOGIN PASSWORD 'right-7hx'")
        url = f"postgresql://trader:right-7hx@127.0.0.1:{port}/market_data"
        with Database.open(url, None) as remote:
            assert remote.rows("SELECT current_user AS me") == [{"me": "trader"}]
            assert remote.name == f"postgresql://trader:***@127.0.0.1:{port}/market_data"
        with pytest.raises(BadCredentials) as refused:
            Database.open(url.replace("right-7hx", "wrong-3kq"), None)
    assert "wrong-3kq" not in str(refused.value)
    assert f"postgresql://trader:***@127.0.0.1:{port}/market_data" in str(refused.value)
