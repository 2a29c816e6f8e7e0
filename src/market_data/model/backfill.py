"""Backfill: how the past of a dataset is filled, and how its newest rows are kept up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from market_data.model.instrument import AssetClass

COMPANIES: Final = frozenset({AssetClass.STOCK, AssetClass.ETF})
COINS: Final = frozenset({AssetClass.CRYPTO})
EVERYTHING: Final = frozenset(AssetClass)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """What a backfill of this name covers unless something else is asked for; datasets may share one.

    Attributes:
        name: what it is called on the command line.
        days: how far back by default.
        asset_classes: of which instruments.
        ahead: days to come that are asked for too: announced dividends, the earnings calendar.
        chunk: how much is fetched between two notes of progress.
        most_symbols: how many symbols at most when none are named, the most actively traded first.
        recent: how far back the schedule looks again, since sources amend what is new.
        whole: whether its lists are short, so that what is asked for is always asked for whole, covered before or not.
        present: whether no source tells the past of it, only the moment it is asked.
        schedule: `daily` with what companies announce, `hourly` with the candles of coins; None: only when asked for.
    """

    name: str
    days: int
    asset_classes: frozenset[AssetClass] = COMPANIES
    ahead: int = 0
    chunk: timedelta = timedelta(days=366)
    most_symbols: int | None = None
    recent: timedelta = timedelta(days=30)
    whole: bool = False
    present: bool = False
    schedule: Literal["daily", "hourly"] | None = "daily"

    def span(self, now: datetime, days: int | None = None) -> tuple[datetime, datetime]:
        """From midnight so many days ago to the past hour, or to midnight of the days to come that count too."""
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        if self.present:
            return midnight, midnight + timedelta(days=1)
        start = midnight - timedelta(days=days or self.days)
        if self.ahead:
            return start, midnight + timedelta(days=self.ahead)
        return start, now.replace(minute=0, second=0, microsecond=0)
