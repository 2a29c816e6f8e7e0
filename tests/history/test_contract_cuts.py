"""No window crosses a change of contract: null until full, nothing noted, no score lowered for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import polars as pl
from history_desk import BTC_HOURS, Desk
from polars.testing import assert_frame_equal

from market_data.model.timeframe import TimeRange
from market_data.pipeline.read.explain import explain
from market_data.pipeline.write.ingest import Batch, Purpose, ingest
from market_data.storage.server.database import Database


def offer(desk: Desk, rows: pl.DataFrame, contract_id: int | None) -> None:
    span = TimeRange(rows["timestamp"][0], rows["timestamp"][-1] + timedelta(hours=1))
    batch = Batch(
        series=desk.series,
        frame=rows,
        source="binance",
        fetched_at=desk.now,
        requested_at=desk.now,
        span=span,
        response_ms=1.0,
        quota_remaining=None,
        contract_id=contract_id,
    )
    ingest(desk.database, desk.shelves, batch, Purpose(run_id=uuid5(NAMESPACE_OID, str(span)), span=span),
           lambda: desk.now)  # fmt: skip
    desk.now += timedelta(minutes=1)


def walk(desk: Desk, count: int) -> pl.DataFrame:
    """Half of it at 100, half at 7: another contract's prices."""
    rng = np.random.default_rng(8)
    close = np.r_[np.full(count // 2, 100.0), np.full(count - count // 2, 7.0)] * np.exp(rng.normal(0, 0.01, count))
    return desk.frame(
        [
            desk.candle(row, f"{price:.2f}", open=f"{price:.2f}", high=f"{price + 1:.2f}", low=f"{price - 1:.2f}")
            for row, price in enumerate(close)
        ]
    )


def test_null_until_full_and_nothing_noted(new_desk: Callable[..., Desk], database: Database) -> None:
    desk = new_desk(database, BTC_HOURS)
    rows = walk(desk, 160)
    offer(desk, rows[:80], 1)
    offer(desk, rows[80:], 2)
    found = desk.present()
    for feature in desk.shelves.features:
        if feature.observations or not feature.applies(BTC_HOURS) or "open_interest" in feature.inputs:
            continue
        if any(name.startswith("liquidations") for name in feature.inputs):
            continue
        column, lookback = found[feature.name], feature.lookback_for(BTC_HOURS)
        assert column[80 : 80 + lookback].null_count() == lookback, feature.name
        assert column[80 + lookback :].null_count() == 0, feature.name
    assert found["validation_notes"].null_count() == 160
    assert found["quality_score"].n_unique() == 1
    assert_frame_equal(desk.known(desk.now).drop("computed_at", "updated_at"), found.drop("computed_at", "updated_at"))
    (row,) = (each for each in explain(desk.reader, desk.shelves, BTC_HOURS, found["timestamp"][85])
              if each.feature == "sma_20")  # fmt: skip
    assert (row.value, row.conversions[0].factor, row.conversions[0].rows) == (None, None, 14)
    assert "of another contract" in str(row)


def test_who_is_not_known_is_no_other(new_desk: Callable[..., Desk], database: Database) -> None:
    desk = new_desk(database, BTC_HOURS)
    rows = walk(desk, 160)
    offer(desk, rows[:30], 1)
    offer(desk, rows[30:50], None)
    offer(desk, rows[50:80], 1)
    assert desk.present()["sma_20"][19:].null_count() == 0
