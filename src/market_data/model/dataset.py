"""Dataset: a named record shape and all that is done with it: its key, how it is stored, filled and served."""

from __future__ import annotations

import types
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import polars as pl
from pydantic import AwareDatetime

from market_data.model import records
from market_data.model.backfill import COINS, EVERYTHING, Backfill

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

    What is said here is all that the program knows of it: whoever stores, fills or serves a dataset asks this, not
    for its name. Checks of its rows are declared in `market_data.rules` and name it.

    Attributes:
        key: tells rows of one instrument (for candles: of one series) and source apart. Where rows belong to several
            instruments it tells the rows of a source apart.
        time: the column that orders the rows, and that ranges are of.
        stored_as: the table its facts are in, where that is called otherwise.
        about: what its door in the interface says; empty for what has doors of its own.
        names: the column with the symbols of all instruments a row belongs to; None where it belongs to one.
        of_contracts: whether its rows are of a contract, told apart by the venue's number within the UTC day.
        consecutive: whether the venue's numbers follow one another, so that a missing one tells of a missing row.
        lasting: values that a source tells beforehand and leaves out afterwards: their absence takes nothing back.
        partition: the length of a partition of its table; None for one table without.
        packed: whether partitions older than its retention are packed, and not dropped: nobody could get them again.
        backfill: how its past is filled; None where no source tells it.
        withdrawable: whether a source may take an entry back, by a complete answer without it.
    """

    name: str
    record: type[records.Record]
    key: tuple[str, ...]
    time: str = "timestamp"
    stored_as: str | None = None
    about: str = ""
    names: str | None = None
    of_contracts: bool = False
    consecutive: bool = False
    lasting: frozenset[str] = frozenset()
    partition: Literal["day", "quarter", "year"] | None = None
    packed: bool = False
    backfill: Backfill | None = None
    withdrawable: bool = False

    @property
    def table(self) -> str:
        """The table its facts are in."""
        return self.stored_as or self.name

    @property
    def path(self) -> str:
        """Its name in an address."""
        return self.name.replace("_", "-")

    @property
    def dated(self) -> bool:
        """Whether its rows are of days, which may lie ahead, and not of moments, which have passed."""
        return self.schema[self.time] == pl.Date

    @property
    def versioned(self) -> bool:
        """Whether an amended row is a further version with its own `known_from`; what a venue numbers is not."""
        return not self.of_contracts

    @property
    def observed(self) -> bool:
        """Whether its rows are values on a clock of their own, which candles are derived from."""
        return issubclass(self.record, records.Observation)

    @property
    def order(self) -> tuple[str, ...]:
        """The columns stored rows are sorted by: no two agree in all of them, and none is ever absent."""
        if self.of_contracts:
            return ("contract_id", "day", "number")
        return ("source", *sorted(self.key, key=lambda name: name != self.time))

    @property
    def order_types(self) -> list[pl.DataType]:
        """The types of these columns."""
        beside = {"contract_id": pl.Int64(), "day": pl.Date(), "number": pl.Int64()} if self.of_contracts else {}
        return [beside.get(name) or self.schema.get(name, pl.String()) for name in self.order]

    @property
    def stored(self) -> tuple[str, ...]:
        """Its columns and where each row came from."""
        if self.of_contracts:
            return (*self.schema, "source", "contract", *self.order)
        return (*self.schema, "source", *(("known_from", "revision") if self.versioned else ()))

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


_DERIVATIVES: Final = Backfill(
    name="derivatives", days=30, chunk=timedelta(days=5), asset_classes=COINS, recent=timedelta(hours=12),
    schedule="hourly",
)  # fmt: skip

CANDLES: Final = Dataset(
    "candles", records.Candle, ("timestamp",), partition="year",
    backfill=Backfill(name="candles", days=365, asset_classes=EVERYTHING, schedule=None),
)  # fmt: skip
TRADES: Final = Dataset(
    "trades", records.Trade, ("timestamp", "trade_id"), of_contracts=True, consecutive=True, partition="day",
    about="Trades of [start, end), by contract and number, as they were made.",
    backfill=Backfill(
        name="trades", days=2, chunk=timedelta(days=1), asset_classes=EVERYTHING, recent=timedelta(hours=1),
        schedule=None,
    ),
)  # fmt: skip
QUOTES: Final = Dataset(
    "quotes", records.Quote, ("timestamp", "sequence"), of_contracts=True, partition="day",
    about="Best bids and asks of [start, end), by contract and number.",
    backfill=Backfill(
        name="quotes", days=1, chunk=timedelta(hours=6), asset_classes=EVERYTHING, recent=timedelta(hours=1),
        schedule=None,
    ),
)  # fmt: skip
OPEN_INTEREST: Final = Dataset(
    "open_interest", records.OpenInterest, ("timestamp",), backfill=_DERIVATIVES,
    about="Contracts outstanding at moments of [start, end), per source; the newest version of each.",
)  # fmt: skip
FUNDING_RATES: Final = Dataset(
    "funding_rates", records.FundingRate, ("timestamp", "rate_type"), backfill=_DERIVATIVES,
    about="Funding rates paid in [start, end), per source; the newest version of each.",
)  # fmt: skip
PREMIUM_INDEX: Final = Dataset(
    "premium_index", records.PremiumIndex, ("timestamp", "period"), backfill=_DERIVATIVES,
    about="The premium index at the ends of periods in [start, end), per source; the newest version of each.",
)  # fmt: skip
LONG_SHORT_RATIOS: Final = Dataset(
    "long_short_ratios", records.LongShortRatio, ("timestamp", "kind"), backfill=_DERIVATIVES,
    about="Longs over shorts at moments of [start, end), per source and kind of account; the newest version of each.",
)  # fmt: skip
TAKER_VOLUMES: Final = Dataset(
    "taker_volumes", records.TakerVolume, ("timestamp", "period"), backfill=_DERIVATIVES,
    about="What takers bought and sold in periods that end in [start, end), per source; the newest version of each.",
)  # fmt: skip
SPOT_FLOW: Final = Dataset(
    "spot_flow", records.SpotFlow, ("timestamp", "period"), backfill=_DERIVATIVES,
    about="What takers bought and sold on the spot market, in money, in periods that end in [start, end), per source; "
    "the newest version of each.",
)  # fmt: skip
LIQUIDATIONS: Final = Dataset(
    # Without a backfill: no source tells the past of them, only the live stream.
    "liquidations", records.Liquidation, ("timestamp", "liquidation_id"),
    about="Forced orders of [start, end), per source. Streams tell a sample of them.",
)  # fmt: skip
DIVIDENDS: Final = Dataset(
    "dividends", records.Dividend, ("ex_date", "dividend_type", "component"), time="ex_date", withdrawable=True,
    lasting=frozenset({"currency", "declaration_date", "record_date", "pay_date", "frequency"}),
    about="Dividends with their ex-date in [start, end), per source; the newest version of each.",
    backfill=Backfill(name="dividends", days=3650, ahead=90, chunk=timedelta(days=36_600), whole=True),
)  # fmt: skip
SPLITS: Final = Dataset(
    "splits", records.StockSplit, ("execution_date", "component"), time="execution_date", stored_as="stock_splits",
    withdrawable=True,
    about="Splits executed in [start, end), per source; the newest version of each.",
    backfill=Backfill(name="splits", days=3650, ahead=90, chunk=timedelta(days=36_600), whole=True),
)  # fmt: skip
FX_RATES: Final = Dataset(
    "fx_rates", records.FxRate, ("date", "currency"), time="date",
    about="Rates of the currencies that payments of the instrument were made in, of days in [start, end), per source.",
)  # fmt: skip
EARNINGS: Final = Dataset(
    "earnings", records.Earnings, ("fiscal_year", "fiscal_quarter"), time="report_date",
    lasting=frozenset({"period_end", "report_date", "report_time", "eps_estimate", "revenue_estimate", "currency"}),
    about="Earnings reported or expected in [start, end), per source; the newest version of each.",
    backfill=Backfill(name="earnings", days=1095, ahead=90, chunk=timedelta(days=36_600), whole=True),
)  # fmt: skip
OPTIONS: Final = Dataset(
    "options", records.OptionQuote, ("timestamp", "contract"), stored_as="options_iv", partition="quarter",
    packed=True,
    about="Option chains seen in [start, end), per source, with implied volatility and greeks.",
    # No source tells chains of the past, each gives the one of now: the schedule collects one a day.
    backfill=Backfill(
        name="options-iv", days=30, most_symbols=50, recent=timedelta(days=1), whole=True, present=True
    ),
)  # fmt: skip
NEWS: Final = Dataset(
    "news", records.NewsItem, ("news_id",), time="published_at", names="symbols",
    lasting=frozenset({"sentiment"}),
    about="News published in [start, end) that name the symbol, per source; the newest version of each.",
    backfill=Backfill(
        name="news", days=30, chunk=timedelta(days=10), asset_classes=EVERYTHING, recent=timedelta(days=2)
    ),
)  # fmt: skip
INSTRUMENTS: Final = Dataset(
    "instruments", records.ListedInstrument, ("raw_symbol", "valid_from"), time="valid_from",
    stored_as="instrument_symbols",
)  # fmt: skip

DATASETS: Final = {value.name: value for value in list(vars().values()) if isinstance(value, Dataset)}
SERVED: Final = tuple(dataset for dataset in DATASETS.values() if dataset.about)


def nearest_double(column: str) -> pl.Expr:
    """A Decimal column as Float64, each value the double nearest to it.

    By way of text: Polars' direct cast rounds twice. Every path from a stored decimal to a double gives these bits,
    PostgreSQL's ``numeric::float8`` among them, so features do not depend on where their input was read.
    """
    return pl.col(column).cast(pl.String).cast(pl.Float64)
