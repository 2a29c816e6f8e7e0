"""Massive's sockets for stocks and coins: key, subscriptions, arrays of mixed events (PROVIDERS §2.8)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from market_data.sandbox.binance_streams import fixed
from market_data.sandbox.block import DAY, MINUTE, SECOND, Block
from market_data.sandbox.feed import Feed, candle_of
from market_data.sandbox.massive_gate import BASIC_KEY, REFUSED_KEY
from market_data.sandbox.massive_ticks import LISTING_TAPE
from market_data.sandbox.pump import pump
from market_data.sandbox.tape import Trades

Event = dict[str, Any]
CHANNELS = {"stocks": ("T", "Q", "A", "AM"), "crypto": ("XT", "XQ", "XA", "XAS")}
POLICY_VIOLATION = 1008
NO_SOCKETS = "Your plan doesn't include websocket access. Visit https://massive.com/pricing to upgrade."


class MassiveSockets:
    """The socket routes, under ``/massive``; a new connection with a key closes the older one of that cluster."""

    def __init__(self, feed: Feed, disconnect: float = 0.0) -> None:
        self._feed = feed
        self._disconnect = disconnect
        self._open: dict[tuple[str, str], WebSocket] = {}

    def routes(self) -> list[WebSocketRoute]:
        """Every path answered."""
        return [WebSocketRoute("/massive/{cluster}", self.serve)]

    async def serve(self, socket: WebSocket) -> None:
        """One connection."""
        cluster = socket.path_params["cluster"]
        await socket.accept()
        if cluster not in CHANNELS:
            await socket.close(POLICY_VIOLATION)
            return
        await socket.send_text(status("connected", "Connected Successfully"))
        connection = _Connection(self._feed, socket, cluster, self._open)
        await pump(socket, self._feed.market, connection.send, connection.hear, self._disconnect)


class _Connection:
    """What one client listens to, once its key was taken."""

    def __init__(self, feed: Feed, socket: WebSocket, cluster: str, opened: dict[tuple[str, str], WebSocket]) -> None:
        self._feed = feed
        self._socket = socket
        self._cluster = cluster
        self._opened = opened
        self._allowed = False
        self._channels: dict[str, tuple[str, list[str]]] = {}

    async def hear(self, text: str) -> None:
        """Obey a request of the client."""
        try:
            asked = json.loads(text)
            action, params = asked["action"], str(asked.get("params", ""))
        except (ValueError, TypeError, KeyError):
            await self._socket.send_text(status("error", "invalid message"))
            return
        if action == "auth":
            await self._authenticate(params)
        elif not self._allowed:
            await self._socket.send_text(status("auth_required", "authentication required"))
        elif action == "subscribe":
            for name in params.split(","):
                await self._subscribe(name.strip())
        elif action == "unsubscribe":
            for name in params.split(","):
                self._channels.pop(name.strip(), None)
                await self._socket.send_text(status("success", f"unsubscribed to: {name.strip()}"))

    async def _authenticate(self, key: str) -> None:
        if not key or key in (REFUSED_KEY, BASIC_KEY):
            await self._socket.send_text(
                status("auth_failed", NO_SOCKETS if key == BASIC_KEY else "authentication failed")
            )
            await self._socket.close(POLICY_VIOLATION)
            return
        older = self._opened.get((key, self._cluster))
        self._opened[key, self._cluster] = self._socket
        if older is not None and older is not self._socket and older.client_state.name == "CONNECTED":
            await older.send_text(status("max_connections", "Maximum number of websocket connections exceeded."))
            await older.close(POLICY_VIOLATION)
        self._allowed = True
        await self._socket.send_text(status("auth_success", "authenticated"))

    async def _subscribe(self, name: str) -> None:
        kind, _, symbol = name.partition(".")
        market = self._feed.market
        known = list(market.stocks) if self._cluster == "stocks" else [f"{coin}-USD" for coin in market.coins]
        if kind not in CHANNELS[self._cluster] or (symbol != "*" and symbol not in known):
            await self._socket.send_text(status("error", f"not authorized: {name}"))
        elif name not in self._channels:
            self._channels[name] = (kind, known if symbol == "*" else [symbol])
            await self._socket.send_text(status("success", f"subscribed to: {name}"))

    async def send(self, start: int, end: int) -> None:
        """Tell what the channels have for (start, end] in one array."""
        tell = self._stock if self._cluster == "stocks" else self._coin
        events = [
            event
            for kind, symbols in list(self._channels.values())
            for symbol in symbols
            for event in tell(kind, symbol, start, end)
        ]
        if events:
            await self._socket.send_text(json.dumps(events, separators=(",", ":")))

    def _stock(self, kind: str, symbol: str, start: int, end: int) -> Iterator[Event]:
        tape, stock = self._feed.stock_tape(symbol), self._feed.market.stocks[symbol]
        if kind in ("A", "AM"):
            for opened, trades in _windows(tape.between, SECOND if kind == "A" else MINUTE, start, end):
                yield self._stock_candle(kind, symbol, opened, trades)
            return
        scale, listing = 10.0**-stock.price_decimals, LISTING_TAPE[stock.exchange]
        for number, at, price, size in _ticks(tape.between(start + 1, end + 1)):
            if kind == "T":
                yield {"ev": "T", "sym": symbol, "x": 4, "i": str(number), "z": listing, "p": round(price * scale, 4),
                       "s": size, "c": [12], "t": at, "q": number, "ds": f"{size}.0"}  # fmt: skip
            else:
                bid = int(price * scale * 100) / 100
                yield {"ev": "Q", "sym": symbol, "bx": 12, "bp": bid, "bs": 3, "ax": 11, "ap": round(bid + 0.01, 2),
                       "as": 4, "c": 1, "t": at, "q": number, "z": listing}  # fmt: skip

    def _stock_candle(self, kind: str, symbol: str, opened: int, trades: Trades) -> Event:
        scale = 10.0 ** -self._feed.market.stocks[symbol].price_decimals
        values = candle_of(trades, opened).values[:, 0].tolist()
        volume = values[4] + values[5]
        before = self._feed.market.stock(symbol).extended(opened // DAY * DAY, opened // MINUTE * MINUTE)
        total = int(before.volume.sum()) + volume
        length = SECOND if kind == "A" else MINUTE
        return {
            "ev": kind, "sym": symbol, "v": volume, "av": total, "dv": f"{volume}.0", "dav": f"{total}.0",
            "op": round(int(before.values[0, 0] if len(before) else values[0]) * scale, 4),
            "vw": round((values[6] + values[7]) / volume * scale, 4), "o": round(values[0] * scale, 4),
            "c": round(values[3] * scale, 4), "h": round(values[1] * scale, 4), "l": round(values[2] * scale, 4),
            "a": round((values[6] + values[7]) / volume * scale, 4), "z": max(volume // values[8], 1), "s": opened,
            "e": opened + length,
        }  # fmt: skip

    def _coin(self, kind: str, pair: str, start: int, end: int) -> Iterator[Event]:
        symbol = pair.removesuffix("-USD")
        coin, tape = self._feed.market.coins[symbol], self._feed.coin_tape(symbol)
        price, size = coin.price_decimals, coin.volume_decimals
        if kind in ("XA", "XAS"):
            length = MINUTE if kind == "XA" else SECOND
            for opened, trades in _windows(tape.between, length, start, end):
                yield _coin_candle(kind, pair, candle_of(trades, opened), length, price, size)
            return
        trades = tape.between(start + 1, end + 1)
        for (number, at, paid, amount), sold in zip(_ticks(trades), trades.sold.tolist(), strict=True):
            here = float(fixed(paid, price))
            if kind == "XT":
                yield {"ev": "XT", "pair": pair, "p": here, "t": at, "s": float(fixed(amount, size)),
                       "c": [1 if sold else 2], "i": str(number), "x": 1, "r": at + 5}  # fmt: skip
            else:
                bid = float(fixed(paid if sold else paid - 1, price))
                ask = float(fixed(paid + 1 if sold else paid, price))
                yield {"ev": "XQ", "pair": pair, "bp": bid, "bs": float(fixed(amount, size)), "ap": ask,
                       "as": float(fixed(amount, size)), "t": at, "x": 1, "r": at + 5}  # fmt: skip


def _coin_candle(kind: str, pair: str, block: Block, length: int, price: int, size: int) -> Event:
    values, opened = block.values[:, 0].tolist(), int(block.time[0])
    volume = values[4] + values[5]
    o, h, low, c = (float(fixed(value, price)) for value in values[:4])
    return {
        "ev": kind, "pair": pair, "o": o, "c": c, "h": h, "l": low, "v": float(fixed(volume, size)),
        "vw": round((values[6] + values[7]) / volume * 10.0**-price, price + 2), "z": max(volume // values[8], 1),
        "s": opened, "e": opened + length,
    }  # fmt: skip


def _windows(between: Any, length: int, start: int, end: int) -> Iterator[tuple[int, Trades]]:
    """Windows that ended in (start, end] and had a trade, with their trades."""
    for edge in range((start // length + 1) * length, end + 1, length):
        trades = between(edge - length, edge)
        if len(trades):
            yield edge - length, trades


def _ticks(trades: Trades) -> list[tuple[int, int, int, int]]:
    columns = (trades.id, trades.time, trades.price, trades.quantity)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def status(name: str, message: str) -> str:
    """A status frame."""
    return json.dumps([{"ev": "status", "status": name, "message": message}])
