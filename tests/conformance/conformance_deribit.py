"""Deribit's recorded answers through the library ccxt, our transport and our provider."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import polars as pl
from conformance_tally import Tally, decoded, moment

from market_data.model.contract import Listing
from market_data.model.dataset import FUNDING_RATES, TRADES
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.providers.ccxt import Ccxt
from market_data.providers.ccxt.exchange import CcxtSettings
from market_data.transport.http import Http
from market_data.transport.senders import HttpxSender

ANSWERS = {
    "get_funding_rate_history": "funding_rate_history.json",
    "get_tradingview_chart_data": "tradingview_chart.json",
    "get_last_trades_by_instrument_and_time": "trades_instrument.json",
    "get_instruments": "instruments_future.json",
}
# What is recorded is of the inverse perpetual, which our symbols do not name; the library's name does.
PERPETUAL = Listing(Instrument("BTC", AssetClass.CRYPTO), "ccxt", "BTC/USD:BTC", "DERIBIT")
MANY_YEARS = timedelta(days=3650)


def tallies(folder: Path) -> list[Tally]:
    """Candles, trades and funding rates of the perpetual; nothing where the library is absent."""
    return asyncio.run(_tallies(folder)) if find_spec("ccxt") else []


async def _tallies(folder: Path) -> list[Tally]:
    def source(request: httpx.Request) -> httpx.Response:
        name = ANSWERS.get(request.url.path.rpartition("/")[2])
        result = (folder / name).read_bytes() if name else b"[]"
        return httpx.Response(200, content=b'{"jsonrpc":"2.0","result":' + result + b"}")

    settings = CcxtSettings(exchange="deribit", market_type="swap", requests_per_minute=60_000)
    provider = Ccxt(settings, Http("ccxt", settings, sender=HttpxSender(httpx.MockTransport(source))))
    library = provider._exchange.library
    await library.load_markets()
    found = [
        await _candles(provider, decoded((folder / ANSWERS["get_tradingview_chart_data"]).read_bytes())),
        await _trades(provider, decoded((folder / ANSWERS["get_last_trades_by_instrument_and_time"]).read_bytes())),
        await _funding(provider, decoded((folder / ANSWERS["get_funding_rate_history"]).read_bytes())),
    ]
    await library.close()
    return found


async def _candles(provider: Ccxt, recorded: dict[str, Any]) -> Tally:
    times = recorded["ticks"]
    span = TimeRange(moment(times[0]), moment(times[-1]) + timedelta(days=1))
    frame = (await provider._window(PERPETUAL, Timeframe.D1, span)).frame
    names = ("open", "high", "low", "close", "volume")
    tally = Tally("candles")
    rows = [{"timestamp": moment(at)} | {name: recorded[name][number] for name in names}
            for number, at in enumerate(times)]  # fmt: skip
    tally.compare("tradingview_chart.json", frame, rows)
    return tally


async def _trades(provider: Ccxt, recorded: dict[str, Any]) -> Tally:
    rows = sorted(recorded["trades"], key=lambda row: row["timestamp"])
    start = moment(rows[0]["timestamp"])
    pages = [page.frame async for page in _asked(provider, TRADES, start)]
    expected = [{"timestamp": moment(row["timestamp"]), "trade_id": row["trade_id"], "price": row["price"],
                 "size": row["amount"], "aggressor_side": row["direction"]} for row in rows]  # fmt: skip
    tally = Tally("trades")
    by_number = pl.concat(pages).sort("timestamp", "trade_id")
    tally.compare(
        "trades_instrument.json", by_number, sorted(expected, key=lambda row: (row["timestamp"], row["trade_id"]))
    )
    return tally


async def _funding(provider: Ccxt, recorded: list[dict[str, Any]]) -> Tally:
    start = moment(min(row["timestamp"] for row in recorded))
    pages = [page.frame async for page in _asked(provider, FUNDING_RATES, start)]
    expected = [{"timestamp": moment(row["timestamp"]), "rate": row["interest_8h"]}
                for row in sorted(recorded, key=lambda row: row["timestamp"])]  # fmt: skip
    tally = Tally("funding rates")
    tally.compare("funding_rate_history.json", pl.concat(pages), expected)
    return tally


def _asked(provider: Ccxt, dataset: Any, start: datetime) -> Any:
    provider.resolve = _resolved  # type: ignore[method-assign]
    end, now = start + MANY_YEARS, datetime(2036, 1, 1, tzinfo=UTC)
    if dataset is TRADES:
        return provider.fetch_trades(PERPETUAL.instrument, start, end, now=now)
    return provider.fetch(dataset, PERPETUAL.instrument, start, end, now=now)


async def _resolved(instrument: Instrument) -> Listing:
    return PERPETUAL
