"""As known at a moment, with everything a candle is derived from: values of other clocks come late and are amended."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from history_desk import START, Desk, content
from polars.testing import assert_frame_equal

from asking_sources import asking
from market_data.model.contract import Listing
from market_data.model.dataset import (
    FUNDING_RATES,
    LIQUIDATIONS,
    LONG_SHORT_RATIOS,
    OPEN_INTEREST,
    SPOT_FLOW,
    Dataset,
)
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Capability, Page, Provider
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.fetch.facts import Collector
from market_data.pipeline.write.recompute import Recomputation

CANDLES = 80
DERIVED = (
    "open_interest",
    "funding_rate",
    "liquidations_long",
    "liquidations_short",
    "liquidation_intensity",
    "long_short_ratio",
    "funding_rate_percentile",
    "exchange_inflow",
    "open_interest_change",
)
# Per dataset: how far apart its values are, since how long before the first candle, and what each says by a number.
KINDS: dict[Dataset, tuple[timedelta, timedelta, Callable[[int], dict[str, Any]]]] = {
    FUNDING_RATES: (
        timedelta(hours=8),
        timedelta(days=40),
        lambda n: {"rate_type": "Regular", "rate": Decimal(n % 17) / 10_000},
    ),
    OPEN_INTEREST: (timedelta(minutes=30), timedelta(hours=3), lambda n: {"value": Decimal(1000 + n % 13)}),
    LONG_SHORT_RATIOS: (
        timedelta(hours=1),
        timedelta(hours=3),
        lambda n: {"kind": "global_accounts", "ratio": Decimal(10 + n % 11) / 10},
    ),
    SPOT_FLOW: (
        timedelta(hours=1),
        timedelta(0),
        lambda n: {"period": "1h", "buy_quote": Decimal(50 + n % 7), "sell_quote": Decimal(40 + n % 5)},
    ),
    LIQUIDATIONS: (
        timedelta(minutes=40),
        timedelta(0),
        lambda n: {"side": "long" if n % 3 else "short", "price": Decimal(100), "size": Decimal(1 + n % 4)},
    ),
}


class Telling(Provider):
    """A provider that says one thing."""

    name = "telling"
    capabilities = tuple(Capability(dataset=dataset, asset_classes=frozenset({AssetClass.CRYPTO})) for dataset in KINDS)

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    async def resolve(self, instrument: Instrument) -> Listing:
        return Listing(instrument, self.name, instrument.symbol)

    async def fetch_candles(
        self, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        raise AssertionError(f"nobody asks for {timeframe} of {instrument} from {start} to {end} at {now}")
        yield

    async def fetch(
        self, dataset: Dataset, instrument: Instrument, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        assert (dataset in KINDS, start < end, instrument.symbol) == (True, True, "BTC")
        yield Page(frame=self.frame, source=self.name, fetched_at=now, response_ms=1.0)


def said(dataset: Dataset, rng: random.Random) -> pl.DataFrame:
    """A stretch of values, each with a number drawn anew: told twice, some are amended and some are the same."""
    apart, before, values = KINDS[dataset]
    count = (timedelta(hours=CANDLES) + before) // apart
    first = rng.randrange(count)
    chosen = range(count) if rng.random() < 0.5 else range(first, rng.randrange(first, count) + 1)
    rows = []
    for place in chosen:
        moment = START - before + place * apart
        row = {"timestamp": moment, "known_at": moment, **values(place * 3 + rng.randrange(2))}
        rows.append(row | ({"liquidation_id": str(place)} if dataset is LIQUIDATIONS else {}))
    return dataset.conform(pl.DataFrame(rows, infer_schema_length=None))


def tell(desk: Desk, dataset: Dataset, frame: pl.DataFrame) -> None:
    """Collect values and renew what follows from them, as the hourly run does."""
    collector = Collector(asking(desk.database, {AssetClass.CRYPTO: [Telling(frame)]}, lambda: desk.now), desk.shelves)
    span = TimeRange(START - timedelta(days=60), desk.now)
    collected = asyncio.run(collector.collect(dataset, desk.series.instrument, span))
    assert collected.error is None
    for _ in Recomputation(desk.database, desk.shelves, lambda: desk.now).run():
        pass
    desk.now += timedelta(minutes=1)


def offer(desk: Desk, rng: random.Random) -> None:
    """Candles, some of them other ones than before; of a source with takers or of one without."""
    whole = rng.random() < 0.5
    first = 0 if whole else rng.randrange(CANDLES)
    last = CANDLES if whole else rng.randrange(first, CANDLES) + 1
    takers = "4" if rng.random() < 0.7 else None
    rows = [desk.candle(i, str(100 + (i + rng.randrange(2)) % 9), taker_buy_volume=takers) for i in range(first, last)]
    desk.offer(rows, "binance" if takers else "yahoo")


def history(desk: Desk, seed: int, events: int) -> None:
    """So many events in random order, after each of which the state is remembered; then every one is asked for."""
    rng = random.Random(seed)
    remembered = [(desk.now - timedelta(minutes=1), desk.present())]
    kinds: list[Dataset | None] = [None, *KINDS]
    order = [*kinds, *(rng.choice(kinds) for _ in range(events - len(kinds)))]
    rng.shuffle(order)
    for kind in order:
        if kind is None:
            offer(desk, rng)
        else:
            tell(desk, kind, said(kind, rng))
        remembered.append((desk.now, desk.present()))
        desk.now += timedelta(minutes=1)
    for moment, then in remembered:
        assert_frame_equal(content(desk.known(moment)), content(then), check_exact=True)
    last = remembered[-1][1]
    assert [name for name in DERIVED if last[name].null_count() == last.height] == []


def test_values_that_come_late_and_are_amended(desk: Desk) -> None:
    history(desk, seed=1, events=12)


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(2, 22))
def test_values_in_many_orders(desk: Desk, seed: int) -> None:
    history(desk, seed, events=30)
