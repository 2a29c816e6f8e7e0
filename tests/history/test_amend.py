"""Corrections by hand: they stand, they ripple, they are on record, and they can be taken back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from market_data.model.errors import UsageError
from market_data.pipeline.write.amend import Amender
from market_data.storage.series.present import Counts


@pytest.fixture
def amender(desk: Any) -> Amender:
    return Amender(desk.database, desk.shelves, lambda: desk.now, "alice")


def standing(desk: Any, position: int) -> tuple[Decimal, str, int]:
    row = desk.present().row(position, named=True)
    return row["close"], row["source"], row["revision"]


def test_a_correction_stands_against_its_source_until_it_is_reverted(desk: Any, amender: Amender) -> None:
    desk.offer([desk.candle(i) for i in range(3)])
    change = amender.correct(desk.series, desk.at(1), {"close": "104.5"}, "misprint, see the exchange's notice")
    assert change.counts == Counts(updated=1)
    assert standing(desk, 1) == (Decimal("104.5"), "manual", 2)
    desk.now += timedelta(minutes=1)
    assert desk.offer([desk.candle(1)]).counts == Counts(unchanged=1)
    assert desk.offer([desk.candle(1, "100.1")]).counts == Counts(kept=1)
    assert desk.offer([desk.candle(1, "100.2")], "yahoo").counts == Counts(kept=1)
    assert standing(desk, 1) == (Decimal("104.5"), "manual", 2)
    amender.revert(desk.series, desk.at(1), "the notice was wrong")
    assert standing(desk, 1) == (Decimal("100.1"), "binance", 3)
    assert desk.offer([desk.candle(1, "100.1")]).counts == Counts(unchanged=1)
    found = desk.table(
        "data_corrections", "field_corrected, old_value, new_value, reason, source, corrected_by, comment", "id"
    )
    why = "misprint, see the exchange's notice"
    assert found == [
        ("close", "100", "104.5", "manual_correction", "manual", "alice", why),
        ("close", "104.5", "100.1", "manual_correction", "binance", "alice", "the notice was wrong"),
    ]


def test_the_same_correction_again_after_taking_it_back(desk: Any, amender: Amender) -> None:
    desk.offer([desk.candle(0)])
    for revision in (2, 4):
        amender.correct(desk.series, desk.at(0), {"close": "104"}, "misprint")
        assert standing(desk, 0) == (Decimal(104), "manual", revision)
        amender.revert(desk.series, desk.at(0), "")
        assert standing(desk, 0) == (Decimal(100), "binance", revision + 1)


def test_reverting_restores_the_source_that_would_stand(desk: Any, amender: Amender) -> None:
    desk.offer([desk.candle(0, taker_buy_volume=None)], "yahoo")
    amender.correct(desk.series, desk.at(0), {"close": "104"}, "misprint")
    amender.correct(desk.series, desk.at(0), {"close": "105"}, "misprint, again")
    assert desk.offer([desk.candle(0, "101")], "binance").counts == Counts(kept=1)
    amender.revert(desk.series, desk.at(0), "")
    assert standing(desk, 0) == (Decimal(101), "binance", 4)


def test_a_correction_reaches_the_features_of_later_candles(
    desk: Any, amender: Amender, database: Any, new_desk: Callable[..., Any]
) -> None:
    desk.offer([desk.candle(i, str(100 + i % 5)) for i in range(120)])
    change = amender.correct(desk.series, desk.at(30), {"close": "140"}, "misprint")
    assert change.reached == desk.shelves.lookback(desk.series) == 50
    present = desk.present()
    assert present.filter(present["updated_at"] > present["created_at"])["timestamp"].to_list() == [
        desk.at(i) for i in range(30, 81)
    ]
    assert present["sma_20"][49] == pytest.approx((sum(100 + i % 5 for i in range(31, 50)) + 140) / 20)


@pytest.mark.parametrize(
    ("position", "values", "comment", "message"),
    [
        (5, {"close": "1"}, "why", "No candle of BTC 1h at 2024-12-31T17:00:00Z is stored"),
        (0, {"price": "1"}, "why", "no field 'price'"),
        (0, {"close": "abc"}, "why", "close=abc: not a number"),
        (0, {"close": "NaN"}, "why", "close=NaN: not a number"),
        (0, {"close": "1e25"}, "why", "not a number with up to 20 digits"),
        (0, {"close": "200"}, "why", "would be rejected: high_too_low"),
        (0, {"close": ""}, "why", "would be rejected: value_missing"),
        (0, {"close": "100.000"}, "why", "already has these values"),
        (0, {"close": "101"}, " ", "needs a reason"),
        (0, {}, "why", "give field=value"),
    ],
)
def test_what_cannot_be_corrected(
    desk: Any, amender: Amender, position: int, values: dict[str, str], comment: str, message: str
) -> None:
    desk.offer([desk.candle(0)])
    before = desk.present()
    with pytest.raises(UsageError, match=message):
        amender.correct(desk.series, desk.at(position), values, comment)
    assert desk.present().equals(before)
    assert desk.table("runs", "count(*)", "1") == [(0,)]


def test_only_a_correction_can_be_reverted(desk: Any, amender: Amender) -> None:
    desk.offer([desk.candle(0)])
    with pytest.raises(UsageError, match="not corrected by hand"):
        amender.revert(desk.series, desk.at(0), "")
