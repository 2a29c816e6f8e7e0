"""Across every recorded split: derived columns of raw prices are those of the split-adjusted series, nothing jumps."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from market_data.bootstrap.shelves import open_shelves
from market_data.model.cuts import Cut
from market_data.model.dataset import CANDLES, EXACT, UTC_MICROS
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.session import grid
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.write.derive import derive
from market_data.pipeline.write.normalise import with_ends
from market_data.sandbox.recordings import FOLDER

pytestmark = pytest.mark.filterwarnings("ignore:Series.values returning")

SHELVES = open_shelves()
IN_PRICES, IN_SHARES = ("atr", "sma_20", "sma_50"), ("rolling_volume_20",)
SCALE_FREE = ("return_1h", "return_1d", "volatility_20", "volatility_50", "volume_spike_score")
TEXTS = ("trend_direction", "market_structure")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEW_YORK = ZoneInfo("America/New_York")
Splits = dict[date, Fraction]


def cuts_of(splits: Splits) -> list[Cut]:
    midnight = datetime.min.time()
    return [Cut(int(datetime.combine(day, midnight, UTC).timestamp()) * 1_000_000, r) for day, r in splits.items()]


def derived(series: Series, rows: pl.DataFrame, splits: Splits) -> pl.DataFrame:
    whole = CANDLES.conform(rows).with_columns(data_age_seconds=pl.lit(0.0), disagrees=pl.lit(value=False))
    return derive(series, with_ends(series, whole).filter(pl.col("end").is_not_null()), {}, SHELVES, cuts_of(splits))


def check(series: Series, rows: pl.DataFrame, splits: Splits) -> pl.DataFrame:
    """Hold the derived columns of raw rows against those of the rows expressed in the last day's shares."""
    raw = derived(series, rows, splits)
    days = raw["timestamp"].dt.date().to_list()
    later = [np.prod([r for day, r in splits.items() if day > d], initial=Fraction(1)) for d in days]
    kept = rows.join(raw.select("timestamp"), on="timestamp", how="semi").sort("timestamp")
    one = kept.select(
        "timestamp",
        # Sixteen digits: far below what is compared, and within what an exact number holds.
        *(_times(kept[name], [1 / ratio for ratio in later], 16) for name in ("open", "high", "low", "close")),
        _times(kept["volume"], later, 9),
    )
    adjusted = derived(series, one, {})
    factor = np.array([float(ratio) for ratio in later])
    for name in (*SCALE_FREE, *IN_PRICES, *IN_SHARES):
        ours = raw[name].fill_null(np.nan).to_numpy()
        ours = ours / factor if name in IN_PRICES else ours * factor if name in IN_SHARES else ours
        theirs = adjusted[name].fill_null(np.nan).to_numpy()
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12, err_msg=f"{series} {name}")
    for name in TEXTS:
        assert raw[name].equals(adjusted[name]), name
    assert raw["validation_notes"].equals(adjusted["validation_notes"])
    return raw


def _times(values: pl.Series, ratios: list[Fraction], digits: int) -> pl.Series:
    scaled = [round(Fraction(value) * ratio * 10**digits) for value, ratio in zip(values, ratios, strict=True)]
    return pl.Series(values.name, [Decimal(number).scaleb(-digits) for number in scaled], EXACT)


@pytest.mark.parametrize("symbol", ["AAPL", "IBM", "KO", "MSFT"])
def test_bundled_days(symbol: str) -> None:
    series = Series(Instrument(symbol, AssetClass.STOCK), Timeframe.D1)
    stored = pl.read_parquet(FOLDER / f"{symbol}.parquet")
    split = stored.filter(pl.col("split_to") != pl.col("split_from"))
    splits = {day: Fraction(to, of) for day, to, of in split.select("date", "split_to", "split_from").iter_rows()}
    days = grid(series.asset_class, series.timeframe, TimeRange(datetime(1990, 1, 1, tzinfo=UTC), NOW)).opens
    opens = pl.DataFrame({"timestamp": pl.Series(days).cast(UTC_MICROS)}).with_columns(
        date=pl.col("timestamp").dt.date()
    )
    rows = stored.join(opens, on="date").with_columns(
        pl.col(name).cast(EXACT) for name in ("open", "high", "low", "close", "volume")
    )
    check(series, rows, splits)


def lean(folder: Path, kind: str, symbol: str) -> tuple[pl.DataFrame, Splits]:
    """Raw candles of LEAN, times in New York and prices times 10,000, and its splits."""
    with zipfile.ZipFile(folder / kind / f"{symbol}.zip") as archive:
        lines = archive.read(archive.namelist()[0]).decode().splitlines()
    table = [line.split(",") for line in lines]
    times = [datetime.strptime(row[0], "%Y%m%d %H:%M").replace(tzinfo=NEW_YORK) for row in table]
    hour = 9 if kind == "daily" else None
    opens = [t.replace(hour=hour or t.hour, minute=30) for t in times]
    prices = {
        name: [Decimal(row[place]) / 10_000 for row in table]
        for place, name in enumerate(("open", "high", "low", "close"), start=1)
    }
    volume = [Decimal(row[5]) for row in table]
    frame = pl.DataFrame({"timestamp": pl.Series(opens).cast(UTC_MICROS), **prices, "volume": volume})
    frame = frame.with_columns(pl.col(name).cast(EXACT) for name in frame.columns[1:])
    return frame.unique("timestamp").sort("timestamp"), dict(_lean_splits(folder, symbol, times))


def _lean_splits(folder: Path, symbol: str, times: list[datetime]) -> Iterator[tuple[date, Fraction]]:
    with (folder / "factor_files" / f"{symbol}.csv").open() as file:
        factors = [
            (datetime.strptime(row[0], "%Y%m%d").replace(tzinfo=NEW_YORK).date(), float(row[2]))
            for row in csv.reader(file)
        ]
    for (last, before), (_, after) in pairwise(factors):
        ratio = Fraction(after / before).limit_denominator(100)
        if ratio != 1:
            day = next((t.date() for t in times if t.date() > last), None)
            if day is not None:
                yield day, ratio


@pytest.mark.parametrize("symbol", ["aapl", "aig", "bac", "ibm", "iwm", "qqq", "spy"])
def test_recorded_days(recordings: Path, symbol: str) -> None:
    folder = recordings / "lean" / "Data" / "equity" / "usa"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    rows, splits = lean(folder, "daily", symbol)
    check(Series(Instrument(symbol.upper(), AssetClass.STOCK), Timeframe.D1), rows, splits)
