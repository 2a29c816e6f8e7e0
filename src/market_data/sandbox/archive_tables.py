"""The CSV text inside the archive's files: headers, time units and label conventions as they changed over the years."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl

from market_data.sandbox.binance import Venue
from market_data.sandbox.binance_derivatives import labels
from market_data.sandbox.block import DAY, MINUTE, SECOND, aggregated
from market_data.sandbox.buckets import BINANCE
from market_data.sandbox.coins import CoinHistory
from market_data.sandbox.derivatives import Derivatives
from market_data.sandbox.marketplace import Marketplace
from market_data.sandbox.premium import premium_rows
from market_data.sandbox.tape import Tape, Trades
from market_data.sandbox.text import decimal, rows

# The archive spells a month differently.
INTERVALS = {("1mo" if name == "1M" else name): name for name in BINANCE}


def _since(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * SECOND


HEADERS_SINCE = {"klines": _since(2022, 7, 1), "aggTrades": _since(2022, 8, 11), "trades": _since(2022, 8, 11)}
SPOT_MICROSECONDS_SINCE = _since(2025, 1, 1)
METRICS_SINCE = _since(2021, 12, 1)
METRICS_PERIOD = 5 * MINUTE

KLINE_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore\n"
)
TRADE_HEADERS = {
    "aggTrades": "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n",
    "trades": "id,price,qty,quote_qty,time,is_buyer_maker\n",
}
METRICS_HEADER = (
    "create_time,symbol,sum_open_interest,sum_open_interest_value,count_toptrader_long_short_ratio,"
    "sum_toptrader_long_short_ratio,count_long_short_ratio,sum_taker_long_short_vol_ratio\n"
)
FUNDING_HEADER = "calc_time,funding_interval_hours,last_funding_rate\n"


class ArchiveTables:
    """The tables of one house."""

    def __init__(self, market: Marketplace, venue: Venue) -> None:
        self._market = market
        self._venue = venue
        self._by_raw = {venue.raw_symbol(coin): coin.symbol for coin in market.coins.values()}

    def serves(self, kind: str, raw: str, interval: str | None, *, monthly: bool) -> bool:
        """Whether files of this kind exist at all."""
        if raw not in self._by_raw:
            return False
        if kind == "klines":
            return interval in INTERVALS
        if kind == "premiumIndexKlines":
            return self._venue.futures and interval in INTERVALS and not BINANCE[INTERVALS[interval]].months
        if interval is not None:
            return False
        if kind in ("metrics", "fundingRate"):
            return self._venue.futures and monthly == (kind == "fundingRate")
        return True

    def listed_at(self, raw: str) -> int:
        """When the coin was listed, ms."""
        return self._history(raw).start

    def text(self, kind: str, raw: str, interval: str, start: int, end: int) -> bytes:
        """The CSV of [start, end)."""
        if kind == "klines":
            return self._candles(raw, INTERVALS[interval], start, end)
        if kind == "premiumIndexKlines":
            return self._premium(raw, INTERVALS[interval], start, end)
        if kind == "metrics":
            return self._metrics(raw, start, end)
        if kind == "fundingRate":
            return self._funding(raw, start, end)
        return self._trades(kind, raw, start, end)

    def _history(self, raw: str) -> CoinHistory:
        return self._market.coin(self._by_raw[raw])

    def _headed(self, kind: str, header: str, start: int) -> bytes:
        return header.encode() if self._venue.futures and start >= HEADERS_SINCE[kind] else b""

    def _unit(self, start: int) -> int:
        """Ticks per millisecond in the file's times."""
        return 1000 if not self._venue.futures and start >= SPOT_MICROSECONDS_SINCE else 1

    def _candles(self, raw: str, interval: str, start: int, end: int) -> bytes:
        history, span, unit = self._history(raw), BINANCE[interval], self._unit(start)
        price, volume = self._venue.decimals(history.coin)
        first = span.floor_one(start)
        first = first if first >= start else span.after(first)
        last = span.floor_one(end - 1)
        finer = history.finest(span.unit, first, span.after(last), end + 40 * DAY)
        block = aggregated(finer, span.floor(finer.time))
        ends = np.array([span.after(int(at)) for at in block.time]) if span.months else block.time + span.length
        columns = {
            "t": block.time * unit, "e": ends * unit - 1, "o": block.values[0], "h": block.values[1],
            "l": block.values[2], "c": block.values[3], "v": block.volume, "q": block.quote, "n": block.values[8],
            "b": block.values[4], "y": block.values[6],
        }  # fmt: skip
        texts = [
            decimal("t", 0), *(decimal(name, price) for name in "ohlc"), decimal("v", volume), decimal("e", 0),
            decimal("q", price + volume), decimal("n", 0), decimal("b", volume), decimal("y", price + volume),
        ]  # fmt: skip
        lines = rows(block.time, columns, ",".join(["{}"] * len(texts)) + ",0\n", texts)
        return self._headed("klines", KLINE_HEADER, start) + bytes(lines.data)

    def _trades(self, kind: str, raw: str, start: int, end: int) -> bytes:
        history = self._history(raw)
        tape = Tape(history, history.coin.symbol, self._market.seed)
        head = self._headed(kind, TRADE_HEADERS[kind], start)
        # An hour at a time: a month of trades as one frame would take gigabytes.
        hours = range(start, end, 60 * MINUTE)
        return head + b"".join(
            self._trade_lines(kind, history, tape.between(at, at + 60 * MINUTE), start) for at in hours
        )

    def _trade_lines(self, kind: str, history: CoinHistory, trades: Trades, start: int) -> bytes:
        if not len(trades):
            return b""
        price, volume = self._venue.decimals(history.coin)
        columns = {
            "i": trades.id, "p": trades.price, "q": trades.quantity, "t": trades.time * self._unit(start),
            "m": trades.sold, "v": trades.price * trades.quantity,
        }  # fmt: skip
        yes, no = ("true", "false") if self._venue.futures else ("True", "False")
        side = pl.when(pl.col("m")).then(pl.lit(yes)).otherwise(pl.lit(no))
        number, paid = decimal("i", 0), [decimal("p", price), decimal("q", volume)]
        middle = [number, number] if kind == "aggTrades" else [decimal("v", price + volume)]
        texts = [number, *paid, *middle, decimal("t", 0), side]
        template = ",".join(["{}"] * len(texts)) + ("\n" if self._venue.futures else ",True\n")
        return bytes(rows(trades.time, columns, template, texts).data)

    def _metrics(self, raw: str, start: int, end: int) -> bytes:
        history = self._history(raw)
        states = Derivatives(history, self._market.seed).positions(METRICS_PERIOD, start, end + METRICS_PERIOD)
        label = labels(states.time, METRICS_PERIOD)
        # Old files run 00:05 to 24:00, new ones 00:00 to 23:55: each holds the periods that lie within its day.
        inside = (states.time > max(start, METRICS_SINCE)) & (states.time <= end)
        price, volume = self._venue.decimals(history.coin)
        amount = states.interest * 10.0**-volume
        value = amount * states.price * 10.0 ** (history.coin.price_decimals - price)
        taker = states.bought / np.maximum(states.sold, 1)
        names = ("amount", "value", "top_accounts", "top_positions", "everyone", "taker")
        numbers = (amount, value, states.top_accounts, states.top_positions, states.everyone, taker)
        frame = pl.DataFrame({"at": label, **dict(zip(names, numbers, strict=True))}).filter(pl.Series(inside))
        clock = pl.col("at").cast(pl.Datetime("ms")).dt.strftime("%Y-%m-%d %H:%M:%S")
        texts = [pl.col(name).round(8).cast(pl.Decimal(38, 8)).cast(pl.String) for name in names]
        line = frame.select(pl.format(f"{{}},{raw}" + ",{}" * len(names) + "\n", clock, *texts)).to_series()
        return METRICS_HEADER.encode() + "".join(line.to_list()).encode()

    def _premium(self, raw: str, interval: str, start: int, end: int) -> bytes:
        known, span = Derivatives(self._history(raw), self._market.seed), BINANCE[interval]
        first = span.floor_one(start)
        first = first if first >= start else span.after(first)
        lines = premium_rows(known, span, max(first, span.floor_one(self.listed_at(raw))), end, end + span.length)
        head = self._headed("klines", KLINE_HEADER, start)
        return head + "".join(",".join(map(str, row)) + "\n" for row in lines).encode()

    def _funding(self, raw: str, start: int, end: int) -> bytes:
        known = Derivatives(self._history(raw), self._market.seed)
        facts = known.funding(start, end)
        lines = [
            f"{at},{known.funding_hours(int(at))},{rate * 1e-8:.8f}\n"
            for at, rate in zip(facts.time.tolist(), facts.rate.tolist(), strict=True)
        ]
        return (FUNDING_HEADER + "".join(lines)).encode()
