"""Aggregation: exact sums, and equal to candles somebody else made of the same trades."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from market_data.model.aggregation import aggregate
from market_data.model.dataset import CANDLES
from market_data.model.instrument import AssetClass
from market_data.model.session import grid
from market_data.model.timeframe import Timeframe, TimeRange

RECORDINGS = Path(os.environ.get("MARKET_DATA_RECORDINGS", Path(__file__).parents[2] / "../shared/data"))
START = datetime(2025, 1, 6, tzinfo=UTC)
SPAN = TimeRange(START, START + timedelta(hours=1))


def minute(number: int, prices: str, volume: str, **more: object) -> dict[str, object]:
    opened, high, low, close = map(Decimal, prices.split())
    return {
        "timestamp": START + timedelta(minutes=number),
        "open": opened,
        "high": high,
        "low": low,
        "close": close,
        "volume": Decimal(volume),
        **more,
    }


def frame(*rows: dict[str, object]) -> pl.DataFrame:
    return CANDLES.conform(pl.from_dicts(list(rows), infer_schema_length=None))


def test_by_hand() -> None:
    parts = frame(
        minute(0, "10 12 9 11", "1.5", vwap=Decimal("10.5"), trade_count=2, notes="a"),
        minute(2, "11 15 10 14", "0.5", vwap=Decimal("12.5"), trade_count=3, notes="a"),
        minute(4, "14 14 8 9", "2", vwap=Decimal("9"), trade_count=5, notes="b"),
        minute(5, "9 10 9 10", "1", vwap=Decimal("9.5")),
        minute(7, "10 10 7 8", "0"),
    )
    made = aggregate(parts.reverse(), grid(AssetClass.CRYPTO, Timeframe.M5, SPAN))
    first, second = made.rows(named=True)
    assert first["timestamp"] == START
    assert [first[name] for name in ("open", "high", "low", "close", "volume")] == [10, 15, 8, 9, 4]
    # (10.5 × 1.5 + 12.5 × 0.5 + 9 × 2) / 4
    assert first["vwap"] == Decimal("10")
    assert first["trade_count"] == 10
    assert first["notes"] == "a; b"
    assert first["quote_volume"] is None
    # A part without volume needs no vwap, but its unknown count makes the whole unknown.
    assert (second["vwap"], second["trade_count"], second["low"]) == (Decimal("9.5"), None, 7)
    assert made.schema == CANDLES.schema


def test_one_unknown_vwap_makes_it_unknown() -> None:
    parts = frame(minute(0, "1 1 1 1", "1", vwap=Decimal(1)), minute(1, "1 1 1 1", "1"))
    assert aggregate(parts, grid(AssetClass.CRYPTO, Timeframe.M5, SPAN))["vwap"].to_list() == [None]


def test_extended_hours_are_left_out_and_the_last_candle_is_short() -> None:
    # 2024-11-29: the half day after Thanksgiving, 09:30 to 13:00 New York, 14:30 to 18:00 UTC.
    day = datetime(2024, 11, 29, tzinfo=UTC)
    rows = [
        minute(0, "1 1 1 1", "1") | {"timestamp": day + timedelta(minutes=number)} for number in range(9 * 60, 24 * 60)
    ]
    made = aggregate(frame(*rows), grid(AssetClass.STOCK, Timeframe.H1, TimeRange(day, day + timedelta(days=1))))
    assert [(moment.hour, moment.minute) for moment in made["timestamp"]] == [(14, 30), (15, 30), (16, 30), (17, 30)]
    assert made["volume"].to_list() == [60, 60, 60, 30]


def test_empty() -> None:
    made = aggregate(CANDLES.empty(), grid(AssetClass.CRYPTO, Timeframe.M5, SPAN))
    assert made.height == 0
    assert made.schema == CANDLES.schema
    outside = frame(minute(0, "1 1 1 1", "1"))
    nothing = grid(AssetClass.STOCK, Timeframe.M5, SPAN)
    assert len(nothing) == 0
    assert aggregate(outside, nothing).height == 0


def test_equal_to_recorded_five_minutes() -> None:
    folder = RECORDINGS / "freqtrade"
    if not folder.exists():
        pytest.skip(f"recording {folder} is absent (set MARKET_DATA_RECORDINGS)")
    minutes, fives = (exact(pl.read_ipc(folder / f"XRP_ETH-{size}.feather")) for size in ("1m", "5m"))
    span = TimeRange(fives["timestamp"].min(), fives["timestamp"].max() + timedelta(minutes=5))
    made = aggregate(minutes, grid(AssetClass.CRYPTO, Timeframe.M5, span))
    # Whole five minutes only: the recordings begin and end at different moments.
    inside = pl.col("timestamp").is_between(
        minutes["timestamp"].min() + timedelta(minutes=5), minutes["timestamp"].max() - timedelta(minutes=5)
    )
    columns = ["timestamp", "open", "high", "low", "close", "volume"]
    assert made.filter(inside).height > 100
    assert made.filter(inside).select(columns).equals(fives.filter(inside & (pl.col("volume") > 0)).select(columns))


def exact(recorded: pl.DataFrame) -> pl.DataFrame:
    """Through the shortest text of each float: the digits the exchange sent."""
    values = ("open", "high", "low", "close", "volume")
    texts = recorded.with_columns(pl.col(name).map_elements(repr, return_dtype=pl.String) for name in values)
    return CANDLES.conform(texts.rename({"date": "timestamp"}))


def test_a_candle_of_which_an_expected_part_is_absent_says_so() -> None:
    days = [START + timedelta(days=number) for number in range(14) if number != 2]
    rows = [minute(0, f"5 {number} 1 5", "10") | {"timestamp": day} for number, day in enumerate(days, start=6)]
    span = TimeRange(START, START + timedelta(days=14))
    weeks, parts = (grid(AssetClass.CRYPTO, timeframe, span) for timeframe in (Timeframe.W1, Timeframe.D1))
    first, second = aggregate(frame(*rows), weeks, parts).rows(named=True)
    assert (first["notes"], first["volume"]) == ("parts_unknown", 60)
    assert (second["notes"], second["volume"]) == (None, 70)
    kept = frame(*(row | {"notes": "delayed"} for row in rows))
    assert aggregate(kept, weeks, parts)["notes"].to_list() == ["delayed; parts_unknown", "delayed"]


def test_a_holiday_is_not_an_absent_part_and_an_odd_row_does_not_stand_in_for_one() -> None:
    # Thanksgiving week of 2024: sessions on Monday, Tuesday, Wednesday and Friday.
    span = TimeRange(datetime(2024, 11, 25, tzinfo=UTC), datetime(2024, 12, 2, tzinfo=UTC))
    week, parts = (grid(AssetClass.STOCK, timeframe, span) for timeframe in (Timeframe.W1, Timeframe.D1))
    opens = pl.Series(parts.opens).cast(CANDLES.schema["timestamp"]).to_list()
    assert len(opens) == 4
    rows = [minute(0, "1 1 1 1", "1") | {"timestamp": moment} for moment in opens]
    assert aggregate(frame(*rows), week, parts)["notes"].to_list() == [None]
    rows[1]["timestamp"] += timedelta(hours=1)  # type: ignore[operator]
    assert aggregate(frame(*rows), week, parts)["notes"].to_list() == ["parts_unknown"]
