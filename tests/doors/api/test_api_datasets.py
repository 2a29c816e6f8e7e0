"""Every declared dataset has a door of each kind, and what is stored is served whoever asked for it."""

from __future__ import annotations

import inspect
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, get_args

from market_data.client import MarketData
from market_data.model.dataset import DIVIDENDS, NEWS, SERVED, Dataset
from market_data.model.instrument import AssetClass, Instrument
from market_data.storage.server.database import Database

AT = datetime(2026, 2, 1, tzinfo=UTC)
SERIES = {
    "open-interest", "funding-rates", "long-short-ratios", "taker-volumes", "spot-flow", "premium-index",
    "liquidations",
}  # fmt: skip
EVENTS = {"fx-rates", "trades", "quotes", "dividends", "splits", "earnings", "options", "news"}


def row_of(dataset: Dataset, symbol: str, at: datetime = AT) -> dict[str, Any]:
    """A row with something in every field that no row is without."""
    found: dict[str, Any] = {}
    for name, field in dataset.record.model_fields.items():
        if not field.is_required():
            continue
        choices = [arg for arg in get_args(field.annotation) if isinstance(arg, str)]
        kind = str(dataset.schema[name].base_type())
        plain = {"Datetime": at, "Date": at.date(), "Decimal": Decimal("1.25"), "Int64": 4, "Float64": 0.5}
        found[name] = choices[0] if choices else plain.get(kind, f"{name}-1")
    return (
        found
        | ({dataset.time: at if not dataset.dated else at.date()})
        | ({} if dataset.names is None else {dataset.names: (symbol,)})
    )


def test_the_doors_are_those_that_were_promised() -> None:
    assert {dataset.path for dataset in SERVED} >= SERIES | EVENTS


def test_what_is_stored_is_served_though_nobody_tracks_it(
    database: Database, clock: Any, opening: Any, appending: Any
) -> None:
    with opening(database.conninfo(), clock) as (served, asking):
        for dataset in SERVED:
            asset_class = AssetClass.CRYPTO if dataset.observed else AssetClass.ETF
            symbol = f"X{len(dataset.name)}{dataset.name[0].upper()}"
            appending(served.app, dataset, Instrument(symbol, asset_class), [row_of(dataset, symbol)], "binance")
            check_door(asking, dataset, symbol, asset_class, clock())


def check_door(asking: Any, dataset: Dataset, symbol: str, asset_class: AssetClass, now: datetime) -> None:
    path = f"/api/v1/market/{dataset.path}"
    params = {"start": "2026-02-01", "end": "2026-02-02", "source": "binance", "limit": 5}
    answer = asking.get(f"{path}/{symbol.lower()}", params=params)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["symbol"], body["count"], body["next"]) == (symbol, 1, None)
    assert set(body[dataset.name][0]) == set(dataset.stored)
    if dataset.names is None:
        assert body["asset_class"] == asset_class
    assert asking.get(f"{path}/{symbol}", params=params | {"source": "yahoo"}).json()["count"] == 0
    assert asking.get(f"{path}/{symbol}", params={"start": "2026-02-02"}).json()["count"] == 0
    if dataset.versioned:
        before = (now - timedelta(seconds=1)).isoformat()
        assert asking.get(f"{path}/{symbol}", params={"as_of": before}).json()["count"] == 0
    unknown = asking.get(f"{path}/NOSUCH")
    assert (unknown.status_code, unknown.json()["type"]) == (404, "urn:market-data:problem:unknown-instrument")


def test_the_client_has_a_call_of_each_with_its_arguments_spelled_out(address: str) -> None:
    with MarketData(address) as data:
        for dataset in SERVED:
            call = getattr(data, dataset.name)
            assert call.__doc__.startswith(dataset.about)
            names = ["symbol", "start", "end", "asset_class", "source", "limit", "as_of"]
            assert list(inspect.signature(call).parameters) == names
            assert data.facts(dataset.name, "AAPL", limit=3).columns == list(dataset.stored)
        assert data.open_interest("BTC", date(2026, 1, 1), "2026-03-01T00:00:00Z", source="binance").is_empty()
        assert not hasattr(data, "tea_leaves")


def test_who_is_only_spoken_of_or_stored_as_another_class_is_known(
    database: Database, clock: Any, opening: Any, appending: Any
) -> None:
    with opening(database.conninfo(), clock) as (served, asking):
        appending(served.app, NEWS, Instrument("KO", AssetClass.STOCK), [row_of(NEWS, "PEP")], "yahoo")
        appending(served.app, DIVIDENDS, Instrument("SPY", AssetClass.ETF), [row_of(DIVIDENDS, "SPY")], "yahoo")
        assert asking.get("/api/v1/market/news/PEP").json()["count"] == 1
        assert asking.get("/api/v1/market/dividends/PEP").json()["count"] == 0
        assert asking.get("/api/v1/market/dividends/SPY").json()["asset_class"] == "etf"
        assert asking.get("/api/v1/market/dividends/SPY", params={"asset_class": "stock"}).status_code == 404


def test_bars_are_made_of_the_stored_trades_page_by_page(filled: Any, asking: Any, address: str) -> None:
    """25 trades of BTC, a second apart from midnight on, 0.25 each at 7000.5 and up."""
    params = {"every": "10s", "start": "2026-02-01", "end": "2026-02-02", "limit": 2}
    first = asking.get("/api/v1/market/bars/BTC", params=params).json()
    assert [(row["open"], row["close"], row["volume"], row["complete"]) for row in first["bars"]] == [
        (7000.5, 7009.5, 2.5, True), (7010.5, 7019.5, 2.5, True),
    ]  # fmt: skip
    second = asking.get("/api/v1/market/bars/BTC", params=params | {"start": first["next"]}).json()
    assert [(row["timestamp"], row["close"], row["complete"]) for row in second["bars"]] == [
        ("2026-02-01T00:00:20Z", 7024.5, False)
    ]
    assert second["next"] is None
    with MarketData(address) as data:
        assert data.bars("BTC", "2026-02-01", "2026-02-02", volume=3)["volume"].to_list() == [3, 3, Decimal("0.25")]
    wrong = asking.get("/api/v1/market/bars/BTC", params={"every": "7h"})
    assert (wrong.status_code, "7h" in wrong.text or "7:00:00" in wrong.text) == (422, True)
    assert asking.get("/api/v1/market/bars/NOSUCH", params={"every": "1m"}).status_code == 404
