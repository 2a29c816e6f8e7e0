"""Yahoo's known defects: repaired where the rows prove them, noted where not, and nothing touched in clean series."""

from __future__ import annotations

import gzip
import io
import json
import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from market_data.model.dataset import CANDLES, EXACT
from market_data.model.session import Grid
from market_data.providers.yahoo.defects import (
    NOTE_SPLIT_NOT_APPLIED,
    NOTE_SPLIT_UNKNOWN,
    NOTE_UNIT_REPAIRED,
    NOTE_UNIT_UNKNOWN,
    NOTE_VOLUME_UNKNOWN,
    splits_settled,
    with_split_notes,
    with_units_settled,
    with_volumes_doubted,
)
from market_data.providers.yahoo.parse import Split, parse_chart
from market_data.providers.yahoo.repair import NOTE_DUPLICATE, at_session_open, unadjusted

RECORDINGS = Path(os.environ.get("MARKET_DATA_RECORDINGS", Path(__file__).parents[3] / "../shared/data"))
BAD = RECORDINGS / "yfinance_testdata"
NEW_YORK = ZoneInfo("America/New_York")
UTC_ZONE = ZoneInfo("UTC")
FIRST = datetime(2025, 3, 3, 14, 30, tzinfo=UTC)
FIELDS = ("open", "high", "low", "close")


def days(*rows: tuple[str, str, str, str], volume: int = 100) -> pl.DataFrame:
    """Daily candles from open, high, low and close."""
    prices = [dict(zip(FIELDS, map(Decimal, row), strict=True)) for row in rows]
    return CANDLES.conform(
        pl.DataFrame(
            [
                {"timestamp": FIRST + timedelta(days=at), "volume": Decimal(volume)} | row
                for at, row in enumerate(prices)
            ]
        )
    )


def flat(*closes: str) -> pl.DataFrame:
    return days(*((close,) * 4 for close in closes))


def notes(rows: pl.DataFrame) -> list[str | None]:
    return rows["notes"].to_list()


def test_rows_a_hundred_times_too_high_between_rows_that_agree() -> None:
    settled = with_units_settled(flat("0.145", "0.146", "14.55", "14.7", "0.147", "0.145"), ())
    assert settled["close"].to_list() == [
        Decimal(text) for text in ("0.145", "0.146", "0.1455", "0.147", "0.147", "0.145")
    ]
    assert notes(settled) == [None, None, NOTE_UNIT_REPAIRED, NOTE_UNIT_REPAIRED, None, None]


def test_rows_a_hundred_times_too_low() -> None:
    settled = with_units_settled(flat("35", "0.34", "34.5"), ())
    assert settled["close"].to_list() == [35, 34, Decimal("34.5")]
    assert notes(settled) == [None, NOTE_UNIT_REPAIRED, None]


def test_one_price_of_a_row_is_proved_by_the_others() -> None:
    good = ("30", "31", "29", "30")
    settled = with_units_settled(days(good, good, ("30", "3100", "0.29", "30.5"), good, good), ())
    assert settled.select(FIELDS).row(2) == (30, 31, 29, Decimal("30.5"))
    assert notes(settled) == [None, None, NOTE_UNIT_REPAIRED, None, None]


def test_a_crash_within_a_row_stays() -> None:
    good = ("30", "31", "29", "30")
    for low in ("0.01", "3", "0.2"):
        rows = days(good, good, ("30", "31", low, "30"), good, good)
        assert with_units_settled(rows, ()).equals(rows)


def test_a_change_of_unit_that_stays_is_noted_only() -> None:
    rows = flat("3500", "3450", "34", "34.5", "35")
    settled = with_units_settled(rows, ())
    assert settled["close"].to_list() == rows["close"].to_list()
    assert notes(settled) == [NOTE_UNIT_UNKNOWN, NOTE_UNIT_UNKNOWN, None, None, None]


