"""Recorded trades by the archive and by the interface: the same table, without a gap, and bars as others made them."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import polars as pl
import pytest

from asking_sources import asking
from market_data.bootstrap.shelves import open_shelves
from market_data.model.bars import Cut
from market_data.model.dataset import CANDLES, TRADES
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.fetch.facts import Collected, Collector
from market_data.pipeline.read.bars import bars
from market_data.pipeline.write.ingest import Batch, Purpose, ingest
from market_data.providers.binance import Binance, BinanceSettings
from market_data.storage.facts.ticks import missing_numbers
from market_data.storage.server.database import Database
from market_data.transport.http import Http
from market_data.transport.senders import HttpxSender

XRP = Instrument("XRP", AssetClass.CRYPTO)
SPAN = TimeRange(datetime(2019, 10, 11, tzinfo=UTC), datetime(2019, 10, 13, 12, tzinfo=UTC))
PAIR = {"symbol": "XRPUSDT", "status": "TRADING", "baseAsset": "XRP", "quoteAsset": "USDT"}
VALUES = ("open", "high", "low", "close", "volume")


class Spot:
    """Binance's spot market and its archive with the recorded trades; the futures host refuses our location."""

    def __init__(self, trades: pl.DataFrame, most: int) -> None:
        self.most = most
        self.asked: list[str] = []
        self.rows = [
            {"a": int(number), "p": repr(price), "q": repr(amount), "f": 1, "l": 1, "T": at, "m": side == "sell"}
            for at, number, side, price, amount in trades.select(
                "timestamp", "id", "side", "price", "amount"
            ).iter_rows()
        ]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path, params = request.url.path, request.url.params
        self.asked.append(path)
        if "/fapi/" in path:
            return httpx.Response(451, json={"code": 0, "msg": "Service unavailable from a restricted location"})
        if path.endswith("/exchangeInfo"):
            return httpx.Response(200, json={"rateLimits": [], "symbols": [PAIR]})
        if path.startswith("/data/spot/daily/aggTrades/"):
            return self.file(path)
        if "fromId" in params:
            found = [row for row in self.rows if row["a"] >= int(params["fromId"])]
        else:
            found = [row for row in self.rows if int(params["startTime"]) <= row["T"] <= int(params["endTime"])]
        return httpx.Response(200, json=found[: min(self.most, int(params["limit"]))])

    def file(self, path: str) -> httpx.Response:
        name = path.removesuffix(".CHECKSUM")
        day = datetime.fromisoformat(name[-14:-4]).replace(tzinfo=UTC)
        start = int(day.timestamp()) * 1000
        lines = "".join(
            f"{row['a']},{row['p']},{row['q']},1,1,{row['T']},{row['m']},True\n"
            for row in self.rows
            if start <= row["T"] < start + 86_400_000
        )
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("trades.csv", lines)
        if path != name:
            return httpx.Response(200, text=f"{hashlib.sha256(packed.getvalue()).hexdigest()}  x.zip\n")
        return httpx.Response(200, content=packed.getvalue())


@pytest.fixture
def market(recordings: Path) -> Callable[[int], Spot]:
    trades = pl.read_ipc(recordings / "freqtrade" / "XRP_ETH-trades.feather")
    assert trades.height == 12_477
    return lambda most: Spot(trades, most)


async def collect(database: Database, spot: Spot, *, archive: bool, span: TimeRange = SPAN) -> Collected:
    settings = BinanceSettings(requests_per_minute=10**6, max_retries=0, use_archive=archive)
    binance = Binance(settings, Http("binance", settings, sender=HttpxSender(httpx.MockTransport(spot))))
    now = datetime(2019, 11, 1, tzinfo=UTC)
    collector = Collector(asking(database, {AssetClass.CRYPTO: [binance]}, lambda: now), open_shelves())
    return await collector.collect(TRADES, XRP, span)


def stored(database: Database) -> list[dict[str, Any]]:
    return database.rows("SELECT * FROM trades ORDER BY contract_id, day, number")


