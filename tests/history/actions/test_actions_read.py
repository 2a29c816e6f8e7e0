"""Actions as they are told at every door: joined, with state, factor and who claims them; a person's decision."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import polars as pl
from history_desk import Desk

from market_data.model.dataset import DIVIDENDS, SPLITS, Dataset
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe
from market_data.pipeline.read.actions import believed
from market_data.storage.facts.append import Provenance, append
from market_data.storage.facts.claims import key_of, withdraw
from market_data.storage.server.database import Database

ZZZ = Instrument("ZZZ", AssetClass.STOCK)


def tell(desk: Desk, dataset: Dataset, row: dict[str, Any], source: str) -> None:
    desk.now += timedelta(minutes=1)
    with desk.database.transaction() as connection:
        origin = Provenance(source=source, now=desk.now, run_id=uuid4())
        append(connection, desk.database, dataset, ZZZ, dataset.conform(pl.DataFrame([row])), origin)


def test_events_are_told_with_state_factor_and_claims(database: Database, new_desk: Callable[..., Desk]) -> None:
    desk = new_desk(database, Series(ZZZ, Timeframe.D1))
    desk.now = datetime(2024, 7, 1, tzinfo=UTC)
    rows = []
    for day in (3, 4, 5, 6, 7, 10, 11, 12, 13, 14):
        price = Decimal(400) / (4 if day >= 11 else 1)
        values = dict.fromkeys(("open", "high", "low", "close"), price)
        rows.append({"timestamp": datetime(2024, 6, day, 13, 30, tzinfo=UTC), **values, "volume": 1})
    desk.offer(rows, "polygon")
    split = {"execution_date": date(2024, 6, 10), "split_from": 1, "split_to": 4}
    tell(desk, SPLITS, split, "polygon")
    tell(desk, SPLITS, split | {"execution_date": date(2024, 6, 11)}, "yahoo")
    paid = {"ex_date": date(2024, 6, 13), "amount": Decimal(1), "currency": "USD", "dividend_type": "cash"}
    tell(desk, DIVIDENDS, paid | {"pay_date": date(2024, 6, 28)}, "polygon")
    tell(desk, DIVIDENDS, paid | {"ex_date": date(2024, 6, 5), "amount": Decimal(900)}, "yahoo")

    found = believed(desk.reader, ZZZ, desk.now)
    assert [(each.kind, str(each.date), each.state.value, each.factor) for each in found] == [
        ("dividend", "2024-06-05", "unconfirmed", None),
        ("split", "2024-06-11", "confirmed", 0.25),
        ("dividend", "2024-06-13", "unconfirmed", 0.99),
    ]
    assert found[0].reason == "the dividend of 2024-06-05, 900, is not below the price, 400"
    assert {(claim["source"], str(claim["date"])) for claim in found[1].claims} == {
        ("polygon", "2024-06-10"),
        ("yahoo", "2024-06-11"),
    }
    assert (found[1].ratio, found[2].pay_date, found[2].currency) == (4.0, date(2024, 6, 28), "USD")

    # A person says that the payment was none.
    with database.transaction() as connection:
        origin = Provenance(source="yahoo", now=desk.now + timedelta(minutes=1), run_id=uuid4())
        key = key_of(DIVIDENDS, paid | {"ex_date": date(2024, 6, 5), "component": 1})
        assert withdraw(connection, DIVIDENDS, ZZZ, key, origin, by="somebody", comment="a typing error")
    later = believed(desk.reader, ZZZ, desk.now + timedelta(minutes=2))
    assert [each.state.value for each in later] == ["withdrawn", "confirmed", "unconfirmed"]
    changed = database.rows("SELECT corrected_by, reason, comment FROM data_corrections WHERE dataset = 'dividends'")
    assert changed == [{"corrected_by": "somebody", "reason": "manual_correction", "comment": "a typing error"}]
