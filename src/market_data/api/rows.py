"""Documents of candle rows: the columns of market_data_v2 as JSON, with units."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from market_data.api.documents import Class, Document, Exact, Frame, Score, SymbolName, Time
from market_data.bootstrap.shelves import declared_features
from market_data.model.feature import Feature


class CandleRow(Document):
    """One candle: open time, prices as the source sent them, and where it came from."""

    timestamp: Time
    """Open time."""
    open: Exact
    high: Exact
    low: Exact
    close: Exact
    volume: Exact
    """Base units: shares, coins."""
    quote_volume: Exact | None
    vwap: Exact | None
    trade_count: int | None
    taker_buy_volume: Exact | None
    """Base units bought by takers."""
    revision: Annotated[int, Field(ge=1, examples=[1])]
    amended_from: int | None
    source: Annotated[str, Field(examples=["binance"])]
    contract_id: int | None
    """The contract it is of; null where it was stored before contracts were known."""
    is_validated: bool
    quality_score: Score | None
    data_completeness: Score | None
    data_age_seconds: float | None
    """How long after it could first be had it was fetched."""
    validation_notes: str | None
    gap_detected: bool
    volume_anomaly: bool
    fetched_at: Time
    computed_at: Time | None
    updated_at: Time | None
    created_at: Time


def _with_features(schema: dict[str, Any]) -> None:
    """Name the fields that the shelf of features declares, with their units; the operator's own have any name."""
    schema["additionalProperties"] = {"type": ["number", "string", "null"]}
    for name, feature in declared_features().items():
        kind = {"type": "string", "enum": list(feature.labels)} if feature.labels else {"type": "number"}
        about = f"{feature.sections['Summary']} In {feature.unit}."
        schema["properties"][name] = {"anyOf": [kind, {"type": "null"}], "title": name, "description": about}
        schema["required"].append(name)


class EnrichedRow(CandleRow):
    """A candle with what the exchange published about it and the features computed from it.

    Features that the operator added in files of their own follow as further fields, by their names.
    """

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        extra="allow",
        json_schema_extra=_with_features,
    )

    open_interest: Exact | None
    funding_rate: Exact | None
    liquidations_long: Exact | None
    liquidations_short: Exact | None
    taker_sell_volume: Exact | None
    feature_version: str | None


class CandlesPage(Document):
    """Candles in order of time."""

    symbol: SymbolName
    asset_class: Class
    timeframe: Frame
    as_of: Time | None
    adjusted: Annotated[Literal["none", "splits", "total"], Field(examples=["none"])]
    count: int
    next: Time | None
    """`start` of the next page; null on the last, and where the newest were asked for."""
    candles: list[CandleRow]


class FeaturesPage(Document):
    """Enriched candles in order of time."""

    symbol: SymbolName
    asset_class: Class
    timeframe: Frame
    as_of: Time | None
    adjusted: Annotated[Literal["none", "splits", "total"], Field(examples=["none"])]
    count: int
    next: Time | None
    """`start` of the next page; null on the last, and where the newest were asked for."""
    candles: list[EnrichedRow]


CANDLE_COLUMNS: Final = tuple(CandleRow.model_fields)


def enriched_columns(features: Iterable[Feature]) -> tuple[str, ...]:
    """The columns of an enriched row: the candle, what the exchange published, the features."""
    return (*EnrichedRow.model_fields, *(feature.name for feature in features))