def test_rows_between_levels_that_do_not_agree_are_noted_only() -> None:
    rows = flat("35", "35", "2500", "17", "17")
    assert with_units_settled(rows, ())["close"].to_list() == rows["close"].to_list()
    assert notes(with_units_settled(rows, ())) == [None, None, NOTE_UNIT_UNKNOWN, None, None]


def test_a_listed_split_by_a_hundred_is_no_change_of_unit() -> None:
    rows = flat("0.34", "0.35", "34", "34.5", "0.35")
    split = Split(FIRST + timedelta(days=2), Decimal(1), Decimal(100))
    assert with_units_settled(rows, [split]).equals(rows)


def walk(count: int, start: float, seed: int = 7) -> list[float]:
    """Prices that move about one percent a day."""
    returns = np.random.default_rng(seed).normal(0, 0.01, count)
    return list(np.round(start * np.exp(np.cumsum(returns)), 4))


def series(prices: list[float]) -> pl.DataFrame:
    return flat(*(str(price) for price in prices))


def split_at(day: int, numerator: str, denominator: str) -> Split:
    return Split(FIRST + timedelta(days=day), Decimal(numerator), Decimal(denominator))


def raw(rows: pl.DataFrame, split: Split) -> pl.DataFrame:
    settled = splits_settled(rows, [split], NEW_YORK)
    return with_split_notes(unadjusted(rows, settled, NEW_YORK, 4), settled, NEW_YORK)


@pytest.mark.parametrize(("numerator", "denominator"), [("4", "1"), ("2", "1"), ("3", "2"), ("1", "50")])
def test_a_split_the_source_applied_is_taken_back(numerator: str, denominator: str) -> None:
    split = split_at(30, numerator, denominator)
    assert splits_settled(series(walk(60, 80)), [split], NEW_YORK) == (split,)


@pytest.mark.parametrize(("numerator", "denominator"), [("4", "1"), ("2", "1"), ("3", "2"), ("1", "50")])
def test_a_split_the_source_did_not_apply_is_not_taken_back(numerator: str, denominator: str) -> None:
    ratio = float(numerator) / float(denominator)
    traded = [price * (ratio if at < 30 else 1) for at, price in enumerate(walk(60, 80))]
    rows = series(traded)
    result = raw(rows, split_at(30, numerator, denominator))
    assert result["close"].to_list() == rows["close"].to_list()
    assert result["volume"].to_list() == rows["volume"].to_list()
    assert notes(result) == [NOTE_SPLIT_NOT_APPLIED] * 30 + [None] * 30


def test_a_split_applied_to_older_rows_only() -> None:
    prices = walk(60, 80)
    rows = series([price * (4 if 20 <= at < 30 else 1) for at, price in enumerate(prices)])
    result = raw(rows, split_at(30, "4", "1"))
    expected = [price * (4 if at < 30 else 1) for at, price in enumerate(prices)]
    np.testing.assert_allclose(result["close"].cast(pl.Float64).to_numpy(), expected, rtol=1e-9)
    assert notes(result)[19:31] == ["unadjusted_for_splits"] + [NOTE_SPLIT_NOT_APPLIED] * 10 + [None]


def test_a_split_applied_some_days_early() -> None:
    prices = walk(60, 80)
    rows = series([price * (4 if at < 25 else 1) for at, price in enumerate(prices)])
    result = raw(rows, split_at(30, "4", "1"))
    expected = [price * (4 if at < 30 else 1) for at, price in enumerate(prices)]
    np.testing.assert_allclose(result["close"].cast(pl.Float64).to_numpy(), expected, rtol=1e-9)


def test_a_split_whose_day_is_still_as_before_is_in_doubt() -> None:
    rows = series([price * (4 if at <= 31 else 1) for at, price in enumerate(walk(60, 80))])
    result = raw(rows, split_at(30, "4", "1"))
    assert all(NOTE_SPLIT_UNKNOWN in (note or "") for note in notes(result)[:30])


def test_a_split_smaller_than_the_usual_moves_is_left_alone() -> None:
    wild = [price * (1.3 if at % 2 else 1) for at, price in enumerate(walk(60, 80))]
    split = split_at(30, "5", "4")
    assert splits_settled(series(wild), [split], NEW_YORK) == (split,)


