"""Commands over a stand-in for the app: what is printed where, in which form, with which exit code."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from market_data.cli.app import app
from market_data.cli.enriching import as_lines
from market_data.cli.invocation import Invocation
from market_data.model.errors import MarketDataError, UnknownInstrument
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.fetch.candles import Progress, SeriesReport
from market_data.pipeline.write.derive import Shelves
from market_data.storage.series.present import Counts

EXACT = pl.Decimal(38, 18)
ROWS = pl.DataFrame(
    {
        "timestamp": [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, 1, tzinfo=UTC)],
        "symbol": ["BTC", "BTC"],
        "open": [Decimal("42000.5"), Decimal("42100.25")],
        "high": [Decimal(42500), Decimal(42600)],
        "low": [Decimal(41000), Decimal(41500)],
        "close": [Decimal("42100.25"), Decimal(42300)],
        "volume": [Decimal("1234.5678"), Decimal("0.00000001")],
        "sma_20": [None, 42200.125],
        "quality_score": [0.75, 1.0],
    },
    schema_overrides={
        "timestamp": pl.Datetime("us", "UTC"),
        **dict.fromkeys(("open", "high", "low", "close", "volume"), EXACT),
    },
)


class Reader:
    """Answers from `ROWS` and remembers what it was asked."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame
        self.asked: list[Any] = []

    def features(
        self, series: Series, span: TimeRange | None = None, *, limit: int | None = None, own: object = ()
    ) -> pl.DataFrame:
        assert own == ()
        self.asked.append((series, span, limit))
        return self.frame


