"""The premium index from the sandbox into the database: archive and REST are one series; again, nothing changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from market_data.bootstrap import open_app
from market_data.config import load_settings
from market_data.model.dataset import PREMIUM_INDEX
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import TimeRange
from market_data.sandbox import Sandbox

NOW = datetime(2026, 11, 20, 18, 30, 15, tzinfo=UTC)
SPAN = TimeRange(datetime(2026, 9, 28, tzinfo=UTC), NOW)
BTC = Instrument("BTC", AssetClass.CRYPTO)
FIVE = timedelta(minutes=5)
BY_SOURCE = (
    "SELECT source, count(*) AS rows, count(DISTINCT timestamp) AS moments FROM premium_index GROUP BY 1 ORDER BY 1"
)


async def test_archive_and_rest_are_one_series_and_a_second_time_changes_nothing(database_url: str) -> None:
    with Sandbox(now=NOW, limits=False) as sandbox:
        values = {"database.url": database_url, "providers.binance.archive_from_candles": 1000, **sandbox.urls}
        settings = load_settings(environ={}, overrides={name: (value, "the test") for name, value in values.items()})
        with open_app(settings, clock=lambda: NOW) as app:
            try:
                first = await app.collector.collect(PREMIUM_INDEX, BTC, SPAN)
                again = await app.collector.collect(PREMIUM_INDEX, BTC, SPAN)
            finally:
                await app.disconnect()
            stored = app.database.rows(BY_SOURCE)
            (extremes,) = app.database.rows(
                "SELECT min(timestamp) AS first, max(timestamp) AS last, bool_and(known_at = timestamp) AS on_time, "
                "min(value) AS low, max(value) AS high FROM premium_index"
            )
    expected = (SPAN.end - SPAN.start) // FIVE + 1
    assert (first.error, first.counts.inserted, first.sources) == (None, expected, ["binance:archive", "binance"])
    assert (again.error, again.counts.inserted, again.counts.updated, again.counts.unchanged) == (None, 0, 0, expected)
    assert [row["source"] for row in stored] == ["binance", "binance:archive"]
    assert sum(row["rows"] for row in stored) == sum(row["moments"] for row in stored) == expected
    assert (extremes["first"], extremes["last"]) == (SPAN.start, NOW.replace(second=0))
    assert extremes["on_time"]
    assert extremes["low"] < 0 < extremes["high"]
