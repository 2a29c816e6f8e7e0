"""What a backfill covers by default: its datasets, how far back, how far ahead, and in chunks of which length."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from market_data.model.dataset import (
    CANDLES,
    DIVIDENDS,
    EARNINGS,
    FUNDING_RATES,
    LONG_SHORT_RATIOS,
    NEWS,
    OPEN_INTEREST,
    OPTIONS,
    PREMIUM_INDEX,
    SPLITS,
    SPOT_FLOW,
    TAKER_VOLUMES,
    Dataset,
)
from market_data.model.errors import UsageError
from market_data.model.instrument import AssetClass

_COMPANIES: Final = frozenset({AssetClass.STOCK, AssetClass.ETF})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a backfill of this name is done.

    Attributes:
        days: how far back by default.
        ahead: days to come that are asked for too: announced dividends, the earnings calendar.
        chunk: how much is fetched between two notes of progress.
        most_symbols: how many symbols at most when none are named, the most actively traded first.
        recent: how far back the schedule looks again, since sources amend what is new.
    """

    datasets: tuple[Dataset, ...]
    days: int
    asset_classes: frozenset[AssetClass] = _COMPANIES
    ahead: int = 0
    chunk: timedelta = timedelta(days=366)
    most_symbols: int | None = None
    recent: timedelta = timedelta(days=30)

    def span(self, now: datetime, days: int | None = None) -> tuple[datetime, datetime]:
        """From midnight so many days ago to the past hour, or to midnight of the days to come that count too."""
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        start = midnight - timedelta(days=days or self.days)
        if self.ahead:
            return start, midnight + timedelta(days=self.ahead)
        return start, now.replace(minute=0, second=0, microsecond=0)


PLANS: Final = {
    "candles": Plan(datasets=(CANDLES,), days=365, asset_classes=frozenset(AssetClass)),
    "dividends": Plan(datasets=(DIVIDENDS,), days=3650, ahead=90, chunk=timedelta(days=3800)),
    "splits": Plan(datasets=(SPLITS,), days=3650, ahead=90, chunk=timedelta(days=3800)),
    "earnings": Plan(datasets=(EARNINGS,), days=1095, ahead=90, chunk=timedelta(days=1200)),
    # In one chunk up to the present: no source tells chains of the past, each gives the one of now.
    "options-iv": Plan(datasets=(OPTIONS,), days=30, most_symbols=50, recent=timedelta(days=1)),
    "news": Plan(
        datasets=(NEWS,), days=30, chunk=timedelta(days=10), asset_classes=frozenset(AssetClass),
        recent=timedelta(days=2),
    ),
    # Liquidations are not among them: no source tells the past of them, only the live stream.
    "derivatives": Plan(
        datasets=(FUNDING_RATES, OPEN_INTEREST, LONG_SHORT_RATIOS, TAKER_VOLUMES, SPOT_FLOW, PREMIUM_INDEX), days=30,
        chunk=timedelta(days=5), asset_classes=frozenset({AssetClass.CRYPTO}), recent=timedelta(hours=12),
    ),
}  # fmt: skip


def plan_named(name: str) -> Plan:
    """The plan of that name.

    Raises:
        UsageError: naming the valid ones.
    """
    if name not in PLANS:
        raise UsageError(f"unknown dataset {name!r}; valid: {', '.join(PLANS)}")
    return PLANS[name]


def plan_of(dataset: str) -> Plan:
    """The plan a dataset belongs to."""
    return next(plan for plan in PLANS.values() if any(member.name == dataset for member in plan.datasets))
