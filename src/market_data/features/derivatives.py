"""What the futures market says: liquidations, account ratios, funding, open interest."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np

from market_data.features.flow import is_crypto
from market_data.model.feature import feature
from market_data.model.observation import IntArray, Observations, Runs
from market_data.model.rolling import FloatArray
from market_data.model.timeframe import MICROSECOND
from market_data.model.window import Window

# A value that was not renewed for so long is no longer the current one; funding is paid every 1 to 8 hours, ratios are
# published every 5 minutes to 1 day.
LARGEST_AGE = timedelta(days=1)
FUNDING_HISTORY = timedelta(days=90)
FUNDING_MINIMUM = 30
BLOCK_ROWS = 256


@feature(lookback=0, inputs=("liquidations_long", "liquidations_short", "volume"), unit="ratio", where=is_crypto)
def liquidation_intensity(window: Window) -> FloatArray:
    """Liquidated volume as a part of all volume.

    Formula: (liquidations_long + liquidations_short) / volume, all in base units.
    Null: when one of them is absent; without volume; for stocks and ETFs.
    Source: the exchange's live stream of forced orders; there is no history of them.
    """
    return (window.column("liquidations_long") + window.column("liquidations_short")) / window.volume


@feature(lookback=1, inputs=("open_interest",), unit="%", where=is_crypto)
def open_interest_change(window: Window) -> FloatArray:
    """Change of open interest over the candle.

    Formula: (open_interest at the candle's end - at its open) / that at its open * 100; at its open it is
    the previous candle's.
    Null: when either is absent or the earlier one is 0; when the candle does not follow directly on the one before; for
    stocks and ETFs.
    Source: the exchange's open interest, as known at each candle's end.
    """
    interest = window.column("open_interest")
    before = window.earlier(interest, 1)
    out = (interest - before) / before * 100.0
    out[~window.consecutive(1)] = np.nan
    return out


@feature(lookback=0, inputs=(), unit="ratio", observations={"long_short_ratios": LARGEST_AGE}, where=is_crypto)
def long_short_ratio(window: Window) -> FloatArray:
    """Longs over shorts of all accounts.

    Formula: the newest ratio of kind global_accounts known at the candle's end.
    Null: when none is known or the newest speaks of a moment more than a day before the end; for stocks and ETFs.
    Source: the exchange's ratio of accounts that are net long to accounts that are net short.
    """
    ratios = window.observations.take("long_short_ratios", "ratio", kind="global_accounts")
    return window.newest(ratios, LARGEST_AGE).of(ratios.values["ratio"])


@feature(
    lookback=0, inputs=(), unit="0-100", observations={"funding_rates": FUNDING_HISTORY + LARGEST_AGE}, where=is_crypto
)
def funding_rate_percentile(window: Window) -> FloatArray:
    """How high the current funding rate stands among those of its trailing 90 days.

    Formula: of the regular funding rates in (t - 90 days, t] known at the candle's end, the number strictly below the
    one at t / the number of all * 100; t is the moment of the newest of them.
    Null: while (t - 90 days, t] holds fewer than 30 rates; when none is known or the newest is more than a day older
    than the end; for stocks and ETFs.
    Source: the exchange's funding rate history.
    """
    rates = window.observations.take("funding_rates", "rate", rate_type="Regular")
    runs = window.newest(rates, LARGEST_AGE)
    return runs.spread(_percentiles(rates, runs))


def _percentiles(rates: Observations, runs: Runs) -> FloatArray:
    """Percentile of the rate of each run among those known by then; something for runs without one."""
    if not len(rates):
        return np.full(len(runs.index), np.nan)
    if len(runs.index) == 1 and rates.arrival is None:
        # The live case, without a matrix.
        return np.array([_percentile(rates, int(runs.index[0]))])
    rank = None if rates.arrival is None else rates.arrival.argsort()
    starts = range(0, len(runs.index), BLOCK_ROWS)
    return np.concatenate([_percentile_block(rates, runs, slice(start, start + BLOCK_ROWS), rank) for start in starts])


def _percentile(rates: Observations, row: int) -> float:
    values = rates.values["rate"]
    before = rates.timestamp[row] - FUNDING_HISTORY // MICROSECOND
    oldest = int(rates.timestamp.searchsorted(before, side="right"))
    count = row - oldest + 1
    if count < FUNDING_MINIMUM:
        return math.nan
    return int(np.count_nonzero(values[oldest:row] < values[row])) / count * 100.0


def _percentile_block(rates: Observations, runs: Runs, part: slice, rank: IntArray | None) -> FloatArray:
    values, rows = rates.values["rate"], runs.index[part]
    oldest = rates.timestamp.searchsorted(rates.timestamp[rows] - FUNDING_HISTORY // MICROSECOND, side="right")
    # One line per rate: the places of its trailing window, those before its beginning marked.
    places = rows[:, None] - np.arange(max(1, int((rows - oldest).max()) + 1))
    inside = places >= oldest[:, None]
    places = np.maximum(places, 0)
    if rank is not None:
        # Some became known late: not before the run's event.
        inside &= rank[places] <= runs.event[part, None]
    counts = inside.sum(axis=1)
    below = ((values[places] < values[rows, None]) & inside).sum(axis=1)
    return np.where(counts >= FUNDING_MINIMUM, below / counts * 100.0, np.nan)
