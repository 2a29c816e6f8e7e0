"""Massive's trades and quotes, stocks and coins (PROVIDERS §2.4)."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from market_data.sandbox.block import DAY, MINUTE, SECOND, TRADES, Block, Int
from market_data.sandbox.buckets import NEW_YORK
from market_data.sandbox.marketplace import Marketplace
from market_data.sandbox.massive_gate import BadRequest, following, guarded, limit_of, request_id, resumed
from market_data.sandbox.noise import seed_of, uniform
from market_data.sandbox.stocks import StockHistory
from market_data.sandbox.tape import Tape, Trades, joined_trades

DEFAULT_TICKS, MOST_TICKS = 1000, 50_000
NANOSECONDS = 1_000_000
FOREVER = 2**62
# A quote precedes the trade it led to by this much.
QUOTE_EARLIER_NS = 400_000
LISTING_TAPE = {"XNYS": 1, "ARCX": 2, "XNAS": 3}


class StockTapeSource:
    """A stock's minutes, extended hours included; trades are numbered within each UTC day, as sequence numbers are."""

    def __init__(self, history: StockHistory) -> None:
        self._history = history
        self.start = history.start // DAY * DAY

    def minutes(self, start: int, end: int) -> Block:
        """Minutes with a trade that open in [start, end)."""
        return self._history.extended(start, end)

    def trades_before(self, minute: int) -> int:
        """The number of the minute's first trade within its day."""
        return 1 + int(self.minutes(minute // DAY * DAY, minute).values[TRADES].sum())

    def minute_of_trade(self, wanted: int, now: int) -> int:
        """Not defined: the numbers begin anew each day.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"trade {wanted} before {now}")


class MassiveTicks:
    """The routes over a marketplace."""

    def __init__(self, market: Marketplace) -> None:
        self._market = market
        self._tapes: dict[str, Tape] = {}

    def routes(self) -> list[Route]:
        """Every path answered."""
        return [
            Route("/v3/trades/{raw}", guarded(self.trades, paid=True)),
            Route("/v3/quotes/{raw}", guarded(self.quotes, paid=True)),
        ]

    async def trades(self, request: Request) -> Response:
        """Trades, newest first unless asked otherwise."""
        raw = request.path_params["raw"]
        tape, trades, stamps = self._page(request)
        describe = self._coin_trades if raw.startswith("X:") else self._stock_trades
        return self._answer(request, describe(raw, trades, stamps) if tape else [], stamps)

    async def quotes(self, request: Request) -> Response:
        """Quotes of a stock, each just before the trade it led to."""
        raw = request.path_params["raw"]
        tape, trades, stamps = self._page(request)
        found = self._stock_quotes(raw, trades, stamps) if tape and not raw.startswith("X:") else []
        return self._answer(request, found, stamps)

    def _answer(self, request: Request, found: list[dict[str, Any]], stamps: Int) -> Response:
        newest_first = request.query_params.get("order", "desc") == "desc"
        limit = limit_of(request, DEFAULT_TICKS, MOST_TICKS)
        body: dict[str, Any] = {"status": "OK", "request_id": request_id(request)}
        if len(found) > limit:
            found = found[1:] if newest_first else found[:-1]
            body["next_url"] = following(request, int(stamps[1] if newest_first else stamps[-1]))
        body["results"] = found[::-1] if newest_first else found
        return JSONResponse(body)

    def _page(self, request: Request) -> tuple[Tape | None, Trades, Int]:
        """One more trade than the limit, oldest first, and their stamps in ns; no tape when it is not listed."""
        raw, query = request.path_params["raw"], request.query_params
        if query.get("order", "desc") not in ("asc", "desc"):
            raise BadRequest("The parameter 'order' must be 'asc' or 'desc'")
        start, end = _range(request)
        newest_first = query.get("order", "desc") == "desc"
        if "cursor" in query:
            at = resumed(query["cursor"])
            start, end = (start, min(end, at)) if newest_first else (max(start, at), end)
        tape = self._tape(raw)
        if tape is None:
            return None, joined_trades([]), np.empty(0, np.int64)
        wanted = limit_of(request, DEFAULT_TICKS, MOST_TICKS) + 1
        end = min(end, self._market.now() * NANOSECONDS)
        trades = _collected(tape, start, end, wanted, newest_first=newest_first)
        return tape, trades, _stamps(trades)

    def _tape(self, raw: str) -> Tape | None:
        if raw not in self._tapes:
            coin = raw.removeprefix("X:").removesuffix("USD")
            if raw.startswith("X:") and coin in self._market.coins:
                self._tapes[raw] = Tape(self._market.coin(coin), coin, self._market.seed)
            elif raw in self._market.stocks:
                self._tapes[raw] = Tape(StockTapeSource(self._market.stock(raw)), raw, self._market.seed)
        return self._tapes.get(raw)

    def _coin_trades(self, raw: str, trades: Trades, stamps: Int) -> list[dict[str, Any]]:
        coin = self._market.coins[raw.removeprefix("X:").removesuffix("USD")]
        price, size = 10.0**-coin.price_decimals, 10.0**-coin.volume_decimals
        return [
            {"conditions": [1 if sold else 2], "exchange": 1, "id": str(number), "participant_timestamp": at,
             "price": round(paid * price, coin.price_decimals), "received_timestamp": at + QUOTE_EARLIER_NS,
             "size": round(amount * size, coin.volume_decimals)}
            for number, at, paid, amount, sold in _tuples(trades, stamps)
        ]  # fmt: skip

    def _stock_trades(self, raw: str, trades: Trades, stamps: Int) -> list[dict[str, Any]]:
        stock = self._market.stocks[raw]
        price = 10.0**-stock.price_decimals
        return [
            {"conditions": [37] if amount < 100 else [12], "decimal_size": f"{amount}.0", "exchange": 4,
             "id": str(number), "participant_timestamp": at - QUOTE_EARLIER_NS, "price": round(paid * price, 4),
             "sequence_number": number, "sip_timestamp": at, "size": amount, "tape": LISTING_TAPE[stock.exchange]}
            for number, at, paid, amount, _ in _tuples(trades, stamps)
        ]  # fmt: skip

    def _stock_quotes(self, raw: str, trades: Trades, stamps: Int) -> list[dict[str, Any]]:
        stock = self._market.stocks[raw]
        cent = 10 ** (stock.price_decimals - 2)
        seed = seed_of(self._market.seed, raw, "quotes")
        depth = 1 + (uniform(seed, stamps, 1) * 12).astype(np.int64)
        bid = np.where(trades.sold, trades.price, trades.price - cent) // cent
        scale = 0.01
        return [
            {"ask_exchange": 11, "ask_price": round((at_bid + 1) * scale, 2), "ask_size": 100 * size,
             "bid_exchange": 12, "bid_price": round(at_bid * scale, 2), "bid_size": 100 * (13 - size),
             "participant_timestamp": at - 2 * QUOTE_EARLIER_NS, "sequence_number": number,
             "sip_timestamp": at - QUOTE_EARLIER_NS, "tape": LISTING_TAPE[stock.exchange]}
            for number, at, at_bid, size in zip(trades.id.tolist(), stamps.tolist(), bid.tolist(), depth.tolist(),
                                                strict=True)
        ]  # fmt: skip


def _collected(tape: Tape, start: int, end: int, wanted: int, *, newest_first: bool) -> Trades:
    """At most ``wanted`` trades stamped in [start, end) ns, from the chosen side, oldest first."""
    first, last = max(start // NANOSECONDS, tape.history.start), end // NANOSECONDS
    minutes = range(first // MINUTE * MINUTE, last + 1, MINUTE)
    pieces: list[Trades] = []
    count = 0
    for minute in reversed(minutes) if newest_first else minutes:
        trades = tape.minute(minute)
        if not len(trades):
            continue
        stamps = _stamps(trades)
        trades = trades.where((stamps >= start) & (stamps < end))
        pieces.append(trades)
        count += len(trades)
        if count >= wanted:
            break
    whole = joined_trades(pieces[::-1] if newest_first else pieces)
    return whole.where(slice(-wanted, None) if newest_first else slice(0, wanted))


def _stamps(trades: Trades) -> Int:
    """Nanoseconds, no two alike: the trade's number within a millisecond is part of it."""
    return trades.time * NANOSECONDS + trades.id % NANOSECONDS


def _tuples(trades: Trades, stamps: Int) -> list[tuple[int, int, int, int, bool]]:
    columns = (trades.id, stamps, trades.price, trades.quantity, trades.sold)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _range(request: Request) -> tuple[int, int]:
    """[start, end) in ns of the filters on ``timestamp``."""
    start, end = 0, FOREVER
    for name, value in request.query_params.items():
        if not name.startswith("timestamp"):
            continue
        first, after = _moments(value)
        suffix = name.removeprefix("timestamp")
        start = {"": first, ".gte": first, ".gt": after}.get(suffix, start)
        end = {"": after, ".lt": first, ".lte": after}.get(suffix, end)
    return start, end


def _moments(text: str) -> tuple[int, int]:
    """First ns of a date or stamp and the first after it; a date is New York's."""
    if re.fullmatch(r"\d{11,19}", text):
        return int(text), int(text) + 1
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(f"Could not parse the parameter 'timestamp': {text}") from None
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        days = [date.fromisoformat(text) + timedelta(days=ahead) for ahead in (0, 1)]
        first, after = (datetime(day.year, day.month, day.day, tzinfo=NEW_YORK).timestamp() for day in days)
        return int(first) * SECOND * NANOSECONDS, int(after) * SECOND * NANOSECONDS
    at = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()) * SECOND * NANOSECONDS
    return at, at + 1
