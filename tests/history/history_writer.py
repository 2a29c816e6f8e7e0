"""A writer that offers, amends and corrects candles for a while; as a program it prints how often it did."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from history_desk import Desk

from market_data.bootstrap.shelves import open_shelves
from market_data.model.errors import UsageError
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe
from market_data.pipeline.write.amend import Amender
from market_data.pipeline.write.derive import Shelves
from market_data.storage.server.database import Database

CANDLES = 60


def write_for(database: Database, shelves: Shelves, every: Sequence[Series], rng: random.Random, seconds: float) -> int:
    """Write for so many seconds; returns how many batches. Errors of the database are not caught."""
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        desk = Desk(database, shelves, rng.choice(every))
        desk.now = datetime.now(UTC)
        first = rng.randrange(CANDLES)
        close = f"{Decimal(rng.randrange(6000, 14000)) / 100}"
        if rng.random() < 0.2:
            amender = Amender(database, shelves, lambda: datetime.now(UTC), "writer")
            try:
                if rng.random() < 0.5:
                    amender.correct(desk.series, desk.at(first), {"close": close}, "test")
                else:
                    amender.revert(desk.series, desk.at(first), "test")
            except UsageError:
                pass  # not stored yet, or not corrected: a person would be told so
        else:
            rows = [desk.candle(i, close) for i in range(first, min(first + rng.randrange(1, 12), CANDLES))]
            desk.offer(rows, rng.choice(("binance", "yahoo")))
        count += 1
    return count


def main(url: str, number: int, seconds: float) -> None:
    """Write to two series of one instrument."""
    both = [Series(Instrument("BTC", AssetClass.CRYPTO), timeframe) for timeframe in (Timeframe.H1, Timeframe.M30)]
    with Database.open(url, None) as database:
        print(write_for(database, open_shelves(), both, random.Random(number), seconds))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
