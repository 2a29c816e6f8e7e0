"""Binance's recorded answers and stream messages, from five collections; one of them with an independent reading."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from conformance_tally import Tally, decoded, files, moment

from market_data.model.dataset import CANDLES, LIQUIDATIONS, QUOTES, TRADES, Dataset
from market_data.model.errors import MalformedPayload
from market_data.model.instrument import Status
from market_data.providers.binance.markets import SPOT_MARKET, USD_M, listed_rows, parse_contracts
from market_data.providers.binance.messages import Message, messages_rows, read_message
from market_data.providers.binance.parse import parse_klines
from market_data.providers.binance.statistics import (
    SERIES,
    parse_funding,
    parse_metrics,
    parse_present,
    parse_series,
)
from market_data.providers.binance.trades import parse_aggregate_trades, parse_trades

RECEIVED = datetime(2019, 9, 1, 0, 0, 1, 275_000, tzinfo=UTC)
KLINE = {"open": 1, "high": 2, "low": 3, "close": 4, "volume": 5, "quote_volume": 7, "trade_count": 8,
         "taker_buy_volume": 9, "taker_buy_quote_volume": 10}  # fmt: skip
MOST_FRAMES = 5_000
"""Of each session: one frame is like the other, and there are half a million."""
Body = dict[str, Any]


def nautilus(folder: Path) -> list[Tally]:
    """One example of nearly every answer and message of the documents."""
    tally = {name: Tally(name) for name in ("klines", "aggregate trades", "trades", "statistics", "funding",
                                             "instruments", "messages")}  # fmt: skip
    for path in files(folder, "binance_doc_examples/*.json", "binance_rust/*.json"):
        body, name = path.read_bytes(), path.stem
        if name.endswith("klines") or name == "klines_response":
            _klines(tally["klines"], path.name, body)
        elif "agg_trades" in name:
            _aggregates(tally["aggregate trades"], path.name, body)
        elif name.endswith(("market_trades", "historical_trades")) or name == "trades_response":
            _single(tally["trades"], path.name, body)
        elif "funding_rate" in name:
            _funding(tally["funding"], path.name, body)
        elif name.endswith("exchange_info") or name == "exchange_info_response":
            _instruments(tally["instruments"], path.name, body, futures="futures" in name)
        elif name.startswith("ws_") or name.endswith(("_stream", "_open", "_closed")):
            _messages(tally["messages"], path.name, [body])
        else:
            _statistics(tally["statistics"], path.name, body)
            if "open_interest" in name and isinstance(sent := decoded(body), dict):
                expected = [{"timestamp": moment(sent["time"]), "value": sent["openInterest"]}]
                tally["statistics"].compare(path.name, parse_present(body).frame, expected)
    return list(tally.values())


def _klines(tally: Tally, where: str, body: bytes) -> None:
    expected = [{"timestamp": moment(row[0]), "close_time": moment(row[6])} | {n: row[at] for n, at in KLINE.items()}
                for row in decoded(body)]  # fmt: skip
    tally.compare(where, parse_klines(body).frame, expected)


def _aggregates(tally: Tally, where: str, body: bytes) -> None:
    expected = [{"a": row["a"], "p": row["p"], "q": row["q"], "T": moment(row["T"]), "m": row["m"]}
                for row in decoded(body)]  # fmt: skip
    tally.compare(where, parse_aggregate_trades(body).frame, expected)


def _single(tally: Tally, where: str, body: bytes) -> None:
    expected = [{"timestamp": moment(row["time"]), "trade_id": str(row["id"]), "price": row["price"],
                 "size": row["qty"], "aggressor_side": "sell" if row["isBuyerMaker"] else "buy"}
                for row in decoded(body)]  # fmt: skip
    tally.compare(where, parse_trades(body).frame, expected)


def _funding(tally: Tally, where: str, body: bytes) -> None:
    expected = [{"timestamp": moment(row["fundingTime"]), "rate": row["fundingRate"],
                 "mark_price": row.get("markPrice") or None, "rate_type": row.get("rateType", "Regular")}
                for row in decoded(body)]  # fmt: skip
    tally.compare(where, parse_funding(body).frame, expected)


def _statistics(tally: Tally, where: str, body: bytes) -> None:
    for series in SERIES:
        rows = decoded(body)
        if isinstance(rows, list) and rows and set(series.fields) <= set(rows[0]) and "timestamp" in rows[0]:
            expected = [{"timestamp": moment(row["timestamp"])} | {ours: row[name] for name, ours in
                         series.fields.items()} for row in rows]  # fmt: skip
            tally.compare(where, parse_series(body, series).frame, expected)
            return


def _instruments(tally: Tally, where: str, body: bytes, *, futures: bool) -> None:
    market = USD_M if futures else SPOT_MARKET
    kept = decoded(body)["symbols"]
    if any("contractStatus" in row for row in kept):
        return  # contracts settled in coins are listed by another market, which we do not ask
    found = [{"symbol": one.raw_symbol, "base": one.base, "quote": one.quote, "listed": one.listed_from,
              "trading": one.status is Status.TRADING} for one in parse_contracts(body, market)]  # fmt: skip
    expected = [{"symbol": row["symbol"], "base": row["baseAsset"], "quote": row["quoteAsset"],
                 "listed": moment(row["onboardDate"]) if "onboardDate" in row else None,
                 "trading": row["status"] == "TRADING"} for row in kept]  # fmt: skip
    tally.compare(where, found, expected)
    frame = listed_rows(parse_contracts(body, market), market).frame
    tally.say(f"{where}: symbols once", frame["raw_symbol"].n_unique(), frame.height)


def _messages(tally: Tally, where: str, bodies: list[bytes], received: datetime = RECEIVED) -> None:
    """Every message by the fields it was sent with; of those that are none of ours, that nothing is made of them."""
    by_dataset: dict[str, tuple[Dataset, list[Message], list[Body]]] = {}
    for body in bodies:
        sent = decoded(body)
        sent = sent.get("data", sent) if isinstance(sent, dict) else sent
        said = _said(sent, received) if isinstance(sent, dict) else None
        found = read_message(body, received) if isinstance(sent, dict) else None
        if said is None or found is None:
            tally.values += 1
            if (said is None) != (found is None):
                tally.differing.append(f"{where}: {body[:100]!r} gave {found}")
            continue
        _, messages, rows = by_dataset.setdefault(found.dataset.name, (found.dataset, [], []))
        messages.append(found)
        rows.append(said)
    for dataset, messages, rows in by_dataset.values():
        tally.compare(where, messages_rows(dataset, messages).frame, rows)
    tally.files += not by_dataset


def _said(sent: Body, received: datetime) -> Body | None:
    kind = sent.get("e", "bookTicker" if {"u", "b", "B", "a", "A"} <= sent.keys() else None)
    if kind in ("aggTrade", "trade") and sent.get("X", "MARKET") == "MARKET":
        return {"timestamp": moment(sent["T"]), "trade_id": str(sent["a" if kind == "aggTrade" else "t"]),
                "price": sent["p"], "size": sent["q"], "aggressor_side": "sell" if sent["m"] else "buy"}  # fmt: skip
    if kind == "bookTicker":
        return {"timestamp": moment(sent["T"]) if "T" in sent else received, "sequence": sent["u"],
                "bid_price": sent["b"], "bid_size": sent["B"], "ask_price": sent["a"],
                "ask_size": sent["A"]}  # fmt: skip
    if kind == "forceOrder":
        order = sent["o"]
        return {"timestamp": moment(order["T"]), "known_at": moment(sent["E"]), "price": order["p"],
                "size": order["q"], "side": {"SELL": "long", "BUY": "short"}[order["S"]]}  # fmt: skip
    if kind == "kline" and sent["k"]["x"]:
        bar, names = sent["k"], dict(zip(CANDLES.schema, "tohlcv", strict=False))
        del names["timestamp"]
        return {"timestamp": moment(bar["t"]), "quote_volume": bar["q"], "trade_count": bar["n"],
                "taker_buy_volume": bar["V"]} | {name: bar[key] for name, key in names.items()}  # fmt: skip
    return None


def cryptofeed(folder: Path) -> list[Tally]:
    """Recorded sessions: the instrument list, then the frames as they came."""
    instruments, messages = Tally("instruments"), Tally("messages")
    for path in files(folder, "BINANCE*.0.gz"):
        text = gzip.decompress(path.read_bytes()).decode()
        if path.name.count(".") == 2:
            body = text.splitlines()[0].partition(" -> ")[2].partition(": ")[2].encode()
            if body.startswith(b"{"):
                _instruments(instruments, path.name, body, futures=path.name != "BINANCE.0.gz")
        elif ".ws." in path.name:
            frames = [line.partition(": ")[2].encode() for line in text.splitlines() if ': {"' in line[:40]]
            _messages(messages, path.name, frames[:MOST_FRAMES])
    return [instruments, messages]


def hftbacktest(folder: Path) -> list[Tally]:
    """Raw sessions of trades and quotes."""
    tally = Tally("messages")
    for path in files(folder, "*/*.gz"):
        with gzip.open(path, "rt") as lines:
            frames = [body.encode() for line in lines if '"data"' in (body := line.partition(" ")[2])
                      and ("@trade" in body or "@bookTicker" in body)][:MOST_FRAMES]  # fmt: skip
        _messages(tally, str(path.relative_to(folder)), frames)
    return [tally]


def tardis(folder: Path) -> list[Tally]:
    """Messages with what an independent normaliser makes of them."""
    kinds: dict[str, tuple[Dataset, Callable[[Body], Body]]] = {
        "trade": (TRADES, lambda one: {"trade_id": one["id"], "price": _number(one["price"]),
                                       "size": _number(one["amount"]), "aggressor_side": one["side"],
                                       "timestamp": _time(one)}),
        # The one whose order is filled by force held the other side.
        "liquidation": (LIQUIDATIONS, lambda one: {"price": _number(one["price"]), "size": _number(one["amount"]),
                                                   "side": {"buy": "short", "sell": "long"}[one["side"]],
                                                   "timestamp": _time(one)}),
        # Their time is the event's, ours the matching engine's, where both are told.
        "book_ticker": (QUOTES, lambda one: {
            f"{side}_{ours}": _number(one[f"{side}{theirs}"])
            for side in ("bid", "ask") for ours, theirs in (("price", "Price"), ("size", "Amount"))
        }),
    }  # fmt: skip
    tally = {kind: Tally(f"{kind}s") for kind in kinds} | {"none": Tally("not of the market, or nothing of ours")}
    for path in files(folder, "binance_messages.jsonl", "binance_futures_messages.jsonl", "binance_delivery_*.jsonl"):
        for number, line in enumerate(path.read_text().splitlines()):
            pair, where = decoded(line), f"{path.name}, line {number + 1}"
            raw = json.dumps(pair["raw"], default=str).encode()
            data = pair["raw"].get("data", {})
            if data.get("e") == "aggTrade" and "a" not in data:
                # Its number was taken out by hand: nothing to tell it by.
                tally["none"].say(where, _refusal(raw), "MalformedPayload")
                continue
            found = read_message(raw, RECEIVED) if "id" not in pair["raw"] else None
            answers = [one for one in pair["expected"] if one["type"] in kinds]
            for one in answers:
                dataset, named = kinds[one["type"]]
                rows = messages_rows(dataset, [found]).frame if found else dataset.empty()
                tally[one["type"]].compare(where, rows, [named(one)])
            # Of futures it passes over aggregate trades: it takes the single ones.
            if not answers and data.get("e") != "aggTrade":
                tally["none"].say(where, found, None)
    return list(tally.values())


def _refusal(body: bytes) -> str:
    try:
        return repr(read_message(body, RECEIVED))
    except MalformedPayload as error:
        return type(error).__name__


def _number(value: Any) -> Decimal:
    return Decimal(str(value))


def _time(one: Body) -> datetime:
    return datetime.fromisoformat(one["timestamp"])


def vision(folder: Path) -> list[Tally]:
    """Rows of the archive's metrics files."""
    tally = Tally("metrics")
    for path in files(folder, "um_metrics_*.csv"):
        rows = list(csv.DictReader(path.read_text().splitlines()))
        for series in SERIES:
            expected = [{ours: row[name] for name, ours in series.file_fields.items()} for row in rows]
            found = parse_metrics(path.read_bytes(), series, datetime(2024, 1, 1, tzinfo=UTC)).frame
            tally.compare(f"{path.name}: {series.kind or series.dataset.name}", found, expected)
    return [tally]
