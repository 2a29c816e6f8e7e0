"""Dataset: a named record shape with its Polars schema, its key and its time column."""

from __future__ import annotations

import types
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import polars as pl
from pydantic import AwareDatetime

from market_data.model import records

# 20 digits before the point hold a day's volume of any meme coin, 18 after it the price of the smallest.
EXACT: Final = pl.Decimal(38, 18)
UTC_MICROS: Final = pl.Datetime("us", "UTC")

_POLARS_TYPES: Final[dict[type, pl.DataType]] = {
    Decimal: EXACT,
    AwareDatetime: UTC_MICROS,
    date: pl.Date(),
    str: pl.String(),
    int: pl.Int64(),
    float: pl.Float64(),
    bool: pl.Boolean(),
}


@dataclass(frozen=True)
class Dataset:
    """A named record shape; frames of it hold one instrument's rows, or one series'.

    `key` tells rows of one instrument (for candles: of one series) apart; `time` orders them.
    """

    name: str
    record: type[records.Record]
    key: tuple[str, ...]
    time: str = "timestamp"
    stored_as: str | None = None

    @property
    def table(self) -> str:
        """The table its facts are in."""
        return self.stored_as or self.name

    @cached_property
    def schema(self) -> pl.Schema:
        """Column names and Polars types, in the order of the record's fields."""
        return pl.Schema({name: _polars_type(field.annotation) for name, field in self.record.model_fields.items()})

    @property
    def values(self) -> tuple[str, ...]:
        """The columns that are not part of the key: what a source may amend."""
        return tuple(name for name in self.schema if name not in self.key)

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that no row is without; a list may be, which then is empty."""
        return tuple(
            name
            for name, field in self.record.model_fields.items()
            if field.is_required() or (field.default is not None and not isinstance(self.schema[name], pl.List))
        )

    def empty(self) -> pl.DataFrame:
        """A frame of this shape without rows."""
        return self.schema.to_frame()

    def conform(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` with exactly this dataset's columns and types; columns it lacks become null.

        Raises:
            polars.exceptions.InvalidOperationError: when a value does not fit its type exactly.
        """
        return frame.select(
            pl.col(name).cast(dtype) if name in frame.columns else pl.lit(None, dtype).alias(name)
            for name, dtype in self.schema.items()
        )


def _polars_type(annotation: Any) -> pl.DataType:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _polars_type(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return _polars_type(next(member for member in get_args(annotation) if member is not types.NoneType))
    if origin is Literal:
        return pl.String()
    if origin is tuple:
        return pl.List(_polars_type(get_args(annotation)[0]))
    return _POLARS_TYPES[annotation]


CANDLES: Final = Dataset("candles", records.Candle, ("timestamp",))
TRADES: Final = Dataset("trades", records.Trade, ("timestamp", "trade_id"))
QUOTES: Final = Dataset("quotes", records.Quote, ("timestamp", "sequence"))
OPEN_INTEREST: Final = Dataset("open_interest", records.OpenInterest, ("timestamp",))
FUNDING_RATES: Final = Dataset("funding_rates", records.FundingRate, ("timestamp", "rate_type"))
PREMIUM_INDEX: Final = Dataset("premium_index", records.PremiumIndex, ("timestamp", "period"))
LONG_SHORT_RATIOS: Final = Dataset("long_short_ratios", records.LongShortRatio, ("timestamp", "kind"))
TAKER_VOLUMES: Final = Dataset("taker_volumes", records.TakerVolume, ("timestamp", "period"))
SPOT_FLOW: Final = Dataset("spot_flow", records.SpotFlow, ("timestamp", "period"))
LIQUIDATIONS: Final = Dataset("liquidations", records.Liquidation, ("timestamp", "liquidation_id"))
DIVIDENDS: Final = Dataset("dividends", records.Dividend, ("ex_date", "dividend_type"), time="ex_date")
SPLITS: Final = Dataset(
    "splits", records.StockSplit, ("execution_date",), time="execution_date", stored_as="stock_splits"
)
EARNINGS: Final = Dataset("earnings", records.Earnings, ("fiscal_year", "fiscal_quarter"), time="report_date")
OPTIONS: Final = Dataset("options", records.OptionQuote, ("timestamp", "contract"), stored_as="options_iv")
NEWS: Final = Dataset("news", records.NewsItem, ("news_id",), time="published_at")
INSTRUMENTS: Final = Dataset(
    "instruments",
    records.ListedInstrument,
    ("raw_symbol", "valid_from"),
    time="valid_from",
    stored_as="instrument_symbols",
)

DATASETS: Final = {value.name: value for value in list(vars().values()) if isinstance(value, Dataset)}


def nearest_double(column: str) -> pl.Expr:
    """A Decimal column as Float64, each value the double nearest to it.

    By way of text: Polars' direct cast rounds twice. Every path from a stored decimal to a double gives these bits,
    PostgreSQL's ``numeric::float8`` among them, so features do not depend on where their input was read.
    """
    return pl.col(column).cast(pl.String).cast(pl.Float64)
