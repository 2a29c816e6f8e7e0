"""The user's own files: formats, columns, times; mistakes in the description."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from market_data.model.dataset import CANDLES
from market_data.model.errors import ConfigError, MalformedPayload, UnsupportedRequest
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Page
from market_data.model.timeframe import Timeframe
from market_data.providers.files import Files, FilesSettings

RECORDINGS = Path(os.environ.get("MARKET_DATA_RECORDINGS", Path(__file__).parents[3] / "../shared/data"))
BTC, AAPL = Instrument("BTC", AssetClass.CRYPTO), Instrument("AAPL", AssetClass.STOCK)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def fetch(
    folder: Path, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime = NOW
) -> pl.DataFrame:
    async def collect() -> list[pl.DataFrame]:
        pages = Files(FilesSettings(folder=folder), None).fetch_candles(instrument, timeframe, start, end, now=NOW)
        return [page.frame async for page in pages]

    return pl.concat([CANDLES.empty(), *asyncio.run(collect())])


def describe(folder: Path, text: str) -> None:
    (folder / "files.yaml").write_text(text)


def entry(
    files: str, *, symbol: str = "BTC", asset_class: str = "crypto", timeframe: str = "1h", more: str = ""
) -> str:
    return f"- {{files: '{files}', symbol: {symbol}, asset_class: {asset_class}, timeframe: {timeframe}{more}}}\n"


def rows() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "timestamp": [datetime(2025, 1, 1, hour, tzinfo=UTC) for hour in (0, 1)],
            "open": [1.1, 2.2],
            "high": [3.3, 3.3],
            "low": [0.1, 0.2],
            "close": [1e-7, 2.5],
            "volume": [10, 20],
        }
    )


@pytest.mark.parametrize("suffix", ["parquet", "feather", "arrow"])
def test_floats_are_their_shortest_decimals(tmp_path: Path, suffix: str) -> None:
    frame = rows()
    path = tmp_path / f"x.{suffix}"
    frame.write_parquet(path) if suffix == "parquet" else frame.write_ipc(path)
    describe(tmp_path, entry("x.*"))
    found = fetch(tmp_path, BTC, Timeframe.H1, datetime(2025, 1, 1, tzinfo=UTC))
    assert found.select("open", "close", "volume").rows() == [
        (Decimal("1.1"), Decimal("0.0000001"), Decimal(10)),
        (Decimal("2.2"), Decimal("2.5"), Decimal(20)),
    ]


@pytest.mark.parametrize(
    ("time", "stamps", "more"),
    [
        (["1735689600", "1735693200"], "open", "unit: s"),
        (["1735689600000", "1735693200000"], "open", "unit: ms"),
        (["1735689600000000000", "1735693200000000000"], "open", "unit: ns"),
        (["2025-01-01 00:00", "2025-01-01 01:00"], "open", "format: '%Y-%m-%d %H:%M'"),
        (["2024-12-31 19:00", "2024-12-31 20:00"], "open", "format: '%Y-%m-%d %H:%M', zone: America/New_York"),
        (["2025-01-01T01:00:00+01:00", "2025-01-01T02:00:00+01:00"], "open", ""),
        (["2025-01-01 01:00", "2025-01-01 02:00"], "close", "format: '%Y-%m-%d %H:%M', stamps: close"),
    ],
)
def test_times(tmp_path: Path, time: list[str], stamps: str, more: str) -> None:
    del stamps
    rows().with_columns(timestamp=pl.Series(time)).write_csv(tmp_path / "x.csv")
    describe(tmp_path, entry("x.csv", more=f", time: {{{more}}}"))
    found = fetch(tmp_path, BTC, Timeframe.H1, datetime(2025, 1, 1, tzinfo=UTC))
    assert found["timestamp"].to_list() == [datetime(2025, 1, 1, hour, tzinfo=UTC) for hour in (0, 1)]


def test_what_is_still_open_or_off_the_grid(tmp_path: Path) -> None:
    stamps = [NOW - timedelta(minutes=30), NOW - timedelta(hours=3, minutes=7)]
    rows().with_columns(timestamp=pl.Series(stamps)).write_parquet(tmp_path / "x.parquet")
    describe(tmp_path, entry("x.parquet"))
    found = fetch(tmp_path, BTC, Timeframe.H1, NOW - timedelta(days=1), NOW + timedelta(days=1))
    assert found["timestamp"].to_list() == [stamps[1]]


def test_recorded_days_of_a_stock(tmp_path: Path) -> None:
    folder = RECORDINGS / "freqtrade"
    if not folder.exists():
        pytest.skip(f"recording {folder} is absent (set MARKET_DATA_RECORDINGS)")
    (tmp_path / "x.feather").write_bytes((folder / "XRP_ETH-5m.feather").read_bytes())
    describe(tmp_path, entry("x.feather", symbol="XRP", timeframe="5m", more=", columns: {timestamp: date}"))
    recorded = pl.read_ipc(folder / "XRP_ETH-5m.feather")
    instrument = Instrument("XRP", AssetClass.CRYPTO)
    found = fetch(tmp_path, instrument, Timeframe.M5, datetime(2010, 1, 1, tzinfo=UTC))
    assert found.height == recorded.height
    assert [float(price) for price in found["close"]] == recorded["close"].to_list()


def test_finer_than_described_is_not_to_be_had(tmp_path: Path) -> None:
    rows().write_parquet(tmp_path / "x.parquet")
    describe(tmp_path, entry("x.parquet"))
    with pytest.raises(UnsupportedRequest, match="at 1h only, not at 5m"):
        fetch(tmp_path, BTC, Timeframe.M5, datetime(2025, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {files: x, symbol: BTC, asset_class: crypto, timeframe: 2h}", "2h"),
        ("- {files: x, symbol: BTC, asset_class: bond, timeframe: 1h}", "bond"),
        (entry("x", more=", columns: {price: p}"), "price"),
        (entry("x", more=", time: {zone: Mars/Base}"), "Mars/Base"),
        (entry("x", more=", typo: 1"), "typo"),
        ("[", "files.yaml"),
    ],
)
def test_mistakes_in_the_description(tmp_path: Path, text: str, said: str) -> None:
    describe(tmp_path, text)
    with pytest.raises(ConfigError, match=said):
        fetch(tmp_path, BTC, Timeframe.H1, datetime(2025, 1, 1, tzinfo=UTC))


def test_a_file_that_is_not_what_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"not parquet")
    describe(tmp_path, entry("x.parquet"))
    with pytest.raises(MalformedPayload, match=r"x\.parquet"):
        fetch(tmp_path, BTC, Timeframe.H1, datetime(2025, 1, 1, tzinfo=UTC))


def test_without_a_folder_it_says_what_to_set(tmp_path: Path) -> None:
    unset = Files(FilesSettings(), None)
    assert unset.ready is not None
    assert "providers.files.folder" in unset.ready
    empty = Files(FilesSettings(folder=tmp_path), None)
    assert empty.ready is not None
    assert "files.yaml" in empty.ready
    with pytest.raises(ConfigError):
        asyncio.run(empty.resolve(AAPL))


def pages(folder: Path, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime = NOW) -> Page:
    async def collect() -> list[Page]:
        found = Files(FilesSettings(folder=folder), None).fetch_candles(instrument, timeframe, start, end, now=NOW)
        return [page async for page in found]

    (page,) = asyncio.run(collect())
    return page


LINE = "10,12,9,11,1000"
DAYS = [datetime(2024, 6, 28, 13, 30, tzinfo=UTC), datetime(2024, 7, 1, 13, 30, tzinfo=UTC),
        datetime(2024, 7, 2, 13, 30, tzinfo=UTC), datetime(2024, 7, 3, 13, 30, tzinfo=UTC),
        datetime(2024, 7, 5, 13, 30, tzinfo=UTC)]  # fmt: skip


def written(folder: Path, times: list[str], *, more: str = "", **what: str) -> None:
    lines = [f"{time},{LINE}" for time in times]
    (folder / "x.csv").write_text("timestamp,open,high,low,close,volume\n" + "\n".join(lines) + "\n")
    describe(folder, entry("x.csv", more=more, **what))


@pytest.mark.parametrize(
    ("form", "more"),
    [
        ("%Y-%m-%d", ""),
        ("%Y-%m-%d", ", time: {format: '%Y-%m-%d'}"),
        ("%d.%m.%Y", ", time: {format: '%d.%m.%Y'}"),
        ("%Y-%m-%d 00:00:00", ""),
        ("%Y-%m-%dT00:00:00-04:00", ""),
        ("%Y-%m-%d", ", time: {zone: America/New_York}"),
        ("%Y-%m-%d", ", time: {stamps: close}"),
        ("%Y-%m-%dT09:30:00-04:00", ""),
    ],
)
def test_a_date_in_a_daily_file_of_a_stock_is_its_session(tmp_path: Path, form: str, more: str) -> None:
    written(tmp_path, [f"{day:{form}}" for day in DAYS], symbol="AAPL", asset_class="stock", timeframe="1d", more=more)
    page = pages(tmp_path, AAPL, Timeframe.D1, datetime(2024, 6, 1, tzinfo=UTC))
    assert page.frame["timestamp"].to_list() == DAYS
    assert page.rejected.is_empty()
    weeks = pages(tmp_path, AAPL, Timeframe.W1, datetime(2024, 6, 24, tzinfo=UTC), datetime(2024, 7, 8, tzinfo=UTC))
    assert weeks.frame["timestamp"].to_list() == [datetime(2024, 6, 24, 13, 30, tzinfo=UTC), DAYS[1]]
    # Of the first week there is the Friday only; the second is whole, with a holiday.
    assert weeks.frame.select("volume", "notes").rows() == [(1000, "parts_unknown"), (4000, None)]


def test_a_date_in_a_weekly_file_is_its_week(tmp_path: Path) -> None:
    written(tmp_path, ["2024-07-01", "2024-07-12"], symbol="AAPL", asset_class="stock", timeframe="1w")
    page = pages(tmp_path, AAPL, Timeframe.W1, datetime(2024, 6, 1, tzinfo=UTC))
    assert page.frame["timestamp"].to_list() == [DAYS[1], datetime(2024, 7, 8, 13, 30, tzinfo=UTC)]


def test_days_without_a_session_make_no_week(tmp_path: Path) -> None:
    written(tmp_path, ["2024-07-01", "2024-07-04", "2024-07-06"], symbol="AAPL", asset_class="stock", timeframe="1d")
    page = pages(tmp_path, AAPL, Timeframe.W1, datetime(2024, 7, 1, tzinfo=UTC), datetime(2024, 7, 8, tzinfo=UTC))
    assert page.frame.select("volume", "notes").rows() == [(1000, "parts_unknown")]
    assert page.rejected.select("timestamp", "rule").rows() == [
        (datetime(2024, 7, 4, tzinfo=UTC), "off_grid"), (datetime(2024, 7, 6, tzinfo=UTC), "off_grid"),
    ]  # fmt: skip


def test_the_last_bar_of_a_session_is_short_by_its_close_too(tmp_path: Path) -> None:
    ends = [f"2024-07-02 {hour}:30" for hour in range(10, 16)] + ["2024-07-02 16:00", "2024-07-03 13:00"]
    time = ", time: {zone: America/New_York, stamps: close}"
    written(tmp_path, ends, symbol="AAPL", asset_class="stock", timeframe="1h", more=time)
    page = pages(tmp_path, AAPL, Timeframe.H1, datetime(2024, 7, 1, tzinfo=UTC))
    assert [f"{moment:%d %H:%M}" for moment in page.frame["timestamp"]] == [
        "02 13:30", "02 14:30", "02 15:30", "02 16:30", "02 17:30", "02 18:30", "02 19:30", "03 16:30",
    ]  # fmt: skip


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("sent", ["s", "ms", "us", "ns"])
def test_a_count_in_another_unit_is_read_by_its_size_or_refused(tmp_path: Path, unit: str, sent: str) -> None:
    """A count in a finer unit than described can be one moment only; in a coarser one it may be of January 1970."""
    digits = {"s": 0, "ms": 3, "us": 6, "ns": 9}
    first, second = 1590969600, 1590973200
    times = [f"{first}{'0' * digits[unit]}", f"{second}{'0' * digits[sent]}"]
    written(tmp_path, times, more=f", time: {{unit: {unit}}}")
    page = pages(tmp_path, BTC, Timeframe.H1, datetime(2020, 6, 1, tzinfo=UTC), datetime(2020, 6, 2, tzinfo=UTC))
    if digits[sent] >= digits[unit]:
        assert page.frame["timestamp"].to_list() == [datetime(2020, 6, 1, hour, tzinfo=UTC) for hour in (0, 1)]
        assert page.rejected.is_empty()
    else:
        assert page.frame.height == 1
        assert page.rejected["rule"].to_list() == ["time_unit_unclear"]


def test_every_row_of_a_file_is_a_candle_or_rejected(tmp_path: Path) -> None:
    good = "2024-06-01T{:02}:00:00Z,1,2,0.5,1.5,10"
    bad = [
        "yesterday,1,2,0.5,1.5,10",
        "2024-06-01T21:00:00Z,1,2,0.5,,10",
        "2024-06-01T22:00:00Z,1,2,0.5",
        "2024-06-01T23:00:00Z,1,2,0.5,1.0000000000000000001,10",
        "2024-06-01T20:00:00Z,1,two,0.5,1.5,10",
        "52423-06-01T20:00:00Z,1,2,0.5,1.5,10",
    ]
    text = "timestamp,open,high,low,close,volume\n" + "\n".join([*map(good.format, range(12)), *bad]) + "\n"
    (tmp_path / "x.csv").write_text(text)
    describe(tmp_path, entry("x.csv"))
    page = pages(tmp_path, BTC, Timeframe.H1, datetime(2024, 6, 1, tzinfo=UTC), datetime(2024, 6, 2, tzinfo=UTC))
    assert page.frame.height == 12
    assert page.rejected["rule"].to_list() == [
        "value_unreadable: timestamp", "value_missing: close", "value_missing: close", "value_too_fine: close",
        "value_unreadable: high", "value_unreadable: timestamp",
    ]  # fmt: skip
