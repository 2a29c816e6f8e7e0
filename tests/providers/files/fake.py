"""A folder of files; what elsewhere is a source that answers requests is here one that writes them."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from market_data.model import errors
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import Timeframe

FOLDER = Path(tempfile.mkdtemp(prefix="market-data-files-"))
KNOWN = Instrument("BTC", AssetClass.CRYPTO)
UNKNOWN = Instrument("NOSUCH", AssetClass.CRYPTO)
RAW_SYMBOL = "BTC"
SETTINGS: dict[str, object] = {"folder": FOLDER}
LISTED = datetime(2025, 1, 1, tzinfo=UTC)
NOW = datetime(2025, 3, 5, 10, 30, 30, tzinfo=UTC)
CASES = [
    (KNOWN, Timeframe.M5, LISTED, datetime(2025, 1, 3, 12, tzinfo=UTC)),
    (KNOWN, Timeframe.M5, datetime(2025, 3, 5, tzinfo=UTC), datetime(2025, 3, 6, tzinfo=UTC)),
    (KNOWN, Timeframe.H4, datetime(2024, 12, 1, tzinfo=UTC), datetime(2025, 1, 5, tzinfo=UTC)),
    (KNOWN, Timeframe.D1, datetime(2025, 2, 1, 5, tzinfo=UTC), NOW),
    (KNOWN, Timeframe.W1, datetime(2025, 1, 1, tzinfo=UTC), NOW),
]
EMPTY = (KNOWN, Timeframe.H1, datetime(2023, 1, 1, tzinfo=UTC), datetime(2023, 2, 1, tzinfo=UTC))
HEADER = "when,open,high,low,close,volume\n"
ERRORS: list[tuple[httpx.Response, type[errors.MarketDataError]]] = []
GARBAGE = [
    b"",
    b"<html>",
    b"when,open\n1,2\n",
    HEADER.encode() + b"2025-01-01T00:00:00Z,1,1,1,one,1\n",
    HEADER.encode() + b"yesterday,1,1,1,1,1\n",
    HEADER.encode() + b"2025-01-01T00:00:00Z,1,1,1,,1\n",
    HEADER.encode() + b"2025-01-01T00:00:00Z,1,1,1\n",
]
DESCRIPTION = """
- files: "btc-*.csv"
  symbol: BTC
  asset_class: crypto
  timeframe: 5m
  columns: {timestamp: when}
"""


class Source:
    """Writes the folder anew; `override` is what one of its files holds."""

    def __init__(self) -> None:
        for path in FOLDER.iterdir():
            path.unlink()
        (FOLDER / "files.yaml").write_text(DESCRIPTION)
        moments = [LISTED + timedelta(minutes=5 * number) for number in range((NOW - LISTED) // timedelta(minutes=5))]
        lines = [f"{moment:%Y-%m-%dT%H:%M:%SZ},10.10,12.00,9.05,11.00000001,{moment.minute}.5" for moment in moments]
        half = len(lines) // 2
        (FOLDER / "btc-1.csv").write_text(HEADER + "\n".join(lines[:half]))
        # A row in both files counts once.
        (FOLDER / "btc-2.csv").write_text(HEADER + "\n".join(lines[half - 1 :]))

    def __setattr__(self, name: str, value: object) -> None:
        assert name == "override"
        assert isinstance(value, httpx.Response)
        (FOLDER / "btc-1.csv").write_bytes(value.content)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"{request.url} was asked for")
