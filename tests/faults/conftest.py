"""Makes the modules beside the fault tests importable; a second database to compare with."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from market_data.storage.server.embedded import EmbeddedServer

sys.path.insert(0, str(Path(__file__).parent))
# All that hold rows of market data or of the work on it.
TABLES = """
SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = 'public' AND relkind IN ('r', 'p') AND NOT relispartition
AND relname NOT LIKE 'procrastinate%' AND relname NOT IN ('market_data_schema', 'system_state')
"""


@pytest.fixture
def another_database_url(postgres: EmbeddedServer, template: str) -> Iterator[str]:
    """Connection string of one more fresh migrated database."""
    yield from _made(postgres, template)


@pytest.fixture(scope="module")
def shared_database_url(postgres: EmbeddedServer, template: str) -> Iterator[str]:
    """Connection string of a migrated database that the tests of a module share, one after the other."""
    yield from _made(postgres, template)


@pytest.fixture
def emptied_database_url(shared_database_url: str) -> str:
    """The same, without a row of the tests before: a database of its own for each of a hundred takes too long."""
    with psycopg.connect(shared_database_url, autocommit=True) as connection:
        for (name,) in connection.execute(TABLES).fetchall():
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))
    return shared_database_url


def _made(postgres: EmbeddedServer, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    quoted = sql.Identifier(name)
    with psycopg.connect(make_conninfo(postgres.conninfo(), dbname="postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(quoted, sql.Identifier(template)))
        try:
            yield make_conninfo(postgres.conninfo(), dbname=name)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(quoted))
