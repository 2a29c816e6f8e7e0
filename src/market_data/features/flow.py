"""Who pressed: taker volume on the series' own market, taker inflow on the spot market."""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from market_data.model.feature import feature
from market_data.model.instrument import AssetClass, Series
from market_data.model.observation import IntArray, Observations
from market_data.model.rolling import FloatArray
from market_data.model.timeframe import Timeframe
from market_data.model.window import Window

LONGEST_FIRST = tuple((period.value, period.micros) for period in reversed(Timeframe))
LONGEST_CANDLE = timedelta(weeks=1)


def is_crypto(series: Series) -> bool:
    """Whether the series is of a crypto asset."""
    return series.asset_class is AssetClass.CRYPTO


@feature(lookback=0, inputs=("taker_buy_volume", "taker_sell_volume"), unit="base units", where=is_crypto)
def delta(window: Window) -> FloatArray:
    """Volume bought by takers less volume sold by takers.

    Formula: taker_buy_volume - taker_sell_volume.
    Null: when either is absent; for stocks and ETFs.
    Source: the exchange's candles, which give the taker buy volume.
    """
    return window.column("taker_buy_volume") - window.column("taker_sell_volume")


@feature(lookback=0, inputs=("taker_buy_volume", "taker_sell_volume"), unit="0-1", where=is_crypto)
def buy_sell_ratio(window: Window) -> FloatArray:
    """Share of the takers' volume that was bought.

    Formula: taker_buy_volume / (taker_buy_volume + taker_sell_volume).
    Null: when either is absent; without volume; for stocks and ETFs.
    Source: the exchange's candles, which give the taker buy volume.
    """
    bought = window.column("taker_buy_volume")
    return bought / (bought + window.column("taker_sell_volume"))


@feature(lookback=0, inputs=(), unit="quote units", observations={"spot_flow": LONGEST_CANDLE}, where=is_crypto)
def exchange_inflow(window: Window) -> FloatArray:
    """Net taker inflow on the spot market during the candle.

    Formula: sum of (buy_quote - sell_quote) over the spot periods that together are exactly the candle; the longest
    period that tiles it is used.
    Null: when no period's observations cover the whole candle and were known by its end; so for 1m, since the spot
    market's flow is collected by five minutes; for stocks and ETFs.
    Source: the exchange's spot candles: taker buy quote volume and its complement.
    """
    kinds = window.observations.kinds("spot_flow", "period")
    nets = [_net_over_candle(window, name, micros) for name, micros in LONGEST_FIRST if name in kinds]
    out = nets[0] if nets else np.full(len(window), np.nan)
    for net in nets[1:]:
        out = np.where(np.isnan(out), net, out)
    return out


def _net_over_candle(window: Window, period: str, step: int) -> FloatArray:
    """Net flow of the periods that end at the open + 1 period, + 2 periods, … the end; NaN unless all are there."""
    count = window.series.timeframe.micros // step
    flow = window.observations.take("spot_flow", "buy_quote", "sell_quote", period=period)
    if not count or len(flow) < count:
        return np.full(len(window), np.nan)
    totals, known_at = window.observations.once(("net", period, count), lambda: _totals(flow, step, count))
    return window.observed_at_end(flow, totals, known_at)


def _totals(flow: Observations, step: int, count: int) -> tuple[FloatArray, IntArray]:
    """Net flow of each period and the count - 1 before it, in this order of adding, and when all of it was known.

    NaN unless all are there.
    """
    net = flow.values["buy_quote"] - flow.values["sell_quote"]
    if count == 1:
        return net, flow.known_at
    # What a longer candle is made of is at most a day: such periods part the day from midnight on.
    net[flow.timestamp % step != 0] = np.nan
    total = net[: len(net) - count + 1].copy()
    known_at = flow.known_at[: len(total)].copy()
    for place in range(1, count):
        total += net[place : place + len(total)]
        np.maximum(known_at, flow.known_at[place : place + len(total)], out=known_at)
    # Timestamps strictly increase; on the period's grid, the right distance means that none is absent.
    span = flow.timestamp[count - 1 :] - flow.timestamp[: len(total)]
    total[span != (count - 1) * step] = np.nan
    return np.append(np.full(count - 1, np.nan), total), np.append(flow.known_at[: count - 1], known_at)
