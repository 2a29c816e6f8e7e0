"""A real PostgreSQL for the tests: one server per test run, a fresh copy of the migrated database per test."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from market_data.bootstrap.shelves import declared_features
from market_data.storage.server import migrate
from market_data.storage.server.database import Database
from market_data.storage.server.embedded import EmbeddedServer
from market_data.storage.work.owner import Owner

sys.path.insert(0, str(Path(__file__).parent))
TEMPLATE = "migrated_template"
SERVERS = "MARKET_DATA_TEST_SERVERS"
# Only speed: a test that is about durability opens a server of its own.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "'64MB'",
        "autovacuum": "off", "max_wal_size": "'4GB'", "max_connections": "200"}  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Watch the logs for secrets, and choose the folder of this run's servers; pytest-xdist's workers inherit it.

    Not under pytest's own: every other pytest that starts closes that one to other accounts, and when we are root the
    servers run under another account.
    """
    if not hasattr(config, "workerinput"):
        os.environ[SERVERS] = tempfile.mkdtemp(prefix="market-data-tests-")
    spec = importlib.util.spec_from_file_location("secrets_in_logs", Path(__file__).with_name("secrets_in_logs.py"))
    assert spec and spec.loader
    watching = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(watching)
    config.pluginmanager.register(watching, "secrets-in-logs-of-programs")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove that folder after the last worker is done."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(SERVERS))


@pytest.fixture
def data_home() -> Path:
    """An empty folder in which a server of the test's own may live."""
    return Path(tempfile.mkdtemp(dir=os.environ[SERVERS]))


@pytest.fixture(scope="module")
def module_home() -> Path:
    """The same, for all tests of a module."""
    return Path(tempfile.mkdtemp(dir=os.environ[SERVERS]))


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedServer]:
    """The server of this test run, shared by the workers of pytest-xdist."""
    with EmbeddedServer(Path(os.environ[SERVERS]) / "shared", settings=FAST) as server:
        yield server


@pytest.fixture(scope="session")
def template(postgres: EmbeddedServer) -> str:
    """Name of a migrated database without connections, made by the first worker that asks."""
    with (postgres.home / "template.lock").open("w") as lock, _admin(postgres) as admin:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (TEMPLATE,)).fetchone():
            _create(admin, "being_migrated", None)
            with Database.open(make_conninfo(postgres.conninfo(), dbname="being_migrated"), None) as database:
                declared_features()
                migrate.upgrade(database)
            admin.execute(sql.SQL("ALTER DATABASE being_migrated RENAME TO {}").format(sql.Identifier(TEMPLATE)))
    return TEMPLATE


@pytest.fixture
def database_url(postgres: EmbeddedServer, template: str) -> Iterator[str]:
    """Connection string of a fresh migrated database."""
    yield from _fresh(postgres, template)


@pytest.fixture
def empty_database_url(postgres: EmbeddedServer) -> Iterator[str]:
    """Connection string of a fresh database without any table."""
    yield from _fresh(postgres, None)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An open, fresh, migrated database."""
    with Database.open(database_url, None) as opened:
        yield opened


@pytest.fixture(autouse=True)
def owners_resign(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No owner outlives its test: its thread would look for a database that is gone."""
    opened: list[Owner] = []
    connect = Owner._connect

    def remembered(owner: Owner) -> None:
        opened.append(owner)
        connect(owner)

    monkeypatch.setattr(Owner, "_connect", remembered)
    yield
    for owner in opened:
        owner.close()


@pytest.fixture
def empty_database(empty_database_url: str) -> Iterator[Database]:
    """An open, fresh database without any table."""
    with Database.open(empty_database_url, None) as opened:
        yield opened


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recorded payloads (MARKET_DATA_RECORDINGS, or ../shared/data beside the project)."""
    folder = Path(os.environ.get("MARKET_DATA_RECORDINGS") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no recordings in {folder}: set MARKET_DATA_RECORDINGS")
    return folder


def _admin(server: EmbeddedServer) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(make_conninfo(server.conninfo(), dbname="postgres"), autocommit=True)


def _create(admin: psycopg.Connection[tuple[object, ...]], name: str, template: str | None) -> None:
    admin.execute(
        sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template or "template0"))
    )


def _fresh(server: EmbeddedServer, template: str | None) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with _admin(server) as admin:
        _create(admin, name, template)
        try:
            yield make_conninfo(server.conninfo(), dbname=name)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
