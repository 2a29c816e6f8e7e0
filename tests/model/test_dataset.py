"""Datasets: schemas that come from the records, conversion that is exact or refused, instruments and errors."""

import re
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest
from pydantic import ValidationError

from market_data.model import errors
from market_data.model.dataset import CANDLES, DATASETS, Dataset, nearest_double
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.records import Candle
from market_data.model.timeframe import Timeframe

EXACT = pl.Decimal(38, 18)
MOMENT = pl.Datetime("us", "UTC")
GREEKS = {"iv", "delta", "gamma", "theta", "vega", "rho"}


def test_the_schema_of_candles() -> None:
    assert dict(CANDLES.schema) == {
        "timestamp": MOMENT,
        "open": EXACT,
        "high": EXACT,
        "low": EXACT,
        "close": EXACT,
        "volume": EXACT,
        "quote_volume": EXACT,
        "vwap": EXACT,
        "trade_count": pl.Int64(),
        "taker_buy_volume": EXACT,
        "taker_buy_quote_volume": EXACT,
        "notes": pl.String(),
    }
    assert CANDLES.values[0] == "open"
    assert "timestamp" not in CANDLES.values


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS)
def test_a_dataset_names_its_key_and_its_time(dataset: Dataset) -> None:
    assert dataset.name in DATASETS
    assert set(dataset.key) | {dataset.time} <= set(dataset.schema)
    assert dataset.empty().schema == dataset.schema
    assert dataset.record.__doc__
    for name, dtype in dataset.schema.items():
        # What a source computes (greeks, percentages) may be a float; what it counts and quotes is exact.
        assert dtype != pl.Float64 or name in GREEKS or name.endswith("_pct"), f"{name} is not exact"


@pytest.mark.parametrize(("name", "column", "dtype"), [
    ("dividends", "ex_date", pl.Date()), ("dividends", "amount", EXACT), ("splits", "split_to", EXACT),
    ("trades", "price", EXACT), ("quotes", "sequence", pl.Int64()), ("funding_rates", "known_at", MOMENT),
    ("long_short_ratios", "kind", pl.String()), ("options", "delta", pl.Float64()),
    ("news", "symbols", pl.List(pl.String)),
])  # fmt: skip
def test_types_of_other_datasets(name: str, column: str, dtype: pl.DataType) -> None:
    assert DATASETS[name].schema[column] == dtype


def test_conform_adds_what_is_absent_as_null_and_drops_the_rest() -> None:
    frame = pl.DataFrame(
        {"timestamp": [datetime(2024, 1, 1, tzinfo=UTC)], "close": ["0.00000001234"], "color": ["red"]}
    )
    frame = CANDLES.conform(frame.with_columns(pl.col("close").str.to_decimal(scale=18)))
    assert frame.schema == CANDLES.schema
    assert frame["close"].to_list() == [Decimal("0.00000001234")]
    assert frame["volume"].to_list() == [None]


def test_conform_refuses_what_does_not_fit() -> None:
    with pytest.raises(pl.exceptions.InvalidOperationError):
        CANDLES.conform(pl.DataFrame({"trade_count": ["many"]}))


@pytest.mark.parametrize(
    "text",
    # Python's own conversion of decimal text is correctly rounded (David Gay's algorithm): the oracle.
    ["0.1", "0.3", "67123.45", "0.00001234", "123456789012345678.123456789012345678", "1.005", "9007199254740993", "0"],
)
def test_an_exact_number_becomes_the_nearest_double(text: str) -> None:
    frame = pl.DataFrame({"x": [Decimal(text)]}, schema={"x": EXACT})
    assert frame.select(nearest_double("x")).item() == float(text)


def test_a_record_is_frozen_and_refuses_unknown_fields() -> None:
    values = dict.fromkeys(("open", "high", "low", "close", "volume"), Decimal(1))
    candle = Candle(timestamp=datetime(2024, 1, 1, tzinfo=UTC), **values)
    assert candle.trade_count is None
    with pytest.raises(ValidationError, match="frozen"):
        candle.open = Decimal(2)
    with pytest.raises(ValidationError, match="color"):
        Candle(timestamp=datetime(2024, 1, 1, tzinfo=UTC), color="red", **values)
    with pytest.raises(ValidationError, match="timezone"):
        Candle(timestamp=datetime(2024, 1, 1), **values)
    with pytest.raises(ValidationError, match="finite"):
        Candle(timestamp=datetime(2024, 1, 1, tzinfo=UTC), **(values | {"open": Decimal("NaN")}))


def test_dates_are_no_moments() -> None:
    assert DATASETS["splits"].time == "execution_date"
    assert DATASETS["splits"].record(execution_date=date(2012, 8, 13), split_from=1, split_to=2)


def test_asset_classes_are_parsed_and_named() -> None:
    assert AssetClass.parse("etf") is AssetClass.ETF
    with pytest.raises(errors.UsageError, match="Invalid asset class: 'bond'. Valid: stock, etf, crypto"):
        AssetClass.parse("bond")
    assert {c.value: c.calendar for c in AssetClass} == {"stock": "XNYS", "etf": "XNYS", "crypto": "24/7"}


def test_a_series_is_an_instrument_and_a_timeframe() -> None:
    series = Series(Instrument("BRK.B", AssetClass.STOCK), Timeframe.D1)
    assert series.key == ("BRK.B", "stock", "1d")
    assert (str(series), str(series.instrument)) == ("BRK.B 1d", "BRK.B (stock)")


def test_the_error_tree_is_the_one_drawn() -> None:
    drawn = [line for line in (errors.__doc__ or "").splitlines() if "──" in line]
    names = [line.split("──")[-1].split()[0] for line in drawn]
    found = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    kinds = {name: kind for name, kind in found.items() if issubclass(kind, Exception) and name != "MarketDataError"}
    declared = list(kinds)
    assert names == declared
    assert not issubclass(errors.PermanentError, errors.TransientError)
    assert issubclass(errors.RateLimited, errors.TransientError)
    assert errors.RateLimited("slow down", retry_after=2.5).retry_after == 2.5


def test_every_error_says_where_it_lies_and_whether_to_try_again_as_drawn() -> None:
    lies: dict[str, errors.Where] = {"user": errors.Where.USER, "ours": errors.Where.OURS,
                                     "source": errors.Where.SOURCE, "storage": errors.Where.STORAGE}  # fmt: skip
    for line in (errors.__doc__ or "").splitlines():
        name, _, told = line.partition("──")[2].strip().partition(" ")
        owner = re.match(r"the (\w+)'s:|(\w+)'s:|(ours):", told.strip())
        if owner:
            kind = getattr(errors, name)
            assert kind.where is lies[next(filter(None, owner.groups()))], name
            assert kind.again is issubclass(kind, errors.TransientError), name


def test_what_nobody_expected_is_ours_and_told_without_what_could_harm_a_terminal() -> None:
    class PanicException(BaseException):
        pass

    found = errors.unexpected(PanicException("over\x1b[31m\ud800\x00 and\nout" + "!" * 5000))
    assert (found.where, found.again) == (errors.Where.OURS, False)
    assert str(found).startswith("unexpected PanicException: over\ufffd[31m\ufffd\ufffd and out!!!")
    assert len(str(found)) < 400
    assert str(errors.MalformedPayload("sent \x07\x9b")) == "sent \ufffd\ufffd"
