"""Bars of trades: of time, volume and money, by hand; what sale conditions and corrections keep a trade from moving."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from market_data.model.bars import Cut, bars_of_trades
from market_data.model.dataset import TRADES
from market_data.model.errors import UsageError
from market_data.model.ticks import counting
from market_data.pipeline.read.bars import parse_cut

START = datetime(2024, 3, 4, 14, 30, tzinfo=UTC)


def tape(*rows: tuple[float, str, str] | tuple[float, str, str, dict[str, Any]], shares: bool = False) -> pl.DataFrame:
    """Trades of (seconds, price, size), and more where needed, as they count."""
    frame = pl.DataFrame(
        [
            {"timestamp": START + timedelta(seconds=row[0]), "trade_id": str(n), "price": Decimal(row[1]),
             "size": Decimal(row[2]), "aggressor_side": "buy" if n % 2 else "sell", "conditions": None,
             "correction": None, **(row[3] if len(row) == 4 else {})}
            for n, row in enumerate(rows)
        ],
        schema_overrides={"conditions": pl.List(pl.String), "correction": pl.Int64},
    )  # fmt: skip
    return counting(TRADES.conform(frame), shares=shares)


def test_bars_of_ninety_seconds() -> None:
    # 14:30:00 is a multiple of 90 s since midnight, 14:31:30 the next.
    made = bars_of_trades(
        tape((0, "10", "1"), (89.9, "12", "3"), (90, "11", "2"), (200, "9", "4")), Cut(every=timedelta(seconds=90))
    )
    assert made.select("timestamp", "open", "high", "low", "close", "volume", "quote_volume", "trade_count").rows() == [
        (START, 10, 12, 10, 12, 4, 46, 2),
        (START + timedelta(seconds=90), 11, 11, 11, 11, 2, 22, 1),
        (START + timedelta(seconds=180), 9, 9, 9, 9, 4, 36, 1),
    ]
    assert made["vwap"].to_list() == [Decimal("11.5"), 11, 9]
    assert made["taker_buy_volume"].to_list() == [3, 0, 4]


def test_a_trade_that_reaches_the_mark_ends_its_bar_whole() -> None:
    rows = tape((0, "10", "1"), (1, "11", "1"), (2, "12", "5"), (3, "13", "1"), (4, "14", "1"))
    volume = bars_of_trades(rows, Cut(volume=Decimal(3)))
    assert volume.select("open", "close", "volume", "complete").rows() == [(10, 12, 7, True), (13, 14, 2, False)]
    assert volume.select("timestamp", "end").row(0) == (START, START + timedelta(seconds=2))
    money = bars_of_trades(rows, Cut(money=Decimal(21)))
    # 10 + 11 = 21; 60; 13, 27.
    assert money["quote_volume"].to_list() == [21, 60, 27]
    assert money["complete"].to_list() == [True, True, True]


def test_bars_of_volume_begin_anew_each_day() -> None:
    late = 9.5 * 3600  # 00:00 UTC
    made = bars_of_trades(tape((0, "10", "2"), (late - 1, "11", "2"), (late, "12", "2")), Cut(volume=Decimal(5)))
    assert made.select("volume", "complete").rows() == [(4, False), (2, False)]


@pytest.mark.parametrize(
    ("conditions", "moved"),
    [
        # The tapes' matrix (high and low, last, volume) by the source's codes.
        (["0"], (True, True, True)), (["14", "41"], (True, True, True)), (["37"], (False, False, True)),
        (["12"], (False, False, True)), (["53"], (False, False, True)), (["33"], (True, False, True)),
        (["22"], (True, False, True)), (["15"], (False, False, False)), (["16"], (False, False, False)),
        (["38"], (True, True, False)), (["14", "37"], (False, False, True)),
    ],
)  # fmt: skip
def test_sale_conditions_of_shares(conditions: list[str], moved: tuple[bool, bool, bool]) -> None:
    (row,) = tape((0, "10", "1", {"conditions": conditions}), shares=True).to_dicts()
    assert (row["moves_range"], row["moves_price"], row["moves_volume"]) == moved


def test_an_odd_lot_adds_volume_and_moves_no_price() -> None:
    odd = {"conditions": ["37"]}
    rows = tape((0, "10", "100"), (1, "99", "5", odd), (2, "11", "100"), (3, "1", "5", odd), shares=True)
    (bar,) = bars_of_trades(rows, Cut(every=timedelta(minutes=1))).to_dicts()
    assert [bar[name] for name in ("open", "high", "low", "close", "volume")] == [10, 11, 10, 11, 210]


def test_a_late_report_stands_for_the_price_only_where_there_is_no_other() -> None:
    late = {"conditions": ["33"]}
    cut = Cut(every=timedelta(minutes=1))
    (alone,) = bars_of_trades(tape((0, "10", "1", late), shares=True), cut).to_dicts()
    assert (alone["open"], alone["close"]) == (10, 10)
    (beside,) = bars_of_trades(
        tape((0, "10", "1", late), (1, "12", "1"), (2, "9", "1", late), shares=True), cut
    ).to_dicts()
    assert [beside[name] for name in ("open", "high", "low", "close")] == [12, 12, 9, 12]


def test_where_no_trade_may_move_a_price_there_is_none() -> None:
    rows = tape((0, "10", "5", {"conditions": ["37"]}), shares=True)
    (bar,) = bars_of_trades(rows, Cut(every=timedelta(minutes=1))).to_dicts()
    assert (bar["open"], bar["high"], bar["close"], bar["volume"]) == (None, None, None, 5)


@pytest.mark.parametrize("void", [{"correction": 7}, {"correction": 8}, {"correction": 10}, {"correction": 11},
                                  {"correction": 12}, {"conditions": ["44"]}, {"conditions": ["54"]}])  # fmt: skip
def test_cancelled_and_erroneous_trades_did_not_happen(void: dict[str, Any]) -> None:
    rows = tape((0, "10", "1"), (1, "500", "9", void), (2, "11", "1", {"correction": 1}), shares=True)
    (bar,) = bars_of_trades(rows, Cut(every=timedelta(minutes=1))).to_dicts()
    assert (bar["high"], bar["close"], bar["volume"], bar["trade_count"]) == (11, 11, 2, 2)


def test_a_coins_conditions_say_the_side_and_keep_nothing_from_moving() -> None:
    (row,) = tape((0, "10", "1", {"conditions": ["2"]})).to_dicts()
    assert row["moves_range"] and row["moves_price"] and row["moves_volume"]


@pytest.mark.parametrize(
    ("every", "volume", "money"),
    [(None, None, None), ("1h", "5", None), ("7h", None, None), ("0s", None, None), ("hour", None, None),
     ("", None, None), (None, "0", None), (None, "-1", None), (None, "NaN", None), (None, None, "much")],
)  # fmt: skip
def test_a_cut_that_is_none(every: str | None, volume: str | None, money: str | None) -> None:
    with pytest.raises(UsageError):
        parse_cut(every, volume, money)


def test_lengths_as_typed() -> None:
    assert parse_cut("7m30s", None, None).every == timedelta(seconds=450)
    assert parse_cut("250ms", None, None).every == timedelta(milliseconds=250)
    assert parse_cut(None, None, "1e6").money == Decimal(1_000_000)
