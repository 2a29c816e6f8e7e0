"""Storage against PostgreSQL's own binary COPY of the same rows, and against what users would otherwise do."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import polars as pl
import psycopg

from bench.figures import RUNS, Figure, interval, side_by_side
from bench.rows import ORIGIN, minutes
from market_data.bootstrap.shelves import open_shelves
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.write import ingest as story
from market_data.pipeline.write.normalise import normalise
from market_data.pipeline.write.ripple import Ripple
from market_data.pipeline.write.validate import validate
from market_data.storage.series import present as upsert
from market_data.storage.series.reader import Reader
from market_data.storage.series.verdict import classify
from market_data.storage.server import migrate
from market_data.storage.server.database import Database

ROWS = 30_000
READ_ROWS = 100_000
SLOW_ROWS = 2_000
BTC = Series(Instrument("BTC", AssetClass.CRYPTO), Timeframe.M1)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
TABLES = ("candles", "market_data_v2")
LEDGERS = ("coverage", "data_corrections", "disagreements", "series_moments", "enrichment_fetch_log", "runs")


def measure() -> Iterator[Figure]:
    """The figures of CONTRACT §11 that are about storage."""
    with tempfile.TemporaryDirectory(prefix="bench") as folder, Database.open(None, Path(folder)) as database:
        migrate.upgrade(database)
        bench = Bench(database)
        yield from bench.loads()
        yield bench.against_executemany()
        yield bench.ripple()
        yield bench.bulk_read()


class Bench:
    """A fresh database with rows to write into it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.shelves = open_shelves()
        self.page = minutes(ROWS)
        self.span = TimeRange(ORIGIN, ORIGIN + ROWS * timedelta(minutes=1))
        self.origin = upsert.Origin(source="binance", fetched_at=NOW, now=NOW, run_id=uuid4(), actor="bench")
        batch = self.batch(self.page)
        rows = validate(BTC, normalise(BTC, self.page).drop("first_of_timestamp"), self.shelves.rules).accepted
        self.accepted = story.scored(batch, rows)
        judged = classify(self.accepted, Reader(database).newest_facts(BTC, self.span), "binance")
        touched = list(Ripple(Reader(database), self.shelves, BTC, judged, judged["timestamp"].clear()))
        self.derived = pl.concat([part.own for part in touched])
        # The rows of both tables as COPY sends them, taken from what our own write stored.
        self.ingest(self.page)
        self.raw = {table: self.drained(table) for table in TABLES}

    def batch(self, page: pl.DataFrame) -> story.Batch:
        """A page as fetched."""
        return story.Batch(
            series=BTC, frame=page, source="binance", fetched_at=NOW, requested_at=NOW, span=self.span,
            response_ms=1.0, quota_remaining=None,
        )  # fmt: skip

    def ingest(self, page: pl.DataFrame) -> story.Outcome:
        """The whole story of a batch: checks, features, all tables, one transaction."""
        purpose = story.Purpose(run_id=uuid4(), span=self.span)
        return story.ingest(self.database, self.shelves, self.batch(page), purpose, lambda: NOW)

    def write_enriched(self) -> None:
        """Enriched rows through the write rules: judge them against what is stored, then write them."""
        upsert.prepare_partitions(self.database, self.span)
        with self.database.transaction() as connection:
            upsert.lock_series(connection, BTC)
            facts = Reader(self.database).newest_facts(BTC, self.span)
            judged = classify(self.accepted, facts, "binance")
            upsert.write(connection, BTC, judged, self.derived, self.origin)

    def drained(self, table: str) -> tuple[str, list[bytes]]:
        """COPY's own bytes of a table, with its columns."""
        with self.database.transaction() as connection, connection.cursor() as cursor:
            names = cursor.execute(f"SELECT * FROM {table} LIMIT 0").description or []
            columns = ", ".join(column.name for column in names if column.name != "id")
            with cursor.copy(f"COPY (SELECT {columns} FROM {table}) TO STDOUT (FORMAT BINARY)") as copy:
                whole = b"".join(bytes(part) for part in copy)
        return columns, [whole[start : start + 2**18] for start in range(0, len(whole), 2**18)]

    def copy(self, *tables: str) -> None:
        """A binary COPY of the same rows into the same tables, already encoded: what the server can take."""
        with self.database.transaction() as connection, connection.cursor() as cursor:
            for table in tables:
                columns, parts = self.raw[table]
                with cursor.copy(f"COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)") as copy:
                    for part in parts:
                        copy.write(part)

    def copy_beside(self) -> None:
        """The same COPY into the empty tables of `loads`, which are no partitions."""
        with self.database.transaction() as connection, connection.cursor() as cursor:
            for table in TABLES:
                cursor.execute(f"TRUNCATE beside_{table}")
                columns, parts = self.raw[table]
                with cursor.copy(f"COPY beside_{table} ({columns}) FROM STDIN (FORMAT BINARY)") as copy:
                    for part in parts:
                        copy.write(part)

    def empty(self, _: str = "") -> None:
        """No rows, and nothing left over for a later run to pay."""
        with self.database.transaction() as connection:
            connection.execute(f"TRUNCATE {', '.join((*TABLES, *LEDGERS))}")
        self.settle()

    def settle(self) -> None:
        """Write out what earlier runs left in memory."""
        with psycopg.connect(self.database.conninfo(), autocommit=True) as connection:
            connection.execute("CHECKPOINT")

    def loads(self) -> Iterator[Figure]:
        """First load and identical re-load against COPY."""
        loaded = side_by_side(
            {
                "copy": lambda: self.copy(*TABLES),
                "present only": lambda: self.copy("market_data_v2"),
                "write": self.write_enriched,
                "ingest": lambda: self.ingest(self.page),
            },
            before=self.empty,
        )
        detail = f"{ROWS} enriched rows into candles and market_data_v2, medians of {RUNS}; " + ", ".join(
            f"{name} {ROWS / seconds / 1000:.0f} k rows/s" for name, seconds in loaded.items()
        )
        peer = "binary COPY of the same bytes into the same tables"
        value, spread = loaded.ratio("copy", "write")
        yield Figure(name="upsert_vs_copy", value=value, unit="ratio", target=">= 0.8", peer=peer, spread=spread,
                     detail=detail)  # fmt: skip
        self.empty()
        self.ingest(self.page)
        before = self.written()
        # COPY cannot load what is there: it goes into tables of the same shape beside them.
        with self.database.transaction() as connection:
            for table in TABLES:
                connection.execute(f"CREATE TABLE beside_{table} (LIKE {table} INCLUDING ALL)")
        reload = side_by_side(
            {"copy": self.copy_beside, "reload": lambda: self.ingest(self.page)}, before=lambda _: self.settle()
        )
        value, spread = reload.ratio("copy", "reload")
        yield Figure(
            name="reload_vs_copy", value=value, unit="ratio", target=">= 1", spread=spread,
            peer="binary COPY of the same bytes into tables of the same shape",
            detail=f"{ROWS / reload['reload'] / 1000:.0f} k rows/s through checks and write rules",
        )  # fmt: skip
        yield Figure(name="reload_rows_written", value=self.written() - before, unit="rows", target="0",
                     detail=f"pg_stat, {RUNS} re-loads of {ROWS} rows")  # fmt: skip

    def written(self) -> int:
        """Rows inserted, updated or deleted so far in the tables that hold data (logs of the runs apart)."""
        with self.database.transaction() as connection:
            connection.execute("SELECT pg_stat_force_next_flush()")
        time.sleep(1.1)
        (row,) = self.database.rows(
            "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint AS n FROM pg_stat_user_tables WHERE relname ~ "
            "'^(candles|market_data_v2|coverage|data_corrections|disagreements|series_moments|quarantine)'"
        )
        return int(row["n"])

    def against_executemany(self) -> Figure:
        """First load against SQLAlchemy's executemany and Polars' write_database, row for row into market_data_v2."""
        import sqlalchemy

        self.empty()
        self.ingest(self.page)
        frame = Reader(self.database).features(BTC, limit=SLOW_ROWS)
        engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(
            self.database.conninfo()
        ))  # fmt: skip
        names = ", ".join(frame.columns)
        values = ", ".join(f":{name}" for name in frame.columns)
        insert = sqlalchemy.text(f"INSERT INTO market_data_v2 ({names}) VALUES ({values}) ON CONFLICT DO NOTHING")

        def executemany() -> None:
            with engine.begin() as connection:
                connection.execute(insert, frame.to_dicts())

        # It cannot write decimals into numeric columns: it is given rounded doubles.
        rounded = frame.with_columns(
            pl.col(name).cast(pl.Float64) for name, kind in frame.schema.items() if kind.is_decimal()
        )
        slow = side_by_side(
            {
                "executemany": executemany,
                "write_database": lambda: rounded.write_database("market_data_v2", engine, if_table_exists="append"),
                "write": self.write_enriched,
            },
            before=self.empty,
        )
        engine.dispose()
        fast = slow.pop("write")
        rate = ROWS / fast
        ratios = [ratio * ROWS / SLOW_ROWS for ratio in slow.ratios("executemany", "write")]
        detail = f"ours {rate / 1000:.0f} k rows/s into both tables; " + ", ".join(
            f"{name} {SLOW_ROWS / seconds / 1000:.1f} k rows/s (x {rate * seconds / SLOW_ROWS:.1f})"
            for name, seconds in slow.items()
        )
        return Figure(name="upsert_vs_executemany", value=statistics.median(ratios), unit="x", spread=interval(ratios),
                      target="> 1", peer="SQLAlchemy executemany, DataFrame.write_database", detail=detail)  # fmt: skip

    def ripple(self) -> Figure:
        """One candle amended by its source at the oldest end of what is stored."""
        self.empty()
        self.ingest(self.page)
        taken, refreshed = [], 0
        for turn in range(RUNS):
            row = self.page[100 + turn].with_columns(volume=pl.col("volume") + 1)
            started = time.perf_counter()
            refreshed = self.ingest(row).refreshed
            taken.append((time.perf_counter() - started) * 1000)
        return Figure(name="correction_ripple_ms", value=statistics.median(taken), unit="ms", target="< 1000",
                      detail=f"one amended minute among {ROWS}; {refreshed} later rows recomputed")  # fmt: skip

    def bulk_read(self) -> Figure:
        """A frame of enriched candles against draining a binary COPY of the same query."""
        self.empty()
        page = minutes(READ_ROWS)
        for start in range(0, READ_ROWS, ROWS):
            self.ingest(page[start : start + ROWS])
        self.settle()
        seconds = side_by_side({"drain": self.drain, "read": lambda: Reader(self.database).features(BTC)}, runs=RUNS)
        self.empty()
        value, spread = seconds.ratio("drain", "read")
        return Figure(
            name="read_vs_copy", value=value, unit="ratio", target=">= 0.9", spread=spread,
            peer="draining a raw binary COPY of the same query",
            detail=f"{READ_ROWS} rows of market_data_v2: "
            + ", ".join(f"{name} {READ_ROWS / taken / 1000:.0f} k rows/s" for name, taken in seconds.items()),
        )  # fmt: skip

    def drain(self) -> int:
        """Reads the bytes and forgets them."""
        query = "SELECT * FROM market_data_v2 WHERE symbol = 'BTC' AND timeframe = '1m' ORDER BY timestamp"
        with (
            self.database.transaction() as connection,
            connection.cursor() as cursor,
            cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT BINARY)") as copy,
        ):
            return sum(len(part) for part in copy)
