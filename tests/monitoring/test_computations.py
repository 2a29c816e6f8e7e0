"""A computation that breaks is counted as one that failed, for candles that come in and for those that are renewed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import polars as pl
import pytest

from market_data.bootstrap import App, open_app
from market_data.config import load_settings
from market_data.model.dataset import CANDLES
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.monitoring.rules import RULES, findings
from market_data.pipeline.write import derive
from market_data.pipeline.write.ingest import Batch, Purpose, ingest
from market_data.storage.series.due import note_due

NOW = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)
HOURS = Series(Instrument("BTC", AssetClass.CRYPTO), Timeframe.H1)
SPAN = TimeRange(NOW.replace(minute=0) - timedelta(hours=30), NOW.replace(minute=0))


@pytest.fixture
def app(database_url: str) -> Iterator[App]:
    settings = load_settings(environ={}, overrides={"database.url": (database_url, "the test")})
    with open_app(settings, clock=lambda: NOW) as opened:
        yield opened


def bring_in(app: App) -> None:
    """Thirty hours of candles by the program's own way."""
    rows = pl.DataFrame({
        "timestamp": pl.datetime_range(SPAN.start, SPAN.end, "1h", closed="left", eager=True),
        **{name: [Decimal(100)] * 30 for name in ("open", "high", "low", "close", "volume")},
    })  # fmt: skip
    batch = Batch(
        series=HOURS, frame=CANDLES.conform(rows), source="binance", fetched_at=NOW, requested_at=NOW, span=SPAN,
        response_ms=1.0, quota_remaining=None,
    )  # fmt: skip
    ingest(app.database, app.shelves, batch, Purpose(run_id=UUID(int=1), span=SPAN), app.clock)


def counted(app: App) -> list[tuple[bool, str | None]]:
    rows = app.database.rows("SELECT success, error_details FROM enrichment_compute_log ORDER BY id")
    return [(row["success"], row["error_details"]) for row in rows]


def broken(*_: Any, **__: Any) -> None:
    raise ZeroDivisionError("a feature divides by nothing")


def test_a_feature_that_breaks_is_counted_and_alerts(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derive, "evaluate_in_own_shares", broken)
    with pytest.raises(ZeroDivisionError):
        bring_in(app)
    assert counted(app) == [(False, "ZeroDivisionError: a feature divides by nothing")]
    assert app.database.rows("SELECT 1 FROM market_data_v2") == []
    monkeypatch.undo()
    bring_in(app)
    assert [success for success, _ in counted(app)] == [False, True]
    readings = app.observer.read()
    assert readings.compute_success == 0.5
    assert "MarketDataComputationsFail" in {rule.name for rule in RULES if findings(rule, readings)}


def test_a_renewal_that_breaks_is_counted(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    bring_in(app)
    with app.database.transaction() as connection:
        note_due(connection, HOURS.instrument, SPAN, "the test", NOW)
    monkeypatch.setattr(derive, "evaluate_in_own_shares", broken)
    with pytest.raises(ZeroDivisionError):
        list(app.recomputation.run())
    assert [success for success, _ in counted(app)] == [True, False]
