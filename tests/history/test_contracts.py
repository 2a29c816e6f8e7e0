"""Rows know their contract: another one's is marked, never takes the place of the series' own, and gives way to it."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from market_data.model.contract import Contract, contract_cuts
from market_data.model.instrument import Kind
from market_data.storage.facts.contracts import lives_of, tie
from market_data.storage.series.present import Counts


def perpetual(quote: str) -> Contract:
    return Contract(
        venue="BINANCE", market="usdm", raw_symbol=f"BTC{quote}", kind=Kind.PERPETUAL, base="BTC", quote=quote,
        settlement=quote,
    )  # fmt: skip


OWN, OTHER = perpetual("USDT"), perpetual("USDC")
SPOT = Contract(venue="BINANCE", market="spot", raw_symbol="BTCUSDT", kind=Kind.SPOT, base="BTC", quote="USDT")


@pytest.fixture
def tied(desk: Any) -> Any:
    with desk.database.transaction() as connection:
        (own,) = lives_of(connection, OWN, desk.now)
        tie(connection, desk.series.instrument, own.contract_id, source="binance", reason="listed first", now=desk.now)
    return desk


def shown(desk: Any) -> list[tuple[int, str | None, bool]]:
    """Per row: close, remarks, whether its contract is the series' own."""
    own = desk.database.rows("SELECT contract_id FROM contract_ties")[0]["contract_id"]
    rows = desk.present().select("close", "validation_notes", "contract_id")
    return [(int(close), notes, number == own) for close, notes, number in rows.iter_rows()]


def test_the_same_source_with_another_contract_amends_nothing(tied: Any) -> None:
    tied.offer([tied.candle(0), tied.candle(1)], contract=OWN)
    outcome = tied.offer([tied.candle(0, "101"), tied.candle(1, "102")], contract=OTHER)
    assert outcome.counts == Counts(kept=2)
    assert shown(tied) == [(100, None, True), (100, None, True)]
    assert tied.table("data_corrections", "*", "id") == []


def test_another_contract_stands_in_marked_and_gives_way_even_to_an_older_and_later_row(tied: Any) -> None:
    tied.offer([tied.candle(0, "99")], "binance:spot", contract=SPOT)
    assert shown(tied) == [(99, "other_contract", False)]
    # Fetched hours late, so that its freshness scores nothing.
    outcome = tied.offer([tied.candle(0, "98")], late_seconds=7200, contract=OWN)
    assert outcome.counts == Counts(updated=1)
    assert shown(tied) == [(98, None, True)]
    # And what stood in says it again: not one row written.
    assert tied.offer([tied.candle(0, "99")], "binance:spot", contract=SPOT).counts == Counts(unchanged=1)


def test_what_stands_in_scores_lower(tied: Any) -> None:
    tied.offer([tied.candle(0)], contract=OWN)
    tied.offer([tied.candle(1)], "binance:spot", contract=SPOT)
    own, other = tied.present()["quality_score"]
    assert other == pytest.approx(own - 0.3)
    assert [round(score, 2) for (score,) in tied.table("candles", "quality_score", "timestamp")] == [1.0, 0.7]


def test_without_an_own_contract_two_of_one_source_are_two_sources(desk: Any) -> None:
    desk.offer([desk.candle(0)], contract=OWN)
    assert desk.offer([desk.candle(0, "101")], contract=OTHER).counts == Counts(kept=1)
    # Its own amendment is one still.
    assert desk.offer([desk.candle(0, "102")], contract=OWN).counts == Counts(updated=1)
    assert desk.offer([desk.candle(0, "101")], contract=OTHER).counts == Counts(unchanged=1)


def test_a_row_whose_contract_nobody_knew_is_amended_by_its_source(tied: Any) -> None:
    tied.offer([tied.candle(0)])
    assert tied.offer([tied.candle(0)], contract=OWN).counts == Counts(unchanged=1)
    assert tied.offer([tied.candle(0, "101")], contract=OWN).counts == Counts(updated=1)
    assert shown(tied) == [(101, None, True)]


def test_a_correction_by_hand_keeps_the_contract(tied: Any) -> None:
    from market_data.pipeline.write.amend import Amender

    tied.offer([tied.candle(0)], contract=OWN)
    amender = Amender(tied.database, tied.shelves, lambda: tied.now, "somebody")
    amender.correct(tied.series, tied.at(0), {"close": "105"}, "a typing error of the exchange")
    assert shown(tied) == [(105, None, True)]
    tied.now = tied.now.replace(year=tied.now.year + 1)
    amender.revert(tied.series, tied.at(0), "")
    assert shown(tied) == [(100, None, True)]


def test_a_series_is_cut_where_its_contract_changes_and_nowhere_else() -> None:
    assert contract_cuts(pl.Series([7, 7, 8, 8, 7], dtype=pl.Int32)).tolist() == [2, 4]
    assert contract_cuts(pl.Series([None, None, 7, None, 7, 8], dtype=pl.Int32)).tolist() == [5]
    assert contract_cuts(pl.Series([None, None], dtype=pl.Int32)).tolist() == []
    assert contract_cuts(pl.Series([], dtype=pl.Int32)).tolist() == []


@pytest.mark.parametrize(
    ("contract", "symbol"),
    [
        (OWN, "BTC/USDT:USDT"),
        (SPOT, "BTC/USDT"),
        (
            Contract(venue="US", market="shares", raw_symbol="BRK.B", kind=Kind.STOCK, base="BRK.B", quote="USD"),
            "BRK.B",
        ),
    ],
)
def test_the_exact_notation(contract: Contract, symbol: str) -> None:
    assert contract.symbol == symbol