def test_moves_without_volume_are_doubted() -> None:
    rows = pl.concat([days(("5", "6", "4", "5"), volume=0), flat("5", "5", "6").with_columns(volume=pl.lit(0, EXACT))])
    rows = rows.with_columns(
        timestamp=pl.Series([FIRST + timedelta(hours=at) for at in range(4)], dtype=rows["timestamp"].dtype)
    )
    assert notes(with_volumes_doubted(rows)) == [NOTE_VOLUME_UNKNOWN, None, None, NOTE_VOLUME_UNKNOWN]
    assert notes(with_volumes_doubted(flat("5", "6"))) == [None, None]


def test_the_day_is_kept_once_and_the_shifted_stamp_is_of_the_next_day() -> None:
    opens = [datetime(2025, 3, day, 14, 30, tzinfo=UTC) for day in (3, 4, 5)]
    micros = np.array([int(moment.timestamp()) * 1_000_000 for moment in opens], dtype=np.int64)
    stamps = [
        opens[0],
        datetime(2025, 3, 3, 21, 0, 1, tzinfo=UTC),  # the same day again, after the close
        datetime(2025, 3, 4, 4, 0, tzinfo=UTC),  # 23:00 of the day before in New York
        opens[2],
    ]
    rows = flat("1", "2", "3", "4").with_columns(timestamp=pl.Series(stamps).cast(pl.Datetime("us", "UTC")))
    kept = at_session_open(rows, Grid(micros, micros + 1), NEW_YORK)
    assert kept["timestamp"].to_list() == opens
    assert kept["close"].to_list() == [2, 3, 4]
    assert notes(kept) == [NOTE_DUPLICATE, None, None]


META = '"meta":{"symbol":"A","currency":"USD","exchangeTimezoneName":"America/New_York","dataGranularity":"1d"}'


def test_nulls_with_volume_are_holes_and_an_infinite_adjusted_close_costs_nothing() -> None:
    body = (
        f'{{"chart":{{"result":[{{{META},"timestamp":[1741012200,1741098600,1741185000],"indicators":{{"quote":'
        '[{"open":[1,null,3],"high":[1,null,3],"low":[1,null,3],"close":[1,null,3],"volume":[5,6,7]}],'
        '"adjclose":[{"adjclose":[Infinity,null,2.5]}]}}],"error":null}}'
    )
    chart = parse_chart(body.encode())
    assert chart is not None
    assert chart.rows["close"].to_list() == [1, 3]
    assert chart.adjusted["adjusted"].to_list() == [Decimal("2.5")]


def recorded(stem: str) -> tuple[pl.DataFrame, list[Split]] | None:
    """A series of the recordings, oldest first, with its splits; local times as if they were UTC."""
    path = next((each for each in (BAD / f"{stem}.csv", BAD / f"{stem}.csv.gz") if each.exists()), None)
    if path is None:
        return None
    body = path.read_bytes()
    table = pl.read_csv(io.BytesIO(gzip.decompress(body) if path.suffix == ".gz" else body), infer_schema_length=None)
    local = table[table.columns[0]].str.head(19).str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us")
    prices = [pl.col(name.title()).cast(pl.Float64).cast(EXACT).alias(name) for name in (*FIELDS, "volume")]
    splits = pl.col("Stock Splits").cast(pl.Float64)
    table = table.with_columns(*prices, splits, local.dt.replace_time_zone("UTC").alias("timestamp")).sort("timestamp")
    listed = table.filter(pl.col("Stock Splits") != 0).select("timestamp", "Stock Splits")
    rows = CANDLES.conform(table.select("timestamp", *FIELDS, "volume").drop_nulls())
    return rows, [Split(moment, Decimal(str(ratio)), Decimal(1)) for moment, ratio in listed.iter_rows()]


