"""Series that close together: eight statements for one candle, one transaction for all, and the bits of one by one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import polars as pl
import psycopg
import pytest
from history_desk import Desk, state
from polars.testing import assert_frame_equal
from psycopg import sql

from market_data.model.dataset import CANDLES, DATASETS, UTC_MICROS
from market_data.model.errors import UsageError
from market_data.model.feature import Feature, feature
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.session import grid
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.model.window import Window
from market_data.pipeline.write.derive import Shelves
from market_data.pipeline.write.ingest import Batch, Purpose, ingest
from market_data.pipeline.write.observe import OBSERVED_SPANS
from market_data.pipeline.write.together import Offer, ingest_batch, ingest_together
from market_data.storage.facts.append import Provenance, append
from market_data.storage.series.present import Counts
from market_data.storage.server.database import Database
from market_data.storage.server.embedded import EmbeddedServer

START, NOW = datetime(2025, 2, 27, tzinfo=UTC), datetime(2025, 3, 3, 20, tzinfo=UTC)
BTC, ACME = Instrument("BTC", AssetClass.CRYPTO), Instrument("ACME", AssetClass.STOCK)
SERIES = [
    *(Series(BTC, timeframe) for timeframe in (Timeframe.M30, Timeframe.H1, Timeframe.H4)),
    Series(Instrument("ETH", AssetClass.CRYPTO), Timeframe.H1),
    Series(ACME, Timeframe.M30),
    Series(ACME, Timeframe.H1),
]


def candles(series: Series) -> pl.DataFrame:
    """A walk in cents over all closed candles of some days."""
    expected = grid(series.asset_class, series.timeframe, TimeRange(START, NOW)).closed_by(NOW)
    rng = np.random.default_rng([ord(letter) for letter in str(series)])
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, len(expected))))
    rows = [
        {
            "timestamp": moment,
            "open": Decimal(f"{price:.2f}"),
            "high": Decimal(f"{price + 1:.2f}"),
            "low": Decimal(f"{price - 1:.2f}"),
            "close": Decimal(f"{price:.2f}"),
            "volume": Decimal(f"{volume:.3f}"),
            "taker_buy_volume": Decimal(f"{volume / 3:.3f}") if series.asset_class is AssetClass.CRYPTO else None,
        }
        for moment, price, volume in zip(
            pl.Series(expected.opens).cast(UTC_MICROS), close, rng.uniform(1, 9, len(close)), strict=True
        )
    ]
    return CANDLES.conform(pl.DataFrame(rows))


def offer(series: Series, rows: pl.DataFrame, now: datetime, source: str = "binance") -> Offer:
    span = TimeRange(rows["timestamp"][0], rows["timestamp"][-1] + series.timeframe.duration)
    batch = Batch(
        series=series,
        frame=rows,
        source=source,
        fetched_at=now,
        requested_at=now,
        span=span,
        response_ms=1.0,
        quota_remaining=None,
    )
    return Offer(batch, Purpose(run_id=uuid5(NAMESPACE_OID, f"{series} {span.start}"), span=span))


def observe(database: Database, now: datetime) -> None:
    """Half-hourly values of every dataset that candles are derived from, known ten seconds later."""
    moments = [START + timedelta(minutes=30) * step for step in range(200)]
    said: dict[str, dict[str, Any]] = {
        "funding_rates": {"rate": Decimal("0.0001"), "rate_type": "Regular"},
        "open_interest": {"value": Decimal(5000)},
        "liquidations": {"side": "long", "price": Decimal(100), "size": Decimal(2)},
        "long_short_ratios": {"kind": "global_accounts", "ratio": Decimal("1.5")},
        "spot_flow": {"period": "30m", "buy_quote": Decimal(70), "sell_quote": Decimal(60)},
    }
    assert set(OBSERVED_SPANS) < set(said)
    for name, values in said.items():
        rows = [
            {"timestamp": at, "known_at": at + timedelta(seconds=10), "liquidation_id": str(at), **values}
            for at in moments
        ]
        with database.transaction() as connection:
            origin = Provenance(source="binance", now=now, run_id=uuid5(NAMESPACE_OID, name))
            append(connection, database, DATASETS[name], BTC, DATASETS[name].conform(pl.DataFrame(rows)), origin)


def content(database: Database) -> dict[str, list[str]]:
    """All tables, without how long computing took."""
    logs = database.rows(
        "SELECT (to_jsonb(l) - 'id' - 'computation_time_ms')::text AS row FROM enrichment_compute_log l UNION ALL "
        "SELECT (to_jsonb(l) - 'id')::text FROM enrichment_fetch_log l UNION ALL "
        "SELECT (to_jsonb(b) - 'id')::text FROM backfill_state b"
    )
    return state(database) | {"logs": sorted(row["row"] for row in logs)}


class Rounds:
    """Everything but the last candles stored, then those close, all at one moment or one series after the other."""

    def __init__(self, database: Database, shelves: Shelves, closing: int) -> None:
        self.database, self.shelves, self.now = database, shelves, NOW
        observe(database, NOW)
        self.rows = {series: candles(series) for series in SERIES}
        for series, rows in self.rows.items():
            first = offer(series, rows[:-closing], NOW)
            ingest(database, shelves, first.batch, first.purpose, lambda: NOW)
        self.closing = [
            [offer(series, rows[rows.height - closing + step :][:1], NOW) for series, rows in self.rows.items()]
            for step in range(closing)
        ]

    def clock(self) -> datetime:
        return self.now


def test_together_and_one_by_one_store_the_same(database: Database, shelves: Shelves) -> None:
    rounds = Rounds(database, shelves, 3)
    tables = ("candles", "market_data_v2", "coverage", "series_moments", "data_quality_metrics", "backfill_state",
              "enrichment_fetch_log", "enrichment_compute_log")  # fmt: skip
    for table in tables:
        database.rows(f"CREATE TABLE kept_{table} AS SELECT * FROM {table}")
    for offers in rounds.closing:
        rounds.now += timedelta(minutes=1)
        for each in offers:
            ingest(database, shelves, each.batch, each.purpose, rounds.clock)
    expected = content(database)
    for table in tables:
        columns = ", ".join(row["column_name"] for row in database.rows(
            "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND is_identity = 'NO' "
            "AND table_schema = 'public'", [table]))  # fmt: skip
        database.rows(f"TRUNCATE {table}")
        database.rows(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM kept_{table}")
    rounds.now = NOW
    for offers in rounds.closing:
        rounds.now += timedelta(minutes=1)
        outcomes = ingest_together(database, shelves, offers, rounds.clock)
        assert [getattr(each, "counts", each) for each in outcomes] == [Counts(inserted=1)] * len(SERIES)
    found = content(database)
    assert {name: len(rows) for name, rows in found.items()} == {name: len(rows) for name, rows in expected.items()}
    assert found == expected


def test_corrections_and_repetitions_take_the_longer_way(database: Database, shelves: Shelves) -> None:
    rounds = Rounds(database, shelves, 1)
    (offers,) = rounds.closing
    again = offer(SERIES[0], rounds.rows[SERIES[0]][-4:-2], NOW)
    amended = rounds.rows[SERIES[1]][-3:-2].with_columns(close=pl.col("high"))
    rounds.now += timedelta(minutes=1)
    found = ingest_together(database, shelves, [again, offer(SERIES[1], amended, NOW), *offers[2:]], rounds.clock)
    counts = [getattr(each, "counts", each) for each in found]
    assert counts == [Counts(unchanged=2), Counts(updated=1), *[Counts(inserted=1)] * 4]
    # As a run without a start does: the tail that is stored, then what is new.
    tail = offer(SERIES[0], rounds.rows[SERIES[0]][-6:], NOW)
    assert ingest_batch(database, shelves, tail.batch, tail.purpose, rounds.clock).counts == Counts(
        inserted=1, unchanged=5
    )
    for series in SERIES[:2]:
        desk = Desk(database, shelves, series)
        known = desk.known(rounds.now).drop("computed_at", "updated_at")
        assert_frame_equal(known, desk.present().drop("computed_at", "updated_at"), check_exact=True)


def test_a_series_that_fails_is_left_out_alone(
    new_desk: Callable[..., Desk], database: Database, shelves: Shelves
) -> None:
    def breaks(window: Window) -> Any:
        if window.series.symbol == "ETH":
            raise ValueError("broken on purpose")
        return window.close

    declared: Feature = feature(lookback=0, inputs=("close",), unit="price")(with_docs(breaks))
    rounds = Rounds(database, shelves, 1)
    (offers,) = rounds.closing
    rounds.now += timedelta(minutes=1)
    broken = replace(shelves, features=(*shelves.features, replace(declared, name="sma_20")))
    broken = replace(broken, features=tuple({each.name: each for each in broken.features}.values()))
    found = ingest_together(database, broken, offers, rounds.clock)
    counts = [getattr(each, "counts", each) for each in found]
    assert isinstance(counts.pop(3), ValueError)
    assert counts == [Counts(inserted=1)] * 5
    assert new_desk(database, SERIES[3]).present().height == rounds.rows[SERIES[3]].height - 1
    (failed,) = database.rows("SELECT symbol, error_details FROM enrichment_compute_log WHERE NOT success")
    assert (failed["symbol"], "broken on purpose" in failed["error_details"]) == ("ETH", True)


def with_docs(function: Any) -> Any:
    function.__doc__ = "Breaks.\n\nFormula: none.\nNull: never.\nSource: a test."
    return function


def test_two_batches_of_one_series_are_refused(database: Database, shelves: Shelves) -> None:
    one = offer(SERIES[0], candles(SERIES[0])[:1], NOW)
    with pytest.raises(UsageError, match="different series"):
        ingest_together(database, shelves, [one, one], lambda: NOW)
    assert ingest_together(database, shelves, [], lambda: NOW) == []


def test_at_most_eight_statements(postgres: EmbeddedServer, database_url: str, shelves: Shelves) -> None:
    """By the server's own log: everything it was asked, reads, writes and the ends of the transaction."""
    with Database.open(database_url, None) as database:
        rounds = Rounds(database, shelves, 3)
        # The first one looks at the tables and partitions.
        ingest_together(database, shelves, rounds.closing[0], rounds.clock)
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    with psycopg.connect(postgres.conninfo(), autocommit=True, dbname="postgres") as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} SET log_statement = 'all'").format(sql.Identifier(str(name))))
    with Database.open(database_url, None) as database:
        ingest_together(database, shelves, rounds.closing[1], rounds.clock)
        rounds.now += timedelta(minutes=1)
        for offers in ([rounds.closing[2][0]], [rounds.closing[2][4]], rounds.closing[2][1:4]):
            statements = told(postgres, database, lambda group=offers: ingest_together(  # type: ignore[misc]
                database, shelves, group, rounds.clock))  # fmt: skip
            assert len(statements) <= 8, "\n".join(statement[:120] for statement in statements)


def told(postgres: EmbeddedServer, database: Database, act: Callable[[], Any]) -> list[str]:
    """What the server logged of this database's own statements meanwhile."""
    before = postgres.log_file.stat().st_size
    act()
    database.rows("SELECT 'the end of this part'")
    text = postgres.log_file.read_bytes()[before:].decode()
    lines = re.findall(r"LOG:  (?:statement|execute [^:]*): (.*)", text)
    # What a new connection of the pool is set to has nothing to do with the candle.
    found = [line for line in lines if not line.startswith("SET ")]
    # The pool asks a connection whether it is alive before it hands it out: so it did for the last query, too.
    return found[: next(place for place, line in enumerate(found) if "the end of this part" in line) - 1]
