"""`prove` holds on good data, and tells each kind of damage."""

from __future__ import annotations

from typing import Any

import pytest

from market_data.pipeline.read.prove import Prover


@pytest.fixture
def proved(desk: Any) -> Any:
    """A series with corrections of every kind."""
    desk.offer([desk.candle(i, str(100 + i % 9)) for i in range(300)])
    desk.offer([desk.candle(i, "111") for i in range(100, 110)])
    desk.offer([desk.candle(i, "113", taker_buy_volume=None) for i in range(200, 220)], "yahoo")
    desk.offer([desk.candle(i, str(90 + i % 4), trade_count=3) for i in range(105, 108)])
    return desk


def prove(desk: Any) -> dict[str, list[str]]:
    prover = Prover(desk.database, desk.shelves, lambda: desk.now, samples=3)
    checks = list(prover.prove(desk.series))
    assert sum(bool(check.cases) for check in checks) >= 5
    return {check.promise: check.failures for check in checks if not check.holds}


def test_all_promises_hold(proved: Any) -> None:
    before = proved.present()
    assert prove(proved) == {}
    assert proved.present().equals(before)
    assert proved.table("quarantine", "count(*)", "1") == [(0,)]


@pytest.mark.parametrize(
    ("damage", "promises"),
    [
        (
            "UPDATE market_data_v2 SET sma_20 = sma_20 + 1e-9 WHERE sma_20 IS NOT NULL",
            {"where the computation starts does not matter", "as known at a moment"},
        ),
        (
            "UPDATE market_data_v2 SET close = close + 1",
            {"as known at a moment"},
        ),
        ("DELETE FROM data_corrections", {"as known at a moment"}),
        ("DELETE FROM coverage", {"coverage adds up"}),
        ("DELETE FROM market_data_v2 WHERE timestamp < '2025-01-01T00:00Z'", {"coverage adds up"}),
        ("UPDATE candles SET high = 1 WHERE source = 'binance'", {"the same again changes nothing"}),
    ],
)
def test_damage_is_told(proved: Any, damage: str, promises: set[str]) -> None:
    proved.database.rows(damage)
    assert promises <= set(prove(proved))


def test_nothing_stored(desk: Any) -> None:
    prover = Prover(desk.database, desk.shelves, lambda: desk.now)
    assert [check.failures for check in prover.prove(desk.series)] == [[]] * 6