async def test_the_archive_and_the_interface_tell_the_same_trades(
    database: Database, market: Callable[[int], Spot]
) -> None:
    by_file = await collect(database, market(1000), archive=True)
    assert (by_file.error, by_file.counts.inserted) == (None, 12_477)
    from_archive = stored(database)
    assert missing_numbers(database, XRP, SPAN).is_empty()
    # The same again, by the other door, with pages shorter than asked for: not one row is written.
    spot = market(700)
    by_rest = await collect(database, spot, archive=False)
    assert not any("/data/" in path for path in spot.asked)
    assert (by_rest.error, by_rest.counts.unchanged, by_rest.counts.inserted) == (None, 12_477, 0)
    with database.transaction() as connection:
        connection.execute("TRUNCATE trades")
    alone = await collect(database, market(1000), archive=False)
    assert alone.counts.inserted == 12_477
    assert stored(database) == from_archive


async def test_trades_that_are_left_out_make_a_backfill_incomplete_until_they_come(
    database: Database, market: Callable[[int], Spot]
) -> None:
    spot = market(1000)
    lost = spot.rows[5000:5003]
    del spot.rows[5000:5003]
    first = await collect(database, spot, archive=False)
    assert first.counts.inserted == 12_474
    assert str(first.error).startswith(
        f"3 trades of XRP (crypto) are missing, numbers {lost[0]['a']} to {lost[2]['a']} ("
    )
    again = await collect(database, market(1000), archive=False)
    assert (again.error, again.counts.inserted, again.counts.unchanged) == (None, 3, 12_474)


async def test_bars_of_the_stored_trades_are_those_that_others_made(
    database: Database, market: Callable[[int], Spot], recordings: Path
) -> None:
    await collect(database, market(1000), archive=True)
    for length, name, count in ((timedelta(minutes=1), "1m", 2469), (timedelta(minutes=5), "5m", 706)):
        recorded = pl.read_ipc(recordings / "freqtrade" / f"XRP_ETH-{name}.feather")
        exact = recorded.select(
            pl.col("date").cast(pl.Datetime("us", "UTC")).alias("timestamp"),
            *(
                pl.Series(each, [Decimal(repr(value)) for value in recorded[each]], CANDLES.schema[each])
                for each in VALUES
            ),
        )
        made = pl.concat(bars(database, XRP, SPAN, Cut(every=length)))
        assert made.height == count
        assert made.select("timestamp", *VALUES).equals(exact)
        # Wherever the range was cut.
        middle = TimeRange(SPAN.start + timedelta(hours=7, minutes=3), SPAN.start + timedelta(hours=30))
        cut = made.filter(pl.col("timestamp").is_between(middle.start, middle.end, closed="left"))
        assert pl.concat(bars(database, XRP, middle, Cut(every=length))).equals(cut)


async def test_minutes_the_trades_make_are_held_against_the_stored_ones(
    database: Database, market: Callable[[int], Spot], recordings: Path
) -> None:
    span = TimeRange(SPAN.start, SPAN.start + timedelta(hours=6))
    recorded = pl.read_ipc(recordings / "freqtrade" / "XRP_ETH-1m.feather").rename({"date": "timestamp"})
    minutes = CANDLES.conform(
        recorded.with_columns(
            pl.col("timestamp").cast(pl.Datetime("us", "UTC")),
            *(
                pl.Series(each, [Decimal(repr(value)) for value in recorded[each]], CANDLES.schema[each])
                for each in VALUES
            ),
        ).filter(pl.col("timestamp") < span.end)
    )
    # One of them is told otherwise by the source's candles.
    wrong = minutes.with_columns(
        volume=pl.when(pl.int_range(pl.len()) == 7).then(pl.col("volume") + 1).otherwise("volume")
    )
    now = datetime(2019, 11, 1, tzinfo=UTC)
    batch = Batch(
        series=Series(XRP, Timeframe.M1), frame=wrong, source="binance", fetched_at=now, requested_at=now, span=span,
        response_ms=1.0, quota_remaining=None,
    )  # fmt: skip
    ingest(database, open_shelves(), batch, Purpose(run_id=uuid4(), span=span), lambda: now)
    collected = await collect(database, market(1000), archive=True, span=span)
    assert collected.error is None
    # Of the last minute more trades may come.
    told = f"{minutes.height - 1:,} stored minutes held against those the trades make: 1 values differ"
    assert collected.notes == [told]
    (doubt,) = database.rows("SELECT timestamp, field, source_a, value_a, source_b, value_b FROM disagreements")
    right = minutes.row(7, named=True)
    assert doubt == {
        "timestamp": right["timestamp"], "field": "volume", "source_a": "binance", "value_a": right["volume"] + 1,
        "source_b": "binance:trades", "value_b": right["volume"],
    }  # fmt: skip
