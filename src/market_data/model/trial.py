"""Made-up series for proving features: every awkward thing a market does, from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.observation import IntArray
from market_data.model.rolling import FloatArray
from market_data.model.session import grid
from market_data.model.timeframe import Timeframe, TimeRange, to_micros
from market_data.model.window import Window

_START: Final = datetime(2024, 2, 26, tzinfo=UTC)
_LONG_AGO: Final = datetime(2001, 8, 20, tzinfo=UTC)
_UTC_MICROS: Final = pl.Datetime("us", "UTC")
_FUNDING_STEP: Final = timedelta(hours=8)
_CRYPTO_COLUMNS: Final = (
    "taker_buy_volume",
    "taker_sell_volume",
    "quote_volume",
    "open_interest",
    "funding_rate",
    "liquidations_long",
    "liquidations_short",
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a made-up series is like; shares are probabilities per row."""

    seed: int
    rows: int
    asset_class: AssetClass = AssetClass.CRYPTO
    timeframe: Timeframe = Timeframe.H1
    scale: float = 100.0
    """Price at the start; 1e-12 and 1e12 are allowed."""
    step: float = 0.01
    """Standard deviation of a candle's log return."""
    gaps: float = 0.0
    absent: float = 0.0
    """Share of values that are null, in every column."""
    flat: bool = False
    idle: float = 0.0
    """Share of candles without volume."""
    extreme: float = 0.0
    """Share of values that are zero, negative, subnormal, huge or infinite."""

    @property
    def series(self) -> Series:
        """Its identity."""
        return Series(Instrument("TRIAL", self.asset_class), self.timeframe)


def trial_window(trial: Trial) -> Window:
    """The series of a trial, with observations on their own clocks."""
    return Window.of(trial.series, trial_frame(trial), trial_observations(trial))


def trial_frame(trial: Trial) -> pl.DataFrame:
    """Its candles, as `Window.of` takes them."""
    random = np.random.default_rng(trial.seed)
    opens, ends = _grid(trial, random)
    rows = len(opens)
    moves = np.zeros(rows) if trial.flat else random.normal(0, trial.step, rows)
    close = trial.scale * np.exp(np.cumsum(moves))
    start = np.r_[trial.scale, close[:-1]][:rows]
    reach = 1.0 if trial.flat else 1 + np.abs(random.normal(0, trial.step, rows))
    volume = random.lognormal(0, 2, rows) * (random.random(rows) >= trial.idle)
    values = {
        "open": start,
        "high": np.maximum(start, close) * reach,
        "low": np.minimum(start, close) / reach,
        "close": close,
        "volume": volume,
    }
    if trial.asset_class is AssetClass.CRYPTO:
        values |= {name: volume * random.random(rows) for name in _CRYPTO_COLUMNS}
    times = {"timestamp": pl.Series(opens).cast(_UTC_MICROS), "end": pl.Series(ends).cast(_UTC_MICROS)}
    return pl.DataFrame(times | {name: _spoilt(array, trial, random) for name, array in values.items()})


def trial_observations(trial: Trial) -> Mapping[str, pl.DataFrame]:
    """Its funding rates, account ratios and spot flow; some become known late, some are absent."""
    if trial.asset_class is not AssetClass.CRYPTO:
        return {}
    random = np.random.default_rng((trial.seed, 1))
    span = trial.timeframe.duration * (trial.rows + 1)
    funding = _clock(_START - timedelta(days=130), _START + span, _FUNDING_STEP, random, trial.gaps, limit=2000)
    ratio = _clock(_START - timedelta(days=2), _START + span, timedelta(hours=1), random, trial.gaps, limit=2000)
    flow = _clock(_START, _START + span, trial.timeframe.duration, random, trial.gaps, limit=2000)
    return {
        "funding_rates": funding.with_columns(
            # Rounded, so that equal rates occur: strictly below is not the same as below.
            rate=random.normal(0, 1e-4, len(funding)).round(5),
            rate_type=pl.lit("Regular"),
        ),
        "long_short_ratios": ratio.with_columns(
            ratio=random.lognormal(0, 0.3, len(ratio)), kind=pl.lit("global_accounts")
        ),
        "spot_flow": flow.with_columns(
            # On the grid and known at once, as a closed candle of the exchange is.
            known_at=pl.col("timestamp"),
            period=pl.lit(trial.timeframe.value),
            buy_quote=random.lognormal(0, 1, len(flow)),
            sell_quote=random.lognormal(0, 1, len(flow)),
        ),
    }


def _grid(trial: Trial, random: np.random.Generator) -> tuple[IntArray, IntArray]:
    # Twice as long as needed, so that gaps leave enough; stocks trade a fifth of the week.
    span = trial.timeframe.duration * (2 * trial.rows + 10)
    start = _START
    if trial.asset_class is not AssetClass.CRYPTO:
        # Sessions of weeks and years ahead are not known: weeks begin long ago.
        start = _LONG_AGO if trial.timeframe is Timeframe.W1 else _START
        span = span * 6 if trial.timeframe.intraday else span
    expected = grid(trial.asset_class, trial.timeframe, TimeRange(start, start + span))
    kept = random.random(len(expected)) >= trial.gaps
    return expected.opens[kept][: trial.rows], expected.ends[kept][: trial.rows]


def _clock(
    start: datetime, end: datetime, step: timedelta, random: np.random.Generator, gaps: float, *, limit: int
) -> pl.DataFrame:
    moments = np.arange(to_micros(start), to_micros(end), step // timedelta(microseconds=1))[:limit]
    moments = moments[random.random(len(moments)) >= gaps]
    # One in ten is published after its successor is due.
    delay = np.where(random.random(len(moments)) < 0.1, 1.5, 0.01) * random.random(len(moments))
    known = moments + (delay * (step // timedelta(microseconds=1))).astype(np.int64)
    return pl.DataFrame({"timestamp": moments, "known_at": known}).cast(_UTC_MICROS)


def _spoilt(values: FloatArray, trial: Trial, random: np.random.Generator) -> pl.Series:
    values = values.copy()
    odd = np.array([0.0, -0.0, -1.0, 5e-324, 1e-300, 1e300, 1.7e308, np.inf, -np.inf])
    hit = random.random(len(values)) < trial.extreme
    values[hit] = random.choice(odd, int(hit.sum()))
    values[random.random(len(values)) < trial.absent] = np.nan
    return pl.Series(values, nan_to_null=True)
