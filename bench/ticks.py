"""Trades through the rules into their table, against a binary COPY of the same bytes into a table with the same key."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import numpy as np
import polars as pl
import psycopg

from bench.figures import RUNS, Figure, side_by_side
from market_data.bootstrap.shelves import open_shelves
from market_data.model.contract import Contract
from market_data.model.dataset import TRADES
from market_data.model.instrument import AssetClass, Instrument, Kind
from market_data.model.timeframe import TimeRange
from market_data.pipeline.write.validate import validate_facts
from market_data.storage.facts.append import Provenance, append, prepare_fact_partitions
from market_data.storage.server import migrate
from market_data.storage.server.database import Database

ROWS = int(os.environ.get("TRADES", "400000"))
# As many as a block of an archive's file holds.
PAGE = 200_000
DAY = datetime(2024, 3, 4, tzinfo=UTC)
BTC = Instrument("BTC", AssetClass.CRYPTO)
CONTRACT = Contract(
    venue="BINANCE",
    market="usdm",
    raw_symbol="BTCUSDT",
    kind=Kind.PERPETUAL,
    base="BTC",
    quote="USDT",
    settlement="USDT",
)
COLUMNS = "contract_id, day, number, timestamp, price, size, aggressor_side"


def measure() -> Iterator[Figure]:
    """The figure of CONTRACT §12 about trades."""
    with tempfile.TemporaryDirectory(prefix="bench") as folder, Database.open(None, Path(folder)) as database:
        migrate.upgrade(database)
        yield from Bench(database).figures()


def trades(count: int) -> pl.DataFrame:
    """A normalised day of trades: prices that wander in tenths, sizes of a few digits, both sides."""
    random = np.random.default_rng(7)
    price = 600_000 + random.integers(-5, 6, count).cumsum()
    micros = np.sort(random.integers(0, 86_400_000_000, count))
    start = int(DAY.timestamp()) * 1_000_000
    return TRADES.conform(
        pl.DataFrame(
            {
                "timestamp": pl.Series(start + micros).cast(pl.Datetime("us", "UTC")),
                "trade_id": pl.Series(np.arange(2_000_000_000, 2_000_000_000 + count)).cast(pl.String),
                "price": pl.Series(price).cast(pl.Decimal(38, 18)) / Decimal(10),
                "size": pl.Series(random.integers(1, 5000, count)).cast(pl.Decimal(38, 18)) / Decimal(1000),
                "aggressor_side": pl.Series(random.integers(0, 2, count) == 1).replace_strict(
                    {True: "buy", False: "sell"}
                ),
            }
        )
    )


class Bench:
    """A fresh database with a day's partition, and the peer's table beside it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.rules = open_shelves().reference_rules
        whole = trades(ROWS)
        self.pages = [whole.slice(start, PAGE) for start in range(0, ROWS, PAGE)]
        prepare_fact_partitions(database, TRADES, TimeRange(DAY, DAY + timedelta(days=1)))
        with database.transaction() as connection:
            connection.execute(
                f"CREATE TABLE peer (LIKE trades_d{DAY:%Y%m%d} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
            )
            connection.execute("ALTER TABLE peer ADD PRIMARY KEY (contract_id, day, number)")
        self.load()
        with database.transaction() as connection, connection.cursor() as cursor:
            statement = f"COPY (SELECT {COLUMNS} FROM trades) TO STDOUT (FORMAT BINARY)"
            with cursor.copy(statement) as copy:
                sent = b"".join(bytes(part) for part in copy)
        self.raw = [sent[start : start + 2**18] for start in range(0, len(sent), 2**18)]

    def load(self) -> None:
        """Normalised pages through the rules to commit, a transaction each."""
        for page in self.pages:
            accepted = validate_facts(TRADES, page, self.rules).accepted
            with self.database.transaction() as connection:
                origin = Provenance(source="binance", now=DAY, run_id=uuid4(), contract=CONTRACT)
                append(connection, self.database, TRADES, BTC, accepted, origin)

    def copy(self) -> None:
        """What the server can take: the same rows, encoded already, in one transaction."""
        with (
            self.database.transaction() as connection,
            connection.cursor() as cursor,
            cursor.copy(f"COPY peer ({COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy,
        ):
            for part in self.raw:
                copy.write(part)

    def empty(self, _: str = "") -> None:
        """No rows, and nothing left over for the next run to pay."""
        with self.database.transaction() as connection:
            connection.execute(f"TRUNCATE trades_d{DAY:%Y%m%d}, peer")
        with psycopg.connect(self.database.conninfo(), autocommit=True) as connection:
            connection.execute("CHECKPOINT")

    def figures(self) -> Iterator[Figure]:
        """First load against COPY, in turns; then the identical load again."""
        took = side_by_side({"copy": self.copy, "load": self.load}, before=self.empty)
        self.empty()
        self.load()
        before = self._written()
        begun = time.perf_counter()
        self.load()
        again = time.perf_counter() - begun
        rewritten = self._written() - before
        (size,) = self.database.rows(f"SELECT pg_total_relation_size('trades_d{DAY:%Y%m%d}') AS bytes")
        yield Figure(
            name="trades_load_vs_copy", value=took["copy"] / took["load"], unit="ratio", target=">= 0.6, goal 0.8",
            peer="binary COPY of the same bytes into a table with the same key",
            detail=f"{ROWS:,} trades, medians of {RUNS} in turns: "
            + ", ".join(f"{name} {ROWS / seconds / 1000:.0f} k rows/s" for name, seconds in took.items())
            + f"; identical re-load {ROWS / again / 1000:.0f} k rows/s, {rewritten} rows written; "
            f"{size['bytes'] / ROWS:.0f} bytes a row with its key",
        )  # fmt: skip

    def _written(self) -> int:
        with self.database.transaction() as connection:
            connection.execute("SELECT pg_stat_force_next_flush()")
        time.sleep(1.1)
        (row,) = self.database.rows(
            "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint AS n FROM pg_stat_user_tables "
            "WHERE relname ~ '^(trades_d|data_corrections)'"
        )
        return int(row["n"])