class Enricher:
    """Reports an error for the symbols given, else 24 unchanged candles of a full day."""

    def __init__(self, failing: dict[str, MarketDataError]) -> None:
        self.failing = failing
        self.asked: list[Any] = []

    async def enrich(
        self,
        instruments: list[Instrument],
        timeframes: list[Timeframe],
        start: datetime | None,
        end: datetime | None,
        progress: Callable[[Progress], None],
        stop: asyncio.Event,
    ) -> list[SeriesReport]:
        self.asked.append((instruments, timeframes, start, end))
        reports = []
        for instrument in instruments:
            for timeframe in timeframes:
                report = SeriesReport(Series(instrument, timeframe))
                report.span = TimeRange(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
                report.error = self.failing.get(instrument.symbol)
                if report.error is None:
                    report.counts, report.sources, report.seconds = Counts(unchanged=1024), ["binance"], {"fetch": 0.25}
                    progress(Progress(report.series, 24, 24, "binance"))
                reports.append(report)
        return reports


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    def status(instrument: Instrument) -> dict[str, Any]:
        return {"symbol": instrument.symbol, "status": "healthy", "quality_score": 0.98, "error_message": None}

    def meant(symbol: str, asset_class: AssetClass | None = None) -> Instrument | None:
        known = dict.fromkeys(("BTC", "ETH", "SOL"), AssetClass.CRYPTO)
        symbol = symbol.upper()
        found = asset_class or known.get(symbol)
        return Instrument(symbol, found) if found and (symbol in known or asset_class) else None

    async def along(*_: object) -> list[str]:
        return []

    async def find(symbol: str, asset_class: AssetClass | None, names: object) -> Instrument:
        return Instrument(symbol.upper(), asset_class or AssetClass.STOCK)

    parts = SimpleNamespace(reader=Reader(ROWS), enricher=Enricher({}), status=status, run=asyncio.run)
    parts.shelves, parts.contracts = Shelves((), ()), SimpleNamespace(find=find)
    parts.names = SimpleNamespace(meant=meant, stored_as=lambda instrument: instrument)
    parts.actions = SimpleNamespace(along=along)
    # Nothing is known of where its instruments trade.
    monkeypatch.setattr("market_data.cli.enriching.trading_notes", lambda *_: [])

    @contextmanager
    def opened(_: Invocation, *, asks_providers: bool = False) -> Iterator[SimpleNamespace]:
        parts.asks_providers = asks_providers
        yield parts

    monkeypatch.setattr(Invocation, "app", opened)
    return parts


def run(*arguments: str) -> Result:
    return CliRunner(env={"DATABASE_URL": None}).invoke(app, list(arguments), prog_name="market-data")


def test_enrich_tells_what_became_of_each_series(stand_in: SimpleNamespace) -> None:
    result = run("enrich", "btc,ETH", "aapl", "-t", "1h,1d", "--start", "2024-01-01", "--end", "2024-01-02T00:00:00Z")
    assert (result.exit_code, result.stderr) == (0, "")
    heading, _, *lines = [" ".join(line.split()) for line in result.stdout.splitlines() if line.strip()]
    assert heading == "series source candles inserted updated unchanged gaps time quality"
    assert lines[0] == "BTC 1h binance 1,024 0 0 1,024 0 0.25 s 0.875"
    assert [line[:6] for line in lines] == ["BTC 1h", "BTC 1d", "ETH 1h", "ETH 1d", "AAPL 1", "AAPL 1"]
    instruments, timeframes, start, end = stand_in.enricher.asked[0]
    assert instruments == [
        Instrument("BTC", AssetClass.CRYPTO),
        Instrument("ETH", AssetClass.CRYPTO),
        Instrument("AAPL", AssetClass.STOCK),
    ]
    assert timeframes == (Timeframe.H1, Timeframe.D1)
    assert (start, end) == (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
    assert stand_in.asks_providers


def test_rejected_candles_get_a_column() -> None:
    report = SeriesReport(
        Series(Instrument("BTC", AssetClass.CRYPTO), Timeframe.H1), counts=Counts(inserted=7, rejected=3)
    )
    (line,) = as_lines([report])
    assert (line["candles"], line["inserted"], line["rejected"]) == (10, 7, 3)
    assert "kept" not in line


def test_given_asset_class_wins(stand_in: SimpleNamespace) -> None:
    run("enrich", "BTC", "SPY", "--asset-class", "etf")
    assert {i.asset_class for i in stand_in.enricher.asked[0][0]} == {AssetClass.ETF}
    assert stand_in.enricher.asked[0][1:] == ((Timeframe.D1,), None, None)


def test_what_is_tracked_or_stored_needs_no_asset_class(stand_in: SimpleNamespace) -> None:
    run("enrich", "SOL", "KO")
    assert stand_in.enricher.asked[0][0] == [Instrument("SOL", AssetClass.CRYPTO), Instrument("KO", AssetClass.STOCK)]
    assert "SOL (crypto)" in run("status", "SOL").stdout
    run("features", "SOL", "1h")
    assert stand_in.reader.asked[-1][0] == Series(Instrument("SOL", AssetClass.CRYPTO), Timeframe.H1)
    # Said otherwise, that holds.
    assert "SOL (stock)" in run("status", "SOL", "--asset-class", "stock").stdout


def test_enrich_as_json_prints_nothing_else(stand_in: SimpleNamespace) -> None:
    result = run("enrich", "BTC", "--json")
    (told,) = json.loads(result.stdout)
    assert told["symbol"] == "BTC"
    assert told["unchanged"] == 1024
    assert told["start"] == "2024-01-01T00:00:00Z"
    assert told["seconds"] == {"fetch": 0.25}
    assert told["quality_score"] == 0.875
    assert told["error"] is None


@pytest.mark.parametrize(
    ("symbols", "code", "errors"),
    [
        (["BTC", "NOPE"], 3, ["error: NOPE 1d: nobody lists NOPE"]),
        (["NOPE", "NADA"], 1, ["error: NOPE 1d: nobody lists NOPE", "error: NADA 1d: nobody lists NADA"]),
        (["BTC"], 0, []),
    ],
)
def test_exit_code_tells_whether_all_some_or_none_failed(
    stand_in: SimpleNamespace, symbols: list[str], code: int, errors: list[str]
) -> None:
    stand_in.enricher.failing = {name: UnknownInstrument(f"nobody\nlists {name}") for name in ("NOPE", "NADA")}
    for json_too in ([], ["--json"]):
        result = run("enrich", *symbols, *json_too)
        assert (result.exit_code, result.stderr.splitlines()) == (code, errors)


def test_status(stand_in: SimpleNamespace) -> None:
    assert json.loads(run("status", "BTC", "--json").stdout)["status"] == "healthy"
    lines = [line.split() for line in run("status", "BTC").stdout.splitlines()]
    assert ["BTC", "(crypto)"] in lines
    assert ["quality", "score", "0.98"] in lines
    assert ["error", "message", "–"] in lines


def test_features_as_csv_keep_every_digit(stand_in: SimpleNamespace) -> None:
    result = run("features", "BTC", "1h", "--format", "csv")
    assert result.stdout.splitlines() == [
        "timestamp,symbol,open,high,low,close,volume,sma_20,quality_score",
        "2024-01-01T00:00:00Z,BTC,42000.5,42500,41000,42100.25,1234.5678,,0.75",
        "2024-01-01T01:00:00Z,BTC,42100.25,42600,41500,42300,0.00000001,42200.125,1.0",
    ]
    assert stand_in.reader.asked == [(Series(Instrument("BTC", AssetClass.CRYPTO), Timeframe.H1), None, None)]


def test_features_as_json(stand_in: SimpleNamespace) -> None:
    rows = json.loads(run("features", "BTC", "1h", "--json", "--column", "volume", "--column", "sma_20").stdout)
    assert rows == [
        {"timestamp": "2024-01-01T00:00:00Z", "volume": "1234.5678", "sma_20": None},
        {"timestamp": "2024-01-01T01:00:00Z", "volume": "0.00000001", "sma_20": 42200.125},
    ]


def test_features_as_parquet_keep_their_types(stand_in: SimpleNamespace, tmp_path: Path) -> None:
    out = tmp_path / "btc.parquet"
    result = run("features", "BTC", "1h", "--format", "parquet", "--out", str(out))
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"2 candles written to {out}\n"
    assert pl.read_parquet(io.BytesIO(out.read_bytes())).equals(ROWS)


def test_features_as_a_table(stand_in: SimpleNamespace) -> None:
    lines = [" ".join(line.split()) for line in run("features", "BTC", "1h").stdout.splitlines()]
    assert "2024-01-01 01:00 42,100.25 42,600 41,500 42,300.00 0.00000001 42,200.1 1 BTC" in lines
    assert "2024-01-01 00:00 42,000.50 42,500 41,000 42,100.25 1,234.56780000 – 0.75 BTC" in lines
    assert stand_in.reader.asked[0][2] == 20


def test_features_range_and_limit(stand_in: SimpleNamespace) -> None:
    run("features", "BTC", "1h", "--start", "2024-01-01", "--limit", "5", "--json")
    _, span, limit = stand_in.reader.asked[0]
    assert (span.start, limit) == (datetime(2024, 1, 1, tzinfo=UTC), 5)
    assert span.end.year == 9999


def test_unknown_column_names_the_valid_ones(stand_in: SimpleNamespace) -> None:
    result = run("features", "BTC", "1h", "--column", "sma20")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: Unknown columns ['sma20']. Valid: timestamp, symbol, open,")


def test_no_candles_says_what_to_do(stand_in: SimpleNamespace) -> None:
    stand_in.reader.frame = ROWS.clear()
    result = run("features", "BTC", "1h")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "BTC 1h: no candles stored; fetch them with 'market-data enrich'\n"


def test_file_that_cannot_be_written(stand_in: SimpleNamespace, tmp_path: Path) -> None:
    result = run("features", "BTC", "1h", "--format", "csv", "--out", str(tmp_path / "none" / "x.csv"))
    assert result.exit_code == 2
    assert "there is no folder" in result.stderr
    result = run("features", "BTC", "1h", "--format", "csv", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: Cannot write {tmp_path}: Is a directory")
