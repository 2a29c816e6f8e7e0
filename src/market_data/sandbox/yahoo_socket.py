"""Yahoo's streamer: samples of prices as base64 protobuf within JSON (PROVIDERS §3.6)."""

from __future__ import annotations

import base64
import json
import struct

import numpy as np
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from market_data.sandbox.block import DAY, MINUTE
from market_data.sandbox.buckets import BINANCE
from market_data.sandbox.feed import Feed
from market_data.sandbox.pump import pump
from market_data.sandbox.yahoo import COIN_NAMES, EXCHANGES

SAMPLE_EVERY_MS = 1000
EQUITY, ETF, CRYPTO = 8, 20, 41
PRE, REGULAR, POST = 0, 1, 2


class YahooSockets:
    """The streamer's route, under ``/yahoo``."""

    def __init__(self, feed: Feed, disconnect: float = 0.0) -> None:
        self._feed = feed
        self._disconnect = disconnect
        market = feed.market
        self._coins = {f"{COIN_NAMES.get(symbol, symbol)}-USD": symbol for symbol in market.coins}
        self._stocks = {symbol.replace(".", "-"): symbol for symbol in market.stocks}

    def routes(self) -> list[WebSocketRoute]:
        """Every path answered."""
        return [WebSocketRoute("/yahoo", self.serve), WebSocketRoute("/yahoo/", self.serve)]

    async def serve(self, socket: WebSocket) -> None:
        """One connection."""
        await socket.accept()
        wanted: dict[str, None] = {}

        async def hear(text: str) -> None:
            try:
                asked = json.loads(text)
            except ValueError:
                return
            wanted.update(dict.fromkeys(asked.get("subscribe", [])))
            for raw in asked.get("unsubscribe", []):
                wanted.pop(raw, None)

        async def send(start: int, end: int) -> None:
            if end // SAMPLE_EVERY_MS == start // SAMPLE_EVERY_MS:
                return
            for raw in list(wanted):
                sample = self._sample(raw, end)
                if sample is not None:
                    packed = base64.b64encode(sample).decode()
                    await socket.send_text(json.dumps({"type": "pricing", "message": packed}))

        await pump(socket, self._feed.market, send, hear, self._disconnect)

    def _sample(self, raw: str, now: int) -> bytes | None:
        """The state of one instrument; None when it is unknown or did not trade in the last minutes."""
        if raw in self._coins:
            return self._coin_sample(raw, now)
        if raw in self._stocks:
            return self._stock_sample(raw, now)
        return None

    def _coin_sample(self, raw: str, now: int) -> bytes | None:
        coin = self._feed.market.coins[self._coins[raw]]
        trades = self._feed.coin_tape(coin.symbol).between(now - MINUTE, now)
        if not len(trades):
            return None
        day = self._feed.forming(coin.symbol, BINANCE["1d"], now // DAY * DAY, now)
        price = float(trades.price[-1]) * 10.0**-coin.price_decimals
        volume = int(day.quote[0]) // 10 ** (coin.price_decimals + coin.volume_decimals)
        return pricing(raw, price, int(trades.time[-1]), "CCC", CRYPTO, REGULAR, volume)

    def _stock_sample(self, raw: str, now: int) -> bytes | None:
        history = self._feed.market.stock(self._stocks[raw])
        trades = self._feed.stock_tape(history.stock.symbol).between(now - 5 * MINUTE, now)
        if not len(trades):
            return None
        at = int(np.searchsorted(history.opens, now, side="right")) - 1
        phase = REGULAR if now < history.closes[at] else POST if now < history.closes[at] + DAY // 4 else PRE
        done = history.minutes(int(history.opens[at]), min(now // MINUTE * MINUTE, int(history.closes[at])))
        price = float(trades.price[-1]) * 10.0**-history.stock.price_decimals
        kind = ETF if history.stock.etf else EQUITY
        exchange = EXCHANGES[history.stock.exchange][0]
        return pricing(raw, price, int(trades.time[-1]), exchange, kind, phase, int(done.volume.sum()))


def pricing(raw: str, price: float, at: int, exchange: str, kind: int, phase: int, volume: int) -> bytes:
    """A PricingData message; fields that are zero are absent, as proto3 has it."""
    parts = [_text(1, raw), b"\x15" + struct.pack("<f", price), _signed(3, at), _text(4, "USD"), _text(5, exchange)]
    parts += [_varint(6 << 3) + _varint(kind)]
    parts += [_varint(7 << 3) + _varint(phase)] if phase else []
    parts += [_signed(9, volume)] if volume else []
    return b"".join(parts)


def _text(field: int, value: str) -> bytes:
    encoded = value.encode()
    return _varint(field << 3 | 2) + _varint(len(encoded)) + encoded


def _signed(field: int, value: int) -> bytes:
    """A sint64: zigzag."""
    return _varint(field << 3) + _varint(value << 1 ^ value >> 63)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
