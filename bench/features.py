"""How fast features are: one long series, many short ones, one live candle; against pandas, TA-Lib and a copy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

import market_data.features
from bench.figures import Figure, interval, side_by_side
from market_data.model.evaluation import evaluate
from market_data.model.feature import Feature
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.live import LiveSeries
from market_data.model.panel import evaluate_panel_parts
from market_data.model.timeframe import Timeframe, to_micros
from market_data.model.window import Window
from market_data.shelf import collect

RUNS = 15
START = datetime(2026, 1, 1, tzinfo=UTC)
SERIES = Series(Instrument("BTC", AssetClass.CRYPTO), Timeframe.M1)
FEATURES = list(collect(market_data.features, Feature).values())
PANEL_SERIES, PANEL_ROWS = 500, 5000
LIVE_CANDLES, LIVE_SERIES = 2000, 2000
OF_TALIB = ("sma_20", "sma_50", "volatility_20", "volatility_50", "atr")


def candles(rows: int, seed: int = 0) -> pl.DataFrame:
    """One-minute candles of a random walk with everything a futures exchange tells."""
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 1e-3, rows)))
    start = np.r_[100.0, close[:-1]]
    volume = random.lognormal(0, 1, rows)
    opens = pl.Series(to_micros(START) + np.arange(rows) * Timeframe.M1.micros).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame(
        {
            "timestamp": opens,
            "end": opens + timedelta(minutes=1),
            "open": start,
            "high": np.maximum(start, close) * 1.0005,
            "low": np.minimum(start, close) * 0.9995,
            "close": close,
            "volume": volume,
            "taker_buy_volume": volume * 0.4,
            "taker_sell_volume": volume * 0.6,
            "open_interest": 1000 * random.lognormal(0, 0.01, rows),
            "liquidations_long": volume * 0.01,
            "liquidations_short": volume * 0.02,
        }
    )


def observations(rows: int, seed: int = 0) -> dict[str, pl.DataFrame]:
    """Funding every 8 hours with 91 days of history, account ratios every 5 minutes, spot flow every minute."""
    random = np.random.default_rng((seed, 1))
    span = timedelta(minutes=rows)

    def clock(start: datetime, step: timedelta) -> dict[str, pl.Series]:
        moments = np.arange(to_micros(start), to_micros(START + span) + 1, step // timedelta(microseconds=1))
        stamps = pl.Series(moments).cast(pl.Datetime("us", "UTC"))
        return {"timestamp": stamps, "known_at": stamps}

    funding = pl.DataFrame(clock(START - timedelta(days=91), timedelta(hours=8)))
    ratios = pl.DataFrame(clock(START - timedelta(days=1), timedelta(minutes=5)))
    flow = pl.DataFrame(clock(START + timedelta(minutes=1), timedelta(minutes=1)))
    return {
        "funding_rates": funding.with_columns(rate=random.normal(0, 1e-4, len(funding)), rate_type=pl.lit("Regular")),
        "long_short_ratios": ratios.with_columns(
            ratio=random.lognormal(0, 0.1, len(ratios)), kind=pl.lit("global_accounts")
        ),
        "spot_flow": flow.with_columns(
            period=pl.lit("1m"),
            buy_quote=random.lognormal(5, 1, len(flow)),
            sell_quote=random.lognormal(5, 1, len(flow)),
        ),
    }


def measure() -> Iterator[Figure]:
    """All figures of features."""
    yield from one_series()
    yield panel()
    yield live()


def one_series() -> Iterator[Figure]:
    """100,000 and a million candles, and the ratios to peers, all taking turns."""
    from bench.peers import by_pandas, by_talib

    frame, seen, large, seen_large = (
        candles(100_000),
        observations(100_000),
        candles(1_000_000),
        observations(1_000_000),
    )
    arrays = {name: frame[name].to_numpy() for name in frame.columns if frame[name].dtype == pl.Float64}
    of_talib = [each for each in FEATURES if each.name in OF_TALIB]
    pandas = by_pandas(frame, seen)
    taken = side_by_side(
        {
            "ours": lambda: evaluate(FEATURES, Window.of(SERIES, frame, seen)),
            "five": lambda: evaluate(of_talib, Window.of(SERIES, frame)),
            "talib": lambda: by_talib(arrays),
            "copy": lambda: {name: values.copy() for name, values in arrays.items()},
        },
        runs=RUNS,
    )
    slow = side_by_side(
        {
            "ours": lambda: evaluate(FEATURES, Window.of(SERIES, frame, seen)),
            "pandas": pandas,
            "million": lambda: evaluate(FEATURES, Window.of(SERIES, large, seen_large)),
        },
        runs=5,
    )
    count = f"{len(FEATURES)} computed features, from frame to frame, observations included"
    yield Figure(
        name="features_100k_ms",
        value=taken["ours"] * 1e3,
        spread=interval([seconds * 1e3 for seconds in taken.turns["ours"]]),
        unit="ms",
        target="<= 10",
        detail=f"{count}; median of {RUNS}",
    )
    yield Figure(
        name="features_1m_ms",
        value=slow["million"] * 1e3,
        unit="ms",
        target="linear: <= 10 x features_100k_ms",
        detail=f"{slow['million'] / slow['ours']:.1f} times the time of 100,000 in the same run; median of 5",
    )
    yield Figure(
        name="features_vs_pandas",
        value=slow.ratio("pandas", "ours")[0],
        spread=slow.ratio("pandas", "ours")[1],
        unit="x",
        target=">= 10",
        peer="the same formulas in vectorised pandas (bench/peers.py)",
        detail=f"100,000 candles: pandas {slow['pandas'] * 1e3:.1f} ms, ours {slow['ours'] * 1e3:.1f} ms; medians of 5",
    )
    yield Figure(
        name="features_vs_talib",
        value=taken.ratio("five", "talib")[0],
        spread=taken.ratio("five", "talib")[1],
        unit="ratio",
        target="<= 1",
        peer="TA-Lib: two STDDEV of log returns, SMA of TRANGE, two SMA",
        detail=f"100,000: TA-Lib {taken['talib'] * 1e3:.2f} ms, ours {taken['five'] * 1e3:.2f} ms, frame to frame",
    )
    yield Figure(
        name="features_vs_memcpy",
        value=taken.ratio("ours", "copy")[0],
        spread=taken.ratio("ours", "copy")[1],
        unit="ratio",
        target="reported",
        peer="a copy of the input columns",
        detail=f"{len(arrays)} columns of 100,000: {taken['copy'] * 1e3:.2f} ms",
    )


def panel() -> Figure:
    """500 series of 5000 one-minute candles in one frame."""
    frame, seen = together(PANEL_SERIES, PANEL_ROWS)

    def run() -> int:
        parts = evaluate_panel_parts(FEATURES, AssetClass.CRYPTO, Timeframe.M1, frame, seen)
        return sum(part.height for part in parts)

    run()
    taken = side_by_side({"panel": run}, runs=5)["panel"]
    return Figure(
        name="features_panel_mrows_s",
        value=frame.height / taken / 1e6,
        unit="M rows/s",
        target=">= 10",
        detail=f"{PANEL_SERIES} series x {PANEL_ROWS} candles, all features, {taken * 1e3:.0f} ms; median of 5",
    )


def together(series: int, rows: int) -> tuple[pl.DataFrame, Mapping[str, pl.DataFrame]]:
    """Candles and observations of many symbols in one frame each."""
    names = [f"S{place:04}" for place in range(series)]
    # Fifty different ones are enough: no series sees another.
    kinds = [(candles(rows, seed), observations(rows, seed)) for seed in range(min(50, series))]

    def stacked(frames: list[pl.DataFrame]) -> pl.DataFrame:
        named = (frames[place % len(frames)].with_columns(symbol=pl.lit(symbol)) for place, symbol in enumerate(names))
        return pl.concat(named).rechunk()

    return stacked([frame for frame, _ in kinds]), {
        dataset: stacked([seen[dataset] for _, seen in kinds]) for dataset in kinds[0][1]
    }


def live() -> Figure:
    """One new candle with history in memory; then one for each of 2000 symbols."""
    rows = 1500 + LIVE_CANDLES
    frame, seen = candles(rows), observations(rows)
    window = Window.of(SERIES, frame, seen)
    one = LiveSeries(FEATURES, window.rows(0, 1500))
    taken = []
    for candle in frame[1500:].rows(named=True):
        started = time.perf_counter()
        one.close(candle["timestamp"], candle["end"], candle)
        taken.append(time.perf_counter() - started)
    all_series = [LiveSeries(FEATURES, window.rows(0, 1500)) for _ in range(LIVE_SERIES)]
    candle = frame.row(1500, named=True)
    started = time.perf_counter()
    for each in all_series:
        each.close(candle["timestamp"], candle["end"], candle)
    minute = time.perf_counter() - started
    return Figure(
        name="feature_live_us",
        value=statistics.median(taken) * 1e6,
        unit="us",
        target="<= 300",
        detail=f"median of {LIVE_CANDLES} candles, all features; {LIVE_SERIES} symbols closing at once {minute:.2f} s",
    )
