"""Every rule with a row written by hand that breaks it, and one beside it that does not."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rule_rows import RULES, WEDNESDAY_OPEN, verdicts

from market_data.model.rule import Severity

NAN, INFINITE = float("nan"), float("inf")

BREAKING_ROWS = [
    ("price_not_positive", {"low": 0.0}),
    ("price_not_positive", {"open": -10.0}),
    ("price_not_positive", {"close": 0.0}),
    ("value_not_finite", {"high": INFINITE}),
    ("value_not_finite", {"volume": NAN}),
    ("value_not_finite", {"vwap": -INFINITE}),
    ("high_too_low", {"high": 10.99}),
    ("high_too_low", {"high": 8.0}),
    ("low_too_high", {"low": 10.01}),
    ("negative_volume", {"volume": -0.001}),
    ("negative_volume", {"trade_count": -1}),
    ("taker_volume_too_high", {"taker_buy_volume": 100.5}),
    ("off_grid", {"end": None}),
    ("duplicate_timestamp", {"first_of_timestamp": False}),
    ("source_disagreement", {"disagrees": True}),
    ("source_in_doubt", {"notes": "delayed; later_splits_unknown"}),
    ("ended_early", {"notes": "delayed; cut_short"}),
    # The session of Wednesday 2024-07-10 is 13:30 to 20:00 UTC; the 4th is a holiday, the 3rd closes at 17:00.
    ("outside_session", {"timestamp": WEDNESDAY_OPEN - timedelta(microseconds=1)}),
    ("outside_session", {"timestamp": datetime(2024, 7, 10, 20, tzinfo=UTC)}),
    ("outside_session", {"timestamp": datetime(2024, 7, 13, 15, tzinfo=UTC)}),
    ("outside_session", {"timestamp": datetime(2024, 7, 4, 15, tzinfo=UTC)}),
    ("outside_session", {"timestamp": datetime(2024, 7, 3, 17, tzinfo=UTC), "asset_class": "etf"}),
]
FINE_ROWS = [
    ("source_in_doubt", {"notes": "unadjusted_for_splits; volume_includes_extended_hours"}),
    ("high_too_low", {"open": 12.0, "close": 12.0, "high": 12.0, "low": 12.0}),
    ("low_too_high", {"open": 9.0, "close": 9.0}),
    ("negative_volume", {"volume": 0.0}),
    ("taker_volume_too_high", {"taker_buy_volume": 100.0}),
    ("outside_session", {"timestamp": datetime(2024, 7, 10, 19, 59, 59, tzinfo=UTC)}),
    ("outside_session", {"timestamp": datetime(2024, 7, 3, 16, 59, tzinfo=UTC)}),
    ("outside_session", {"timestamp": datetime(2024, 7, 13, 15, tzinfo=UTC), "asset_class": "crypto"}),
]


@pytest.mark.parametrize(("name", "row"), BREAKING_ROWS)
def test_the_row_breaks_the_rule(name: str, row: dict[str, object]) -> None:
    assert verdicts(name, [{}, row]) == [True, False]


@pytest.mark.parametrize(("name", "row"), FINE_ROWS)
def test_the_row_at_the_border_is_fine(name: str, row: dict[str, object]) -> None:
    assert verdicts(name, [row]) == [True]


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.lookback == 0])
def test_a_good_row_breaks_no_rule(name: str) -> None:
    assert verdicts(name, [{}]) == [True]


def series(**columns: list[object]) -> list[dict[str, object]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


# 31 returns: 11 times 0, 10 times +1 %, 10 times -1 %. Median 0; 20 of 31 lie 1 % from it, so the spread is 1 %.
QUIET = [0.0, 0.01, -0.01] * 10 + [0.0]


def closes_of(returns: list[float]) -> list[object]:
    prices = [100.0]
    for value in returns:
        prices.append(prices[-1] * 2.718281828459045**value)
    return list(prices)


@pytest.mark.parametrize(
    ("move", "fine"),
    # 12 × 1.4826 × 0.01 = 0.1779
    [(0.17, True), (-0.17, True), (0.18, False), (-0.18, False), (0.0, True)],
)
def test_price_jump(move: float, fine: bool) -> None:
    closes = closes_of([*QUIET, move])
    assert verdicts("price_jump", series(close=closes))[-1] is fine


@pytest.mark.parametrize(("move", "fine"), [(0.0099, True), (0.0101, False)])
def test_a_price_that_stood_still_may_move_a_little(move: float, fine: bool) -> None:
    closes = closes_of([0.0] * 31 + [move])
    assert verdicts("price_jump", series(close=closes))[-1] is fine


@pytest.mark.parametrize(("ticks", "fine"), [(1, True), (2, True), (5, False)])
def test_a_coarse_tick_is_no_jump(ticks: int, fine: bool) -> None:
    # At 50 ticks one tick is 2 %. Of 31 returns 25 are 0, so their spread is 0; 6 are a tick up or down.
    prices: list[object] = [50e-8, *([51e-8] * 8), *([50e-8] * 8), *([51e-8] * 5), *([50e-8] * 5), *([51e-8] * 4)]
    prices = [*prices, 50e-8, (50 + ticks) * 1e-8]
    assert len(prices) == 33
    assert verdicts("price_jump", series(close=prices))[-1] is fine


def test_price_jump_needs_its_whole_window() -> None:
    assert verdicts("price_jump", series(close=closes_of([*QUIET[1:], 0.5]))) == [True] * 32


def test_the_candle_after_a_jump_is_judged_by_itself() -> None:
    closes = closes_of([*QUIET, 0.5, 0.0])
    assert verdicts("price_jump", series(close=closes))[-2:] == [False, True]


@pytest.mark.parametrize(
    ("volume", "fine"),
    # The 21 before are 90 … 110: median 100.
    [(1000.0, True), (1000.1, False), (2.0, True), (1.9, False), (0.0, False)],
)
def test_volume_anomaly(volume: float, fine: bool) -> None:
    volumes: list[object] = [*(90.0 + n for n in range(21)), volume]
    assert verdicts("volume_anomaly", series(volume=volumes)) == [True] * 21 + [fine]


def test_trading_after_quiet_candles_is_no_volume_anomaly() -> None:
    volumes: list[object] = [0.0] * 11 + [5.0] * 10 + [7.0]
    assert verdicts("volume_anomaly", series(volume=volumes))[-1] is True


def test_frozen_price() -> None:
    still: list[object] = [50.0] * 11
    moving: list[object] = [50.01, *still[1:]]
    assert verdicts("frozen_price", series(high=moving, low=still)) == [True] * 9 + [True, False]


def test_gap() -> None:
    hour = timedelta(hours=1)
    opens: list[object] = [WEDNESDAY_OPEN + n * hour for n in (0, 1, 3)]
    expected: list[object] = [WEDNESDAY_OPEN - hour, WEDNESDAY_OPEN, WEDNESDAY_OPEN + 2 * hour]
    assert verdicts("gap", series(timestamp=opens, previous_expected=expected)) == [True, True, False]


def test_every_rule_is_named_by_a_test() -> None:
    named = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in RULES if f'"{name}"' not in named] == []


def test_rejecting_rules_look_at_the_row_alone() -> None:
    assert all(rule.lookback == 0 for rule in RULES.values() if rule.severity is Severity.REJECT)
