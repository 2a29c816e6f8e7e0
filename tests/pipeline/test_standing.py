"""Where an instrument stands: by what is tracked of it, not by history that nobody keeps current."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import Timeframe
from market_data.pipeline.read.status import Standing, reaches_of

KO = Instrument("KO", AssetClass.STOCK)
# A Thursday noon in New York; the last daily candle is Wednesday's.
NOW = datetime(2026, 3, 5, 17, tzinfo=UTC)
CURRENT = {Timeframe.D1: datetime(2026, 3, 4, 14, 30, tzinfo=UTC)}
OLD = {Timeframe.W1: datetime(2012, 12, 24, 14, 30, tzinfo=UTC)}
OLD_DAYS = {Timeframe.D1: datetime(2012, 12, 24, 14, 30, tzinfo=UTC)}


def standing(lasts: dict[Timeframe, datetime], *followed: Timeframe, score: float = 1.0) -> Standing:
    return Standing(
        instrument=KO,
        enrichment={},
        records=10,
        quality_score=score,
        validation_rate=100.0,
        reaches=reaches_of(KO, lasts),
        followed=frozenset(followed),
    )


@pytest.mark.parametrize(
    ("lasts", "followed", "status", "history"),
    [
        (CURRENT | OLD, [Timeframe.D1], "healthy", ["1w"]),
        (CURRENT | OLD, [Timeframe.D1, Timeframe.W1], "stale", []),
        (OLD_DAYS, [Timeframe.D1], "stale", []),
        (OLD_DAYS | OLD, [], "healthy", ["1d", "1w"]),
        (OLD, [Timeframe.D1], "not_enriched", ["1w"]),
        ({}, [], "not_enriched", []),
    ],
)
def test_only_what_is_tracked_can_be_stale(
    lasts: dict[Timeframe, datetime], followed: list[Timeframe], status: str, history: list[str]
) -> None:
    fields = standing(lasts, *followed).fields(NOW)
    assert (fields["status"], fields["history"]) == (status, history)


def test_history_is_judged_by_its_quality() -> None:
    assert standing(OLD, score=0.5).status(NOW) == "stale"
    assert standing(OLD).lag(NOW) == timedelta(0)
