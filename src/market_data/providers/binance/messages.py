"""Binance's stream messages to rows: pure and exact, one message at a time; what we store nothing of is None.

Layouts: github.com/binance/binance-spot-api-docs/blob/master/web-socket-streams.md and the USD-M documents of 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from market_data.model.dataset import CANDLES, LIQUIDATIONS, QUOTES, TRADES, Dataset
from market_data.model.errors import MalformedPayload
from market_data.model.rows import Rows
from market_data.model.text import shown
from market_data.transport.columns import moment
from market_data.transport.payload import load_json
from market_data.transport.rows import NOT_AS_PROMISED, read_values

# A trade that is none of two traders (INSURANCE_FUND, ADL, NA) is no trade of the market.
OF_THE_MARKET: Final = (None, "MARKET")
# The side of the forced order: who is sold out was long.
CLOSED: Final = {"SELL": "long", "BUY": "short"}


@dataclass(frozen=True, slots=True)
class Message:
    """One row of a dataset, values as the texts that were sent."""

    dataset: Dataset
    raw_symbol: str
    row: dict[str, Any]


def read_message(body: bytes, received: datetime) -> Message | None:
    """The row a message carries, bare or in the envelope of combined streams.

    Args:
        body: the JSON as it came.
        received: our clock; the time of messages that carry none (spot quotes).

    Raises:
        MalformedPayload: when it is not as the protocol promises.
    """
    answer = load_json(body)
    if isinstance(answer, dict) and "stream" in answer:
        answer = answer.get("data")
    if not isinstance(answer, dict):
        raise MalformedPayload(f"not a message: {shown(answer)}")
    # Quotes of the spot market do not say what they are.
    read = READ.get(str(answer.get("e", "bookTicker" if {"u", "b", "B", "a", "A"} <= answer.keys() else "")))
    try:
        return read(answer, received) if read else None
    except NOT_AS_PROMISED as error:
        raise MalformedPayload(f"a {answer.get('e')} is not as promised ({error!r}): {shown(answer)}") from None


def messages_rows(dataset: Dataset, messages: Sequence[Message]) -> Rows:
    """Messages of one dataset as rows of it, in the order given."""
    rows = [message.row for message in messages]
    return read_values(rows, rows, dict(dataset.schema), dataset.required, dataset.time, dataset.key)


def _trade(answer: dict[str, Any], number: str) -> Message | None:
    if answer.get("X") not in OF_THE_MARKET:
        return None
    row = {
        "timestamp": _moment(answer["T"]),
        "trade_id": answer[number],
        "price": answer["p"],
        "size": answer["q"],
        # The maker was the buyer: the taker sold.
        "aggressor_side": {True: "sell", False: "buy"}[answer["m"]],
    }
    return Message(TRADES, answer["s"], row)


def _quote(answer: dict[str, Any], received: datetime) -> Message:
    row = {
        "timestamp": _moment(answer["T"]) if "T" in answer else received,
        "sequence": answer["u"],
        "bid_price": answer["b"],
        "bid_size": answer["B"],
        "ask_price": answer["a"],
        "ask_size": answer["A"],
    }
    return Message(QUOTES, answer["s"], row)


def _liquidation(answer: dict[str, Any]) -> Message:
    order = answer["o"]
    row = {
        "timestamp": _moment(order["T"]),
        "known_at": _moment(answer["E"]),
        # It has no number: there is at most one a second and symbol.
        "liquidation_id": f"{order['T']}-{order['S']}-{order['p']}-{order['q']}",
        "side": CLOSED[order["S"]],
        "price": order["p"],
        "size": order["q"],
    }
    return Message(LIQUIDATIONS, order["s"], row)


def _candle(answer: dict[str, Any]) -> Message | None:
    candle = answer["k"]
    if not candle["x"]:
        return None
    names = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume", "q": "quote_volume", "n": "trade_count",
             "V": "taker_buy_volume", "Q": "taker_buy_quote_volume"}  # fmt: skip
    row = {"timestamp": _moment(candle["t"])} | {ours: candle[theirs] for theirs, ours in names.items()}
    return Message(CANDLES, answer["s"], row)


def _moment(millis: str) -> datetime:
    return moment(millis, "ms")


READ: Final[dict[str, Callable[[dict[str, Any], datetime], Message | None]]] = {
    "aggTrade": lambda answer, _: _trade(answer, "a"),
    "trade": lambda answer, _: _trade(answer, "t"),
    "bookTicker": _quote,
    "forceOrder": lambda answer, _: _liquidation(answer),
    "kline": lambda answer, _: _candle(answer),
}
