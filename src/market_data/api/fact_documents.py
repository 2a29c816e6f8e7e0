"""Response documents of facts besides candles, made from the records themselves."""

from __future__ import annotations

from datetime import date
from typing import Any, Final

from pydantic import BaseModel, Field, create_model

from market_data.api.documents import Class, Count, Day, Document, Exact, SymbolName, Time
from market_data.model.dataset import SERVED, Dataset


class MadeDocument(Document, use_attribute_docstrings=False):
    """A document made at run time, which has no source text to take docstrings from."""


# What a field may hold, where its type alone does not show it and its record gives no example.
_EXAMPLES: Final[dict[str, Any]] = {
    "trade_id": "2043951", "aggressor_side": "buy", "source": "binance", "currency": "USD", "ex_date": "2026-02-09",
    "execution_date": "2020-08-31", "amount": 0.26, "split_from": 1, "split_to": 4, "fiscal_year": 2025,
    "fiscal_quarter": 3, "eps_estimate": 1.77, "eps_actual": 1.85, "contract": "AAPL261218C00200000",
    "option_type": "call", "expiration": "2026-12-18", "strike": 200, "iv": 0.25, "delta": 0.55, "news_id": "8a41f2",
    "title": "Apple reports its third quarter", "symbols": ["AAPL"], "revision": 1, "period": "5m",
    "kind": "global_accounts", "rate_type": "Regular", "side": "long", "correction": 0,
    "liquidation_id": "1772323200000-1", "component": 1, "date": "2026-02-09", "quote_currency": "USD",
    "rate": 0.00069, "shares_per_contract": 100,
}  # fmt: skip
_TYPES: Final[dict[str, Any]] = {
    "Int64": int, "Float64": float, "String": str, "Boolean": bool, "Date": date, "Datetime": Time, "Decimal": Exact,
}  # fmt: skip


def fact_row(dataset: Dataset) -> type[BaseModel]:
    """The document of one row of a dataset: its record's fields, exact numbers as JSON numbers, and its provenance."""
    fields: dict[str, Any] = {}
    for name, dtype in dataset.schema.items():
        kind: Any = list[str] if dtype.is_nested() else _TYPES[str(dtype.base_type())]
        required = dataset.record.model_fields[name].is_required()
        fields[name] = (kind if required else kind | None, ...)
    fields["source"] = (str, ...)
    if dataset.of_contracts:
        fields |= {"contract_id": (int, ...), "day": (Day, ...), "number": (int, ...)}
    else:
        fields |= {"known_from": (Time, ...), "revision": (int, ...)}
    given = {name: field.examples[0] for name, field in dataset.record.model_fields.items() if field.examples}
    for name, example in (_EXAMPLES | given).items():
        if name in fields:
            fields[name] = (fields[name][0], Field(examples=[example]))
    if dataset.of_contracts:
        fields["contract"] = (str, Field(examples=["BTC/USDT:USDT"]))
    return create_model(f"{dataset.record.__name__}Row", __base__=MadeDocument, **fields)


def fact_page_model(dataset: Dataset) -> type[BaseModel]:
    """The document of a page of a dataset."""
    fields: dict[str, Any] = {
        "symbol": (SymbolName, ...),
        "asset_class": (Class, ...),
        "as_of": (Time | None, ...),
        "count": (Count, ...),
        "next": (str | None, ...),
        dataset.name: (list[fact_row(dataset)], ...),  # type: ignore[misc]  # made at run time
    }
    return create_model(f"{dataset.record.__name__}Page", __base__=MadeDocument, **fields)


FACT_PAGES: Final = {dataset.name: fact_page_model(dataset) for dataset in SERVED}
