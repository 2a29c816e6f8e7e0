"""Yahoo's dividends against its adjusted close: a wrong amount is repaired where both witnesses say so, else noted."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from market_data.providers.yahoo.parse import parse_chart
from market_data.providers.yahoo.payments import (
    NOTE_AMOUNT_REPAIRED,
    NOTE_AMOUNT_UNKNOWN,
    NOTE_NOT_ADJUSTED_UNKNOWN,
    NOTE_REPEATED_UNKNOWN,
    payments_settled,
)

RECORDINGS = Path(os.environ.get("MARKET_DATA_RECORDINGS", Path(__file__).parents[3] / "../shared/data"))
FIRST = datetime(2025, 1, 6, 14, 30, tzinfo=UTC)
CLOSE = 50.0
EX_DAYS = (20, 40, 60)


def settled(paid: dict[int, float], adjusted_for: dict[int, float]) -> list[tuple[Decimal, str | None]]:
    """What becomes of amounts `paid` by day, where the source adjusted for others; the close is always 50."""
    moments = [int((FIRST + timedelta(days=day)).timestamp()) for day in range(80)]
    adjusted, factor = [], 1.0
    for day in reversed(range(80)):
        adjusted.insert(0, CLOSE * factor)
        factor *= 1 - adjusted_for.get(day, 0) / CLOSE
    flat = [CLOSE] * 80
    result = {
        "meta": {"symbol": "A", "exchangeTimezoneName": "America/New_York", "dataGranularity": "1d"},
        "timestamp": moments,
        "events": {"dividends": {str(day): {"amount": amount, "date": moments[day]} for day, amount in paid.items()}},
        "indicators": {
            "quote": [dict.fromkeys(("open", "high", "low", "close", "volume"), flat)],
            "adjclose": [{"adjclose": adjusted}],
        },
    }
    chart = parse_chart(json.dumps({"chart": {"result": [result], "error": None}}).encode())
    assert chart is not None
    return [(payment.amount, note) for payment, note in payments_settled(chart)]


GOOD = dict.fromkeys(EX_DAYS, 0.5)
HALF = Decimal("0.5")


def test_amounts_that_the_adjusted_close_confirms() -> None:
    assert settled(GOOD, GOOD) == [(HALF, None)] * 3


@pytest.mark.parametrize("wrong", [50.0, 0.005])
def test_a_unit_that_both_witnesses_prove_wrong(wrong: float) -> None:
    assert settled(GOOD | {40: wrong}, GOOD) == [(HALF, None), (HALF, NOTE_AMOUNT_REPAIRED), (HALF, None)]


def test_without_other_payments_it_is_a_doubt() -> None:
    assert settled({40: 50.0}, {40: 0.5}) == [(Decimal("50.0"), NOTE_AMOUNT_UNKNOWN)]


def test_a_special_dividend_that_was_adjusted_for_stays() -> None:
    assert settled(GOOD | {40: 20.0}, GOOD | {40: 20.0})[1] == (Decimal("20.0"), NOTE_AMOUNT_UNKNOWN)
    assert settled(GOOD | {40: 10.0}, GOOD | {40: 10.0})[1] == (Decimal("10.0"), None)


def test_one_the_adjusted_close_does_not_know() -> None:
    assert settled(GOOD, {20: 0.5, 60: 0.5})[1] == (HALF, NOTE_NOT_ADJUSTED_UNKNOWN)


def test_the_same_amount_again_within_a_week() -> None:
    paid = GOOD | {43: 0.5}
    assert [note for _, note in settled(paid, paid)] == [None, NOTE_REPEATED_UNKNOWN, NOTE_REPEATED_UNKNOWN, None]


def test_recorded_dividends_are_confirmed() -> None:
    path = (
        RECORDINGS
        / "yahoo_finance2_fixtures"
        / ("historical-via-chart-MSFT-dividends-2021-02-01-to-2022-01-31.csv.json")
    )
    if not path.exists():
        pytest.skip(f"recording {path} is absent (set MARKET_DATA_RECORDINGS)")
    chart = parse_chart(json.dumps(json.loads(path.read_text())["response"]["bodyJson"]).encode())
    assert chart is not None
    assert [note for _, note in payments_settled(chart)] == [None] * 4
    assert [payment for payment, _ in payments_settled(chart)] == list(chart.payments)
