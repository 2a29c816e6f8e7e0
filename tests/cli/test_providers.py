"""``providers`` knows what all processes know: it shows who is left alone, and does not ask who told another so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from market_data.cli.app import app
from market_data.storage.server.database import Database

NOBODY = "http://127.0.0.1:1"
NOWHERE = {f"MARKET_DATA__PROVIDERS__{name}__{key}": value
           for name in ("BINANCE", "YAHOO", "POLYGON")
           for key, value in (("REST_URL", NOBODY), ("MAX_RETRIES", "0"))}  # fmt: skip


def run(*arguments: str, tmp_path: Path, **more: Any) -> Result:
    environ = NOWHERE | {"MARKET_DATA__PROVIDERS__BINANCE__SPOT_REST_URL": NOBODY, "COLUMNS": "160"} | more
    return CliRunner().invoke(app, ["--data-dir", str(tmp_path), *arguments], env={"DATABASE_URL": None} | environ)


def states(result: Result) -> dict[str, str]:
    return {row["provider"]: row["state"] for row in json.loads(result.stdout)}


def test_who_is_left_alone_is_shown_and_not_asked(database_url: str, database: Database, tmp_path: Path) -> None:
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO channels (name, banned_until, ban, failures, fault, failed_at, rests_until) VALUES "
            "('binance', now() + interval '1 hour', 'way too many requests', 0, '', NULL, NULL), "
            "('binance:archive', NULL, '', 3, 'the archive answered 503', now(), now() + interval '5 minutes'), "
            "('yahoo', NULL, '', 1, 'once', now(), NULL)"
        )
    found = states(run("--database-url", database_url, "providers", "--json", tmp_path=tmp_path))
    assert "RateLimited: binance is not asked before" in found["binance"]
    assert "as it was told: way too many requests" in found["binance"]
    table = run("--database-url", database_url, "providers", "--no-check", tmp_path=tmp_path).stdout
    assert "Left alone" in table
    lines = {words[0]: " ".join(words[1:]) for line in table.splitlines() if (words := line.split())}
    assert "way too many requests" in lines["binance"] or "way too many requests" in table
    assert "open" in lines["binance:archive"]
    assert "the archive answered 503" in lines["binance:archive"]


@pytest.mark.parametrize("url", [None, "postgresql://127.0.0.1:1/none"])
def test_without_a_database_the_sources_are_asked_all_the_same(url: str | None, tmp_path: Path) -> None:
    found = states(run("providers", "--json", tmp_path=tmp_path, **({"DATABASE_URL": url} if url else {})))
    assert "ConnectionLost" in found["binance"]
    assert not list(tmp_path.iterdir()), "nor is one made for them"