def pairs(*marks: str) -> list[tuple[str, pl.DataFrame, list[Split], pl.DataFrame]]:
    """Bad series and their accepted repairs."""
    found = []
    for path in sorted(path for mark in marks for path in BAD.glob(f"*{mark}*.csv*")):
        stem = path.name.removesuffix(".gz").removesuffix(".csv")
        bad, fixed = recorded(stem), recorded(f"{stem}-fixed") or recorded(f"{stem.replace('-JO-', '-JO-1d-')}-fixed")
        if bad is not None and fixed is not None:
            found.append((stem, *bad, fixed[0]))
    if not found:
        pytest.skip(f"the series of {BAD} are absent (set MARKET_DATA_RECORDINGS)")
    return found


def as_accepted(rows: pl.DataFrame, accepted: pl.DataFrame) -> np.ndarray:
    joined = rows.join(accepted, on="timestamp", how="left", suffix=" accepted", maintain_order="left")
    ratios = [pl.col(name).cast(pl.Float64) / pl.col(f"{name} accepted").cast(pl.Float64) for name in FIELDS]
    return (
        joined.select(pl.max_horizontal((ratio - 1).abs() for ratio in ratios).fill_null(9) < 2e-3)
        .to_series()
        .to_numpy()
    )


def test_recorded_unit_errors_are_repaired_as_accepted_or_noted() -> None:
    wrong = detected = repaired = 0
    for stem, bad, splits, accepted in pairs("100x-error", "bad-unit"):
        settled = with_units_settled(bad, splits)
        is_wrong = ~as_accepted(bad.sort("timestamp"), accepted)
        changed = settled["notes"].fill_null("").str.contains(NOTE_UNIT_REPAIRED).to_numpy()
        assert as_accepted(settled, accepted)[changed].all(), stem
        wrong += int(is_wrong.sum())
        detected += int((settled["notes"].is_not_null().to_numpy() & is_wrong).sum())
        repaired += int(changed.sum())
    print(f"unit errors: {wrong} rows wrong, {detected} detected, {repaired} repaired as accepted")
    assert detected > 0


def test_recorded_splits_not_applied_are_found() -> None:
    found, series_count = 0, 0
    for stem, bad, splits, accepted in pairs("bad-stock-split"):
        settled = splits_settled(bad, splits, UTC_ZONE)
        result = with_split_notes(unadjusted(bad, settled, UTC_ZONE, 4), settled, UTC_ZONE)
        equal = as_accepted(result, unadjusted(accepted, splits, UTC_ZONE, 4))
        seen = any(split.in_doubt or split.raw_before for split in settled)
        found, series_count = found + seen, series_count + 1
        print(f"{stem}: {'found' if seen else 'not found'}, {equal.sum()} of {len(equal)} rows as accepted")
    assert found > 0, f"none of {series_count}"


def fixtures() -> list[tuple[pl.DataFrame, list[Split]]]:
    """Charts of US listings as they were answered."""
    found = []
    for path in sorted((RECORDINGS / "yahoo_finance2_fixtures").glob("*chart-*.json")):
        body = json.loads(path.read_text())["response"]["bodyJson"]
        chart = parse_chart(json.dumps(body).encode()) if body["chart"]["result"] else None
        if chart is not None:
            found.append((chart.rows, list(chart.splits)))
    return found


def clean() -> list[tuple[pl.DataFrame, list[Split]]]:
    """Series nobody found fault with."""
    names = sorted({path.name.removesuffix(".gz").removesuffix(".csv") for path in BAD.glob("*no-bad*.csv*")})
    return fixtures() + [read for name in names if (read := recorded(name)) is not None]


def test_clean_series_are_not_touched() -> None:
    rows = 0
    for days_, splits in clean():
        assert with_units_settled(days_, splits).equals(days_.sort("timestamp"))
        assert splits_settled(days_, splits, NEW_YORK) == tuple(splits)
        rows += days_.height
    if not rows:
        pytest.skip(f"the series of {RECORDINGS} are absent (set MARKET_DATA_RECORDINGS)")
    print(f"no repair and no doubt in {rows} rows of clean series")
