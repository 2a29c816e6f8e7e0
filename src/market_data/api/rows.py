"""Documents of candle rows: the columns of market_data_v2 as JSON, with units."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from market_data.api.documents import Class, Document, Exact, Frame, Score, SymbolName, Time


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


class EnrichedRow(CandleRow):
    """A candle with what the exchange published about it and the features computed from it.

    Features that the operator added in files of their own follow as further fields, by their names.
    """

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        extra="allow",
        json_schema_extra={"additionalProperties": {"type": ["number", "string", "null"]}},
    )

    open_interest: Exact | None
    funding_rate: Exact | None
    liquidations_long: Exact | None
    liquidations_short: Exact | None
    taker_sell_volume: Exact | None
    return_1h: float | None
    """Percent."""
    return_1d: float | None
    """Percent."""
    volatility_20: float | None
    """Percent."""
    volatility_50: float | None
    """Percent."""
    atr: float | None
    trend_direction: Literal["up", "down", "neutral"] | None
    market_structure: Literal["bullish", "bearish", "range"] | None
    rolling_volume_20: float | None
    delta: float | None
    buy_sell_ratio: float | None
    liquidation_intensity: float | None
    volume_spike_score: float | None
    long_short_ratio: float | None
    funding_rate_percentile: float | None
    exchange_inflow: float | None
    open_interest_change: float | None
    """Percent."""
    sma_20: float | None
    sma_50: float | None
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
ENRICHED_COLUMNS: Final = tuple(EnrichedRow.model_fields)
