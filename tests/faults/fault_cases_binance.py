"""What Binance and the wire to it can do wrong."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from datetime import timedelta
from typing import Any

import fault_acts as acts
import httpx
from fault_desk import BINANCE, BINANCE_HOURS, HOURS, Case
from fault_wire import Act, Fault

from market_data.model.timeframe import TimeRange

FIRST, SECOND = 1500, HOURS - 1500
PAGE_TWO = str(BINANCE.millis(BINANCE_HOURS.span.start + timedelta(hours=FIRST)))
ALL = {"binance": HOURS}
NONE: dict[str, int] = {}
QUICK = {"providers.binance.timeout_seconds": 0.4, "providers.binance.max_retries": 1}
BAN = {"code": -1003, "msg": "Way too many requests; IP(127.0.0.1) banned."}
SLOW_DOWN = {"code": -1003, "msg": "Too many requests; current limit is 2400 requests per minute."}
GEO = {"code": 0, "msg": "Service unavailable from a restricted location according to 'b. Eligibility'."}
BACKUP = ("binance", "polygon")
# One row, said a million times.
ROW = b'[1717200000000,"1","1","1","1","1",1717203599999,"1",1,"1","1","0"]'


def second_page(request: httpx.Request) -> bool:
    """Whatever asks for the last hundred hours."""
    return klines(request) and int(request.url.params.get("endTime", 0)) >= int(PAGE_TWO)


def listing(request: httpx.Request) -> bool:
    return request.url.path.endswith("/exchangeInfo")


def klines(request: httpx.Request) -> bool:
    return request.url.path.endswith("/klines")


def futures(request: httpx.Request) -> bool:
    return request.url.path.startswith("/fapi")


def anything(request: httpx.Request) -> bool:
    return request.url.path.startswith(("/fapi", "/api"))


def once(name: str, act: Act, **more: Any) -> Case:
    """On the second page, the first time; it is tried again and nothing is lost."""
    return Case(name=name, subject=BINANCE_HOURS, faults=[Fault(second_page, act, 1)], stored=ALL, **more)


def always(name: str, act: Act, outcome: str, **more: Any) -> Case:
    """On the second page, whenever it is asked for; the first one is kept."""
    fault = Fault(second_page, act)
    return Case(name=name, subject=BINANCE_HOURS, faults=[fault], outcome=outcome, stored={"binance": FIRST}, **more)


def harmless(name: str, act: Act, **more: Any) -> Case:
    """On the second page, always; it changes nothing of what is stored."""
    return Case(**({"name": name, "subject": BINANCE_HOURS, "faults": [Fault(second_page, act)], "stored": ALL} | more))


def everywhere(name: str, act: Act, outcome: str, stored: dict[str, int] = NONE, **more: Any) -> Case:
    """On every request."""
    return Case(name=name, subject=BINANCE_HOURS, faults=[Fault(anything, act)], outcome=outcome, stored=stored, **more)


def with_row(number: int, **values: Any) -> Any:
    """Rows of which one has other values, by place: `_4` is the close."""

    def change(rows: list[Any]) -> list[Any]:
        for place, value in values.items():
            rows[number][int(place[1:])] = value
        return rows

    return change


def first_hours(request: httpx.Request, honest: httpx.Response) -> httpx.Response:
    """What the first page held, again."""
    begin = BINANCE.millis(BINANCE_HOURS.span.start)
    rows = [BINANCE.kline(begin // 1000 + 3600 * number, 3600) for number in range(SECOND)]
    return httpx.Response(200, content=json.dumps(rows, separators=(",", ":")).encode())


TRANSPORT = [
    once("connection reset, once", acts.reset, waited=2),
    always("connection reset, always", acts.reset, "ConnectionLost", waited=14),
    once("read stalls in the middle, once", acts.stall, settings=QUICK),
    always("read stalls in the middle, always", acts.stall, "ConnectionLost", settings=QUICK),
    always("no byte of an answer", acts.silence, "ConnectionLost", settings=QUICK),
    once("half a body, once", acts.half),
    always("half a body, always", acts.half, "ConnectionLost"),
    once("chunked body without its end, once", acts.chunk_cut),
    once("gzip stream that stops, once", acts.half_packed),
    always("said to be gzip, is not", acts.unpackable, "MalformedPayload"),
    always("gzip bomb", acts.bomb, "MalformedPayload", settings={"providers.binance.max_response_bytes": 10**7}),
    always("body without end", acts.endless, "MalformedPayload",
           settings={"providers.binance.max_response_bytes": 10**7}),
    always("something that is not HTTP", acts.not_http, "ConnectionLost"),
]  # fmt: skip

STATUS = [
    once("500, once", acts.answering(500, {"code": -1000, "msg": "An unknown error occured."}), waited=2),
    always("500, always", acts.answering(500, {"code": -1000, "msg": "An unknown error occured."}),
           "ProviderUnavailable", waited=14),
    always("502 with HTML, always", acts.answering(502, acts.HTML), "ProviderUnavailable"),
    once("429 with Retry-After, once", acts.answering(429, SLOW_DOWN, retry_after="7"), waited=7),
    everywhere("429 storm with Retry-After", acts.answering(429, SLOW_DOWN, retry_after="7"), "RateLimited", waited=21),
    everywhere("429 storm without Retry-After", acts.answering(429, SLOW_DOWN), "RateLimited", waited=14),
    everywhere("418 ban for an hour", acts.answering(418, BAN, retry_after="3600"), "RateLimited"),
    everywhere("418 ban for an hour, with a second source", acts.answering(418, BAN, retry_after="3600"), "complete",
               {"polygon": HOURS}, priority=BACKUP),
    Case(name="451 of the futures market, code 0", subject=BINANCE_HOURS, stored={"binance:spot": HOURS},
         faults=[Fault(futures, acts.answering(451, GEO))]),
    everywhere("451 of both markets", acts.answering(451, GEO), "GeoBlocked"),
    everywhere("403 of the firewall, HTML", acts.answering(403, acts.HTML), "RateLimited", waited=14),
    always("400 bad symbol", acts.answering(400, {"code": -1121, "msg": "Invalid symbol."}), "UnknownInstrument"),
    always("400 bad parameter", acts.answering(400, {"code": -1130, "msg": "Invalid."}), "UnsupportedRequest"),
    always("redirect to a consent page", acts.answering(302, b"", location="http://elsewhere.example/consent"),
           "ProviderUnavailable"),
    Case(name="500 in the middle of the range, with a second source", subject=BINANCE_HOURS, priority=BACKUP,
         faults=[Fault(second_page, acts.answering(500))], stored={"binance": FIRST, "polygon": SECOND}),
    everywhere("500 on everything, with a second source", acts.answering(500), "complete", {"polygon": HOURS},
               priority=BACKUP),
]  # fmt: skip

BODIES = [
    always("200 with HTML", acts.answering(200, acts.HTML), "MalformedPayload"),
    always("200 with an empty body", acts.answering(200), "MalformedPayload"),
    always("200 with an error document", acts.answering(200, {"code": 0, "msg": "hello"}), "MalformedPayload"),
    always("200 with null", acts.answering(200, b"null"), "MalformedPayload"),
    always("truncated JSON of the right length", acts.body(lambda text: text[: len(text) // 2]), "MalformedPayload"),
    always("garbage inside the JSON", acts.body(lambda text: text[:900] + b"\x00<html>\xff" + text[910:]),
           "MalformedPayload"),
    always("NaN in a price", acts.document(with_row(3, _4=float("nan"))), "MalformedPayload"),
    always("Infinity in a price", acts.document(with_row(3, _4=float("inf"))), "MalformedPayload"),
    always("'Infinity' as a text", acts.document(with_row(3, _4="Infinity")), "MalformedPayload"),
    always("a price of 10^400", acts.document(with_row(3, _4="1" + "0" * 400)), "MalformedPayload"),
    always("null in a price", acts.document(with_row(3, _4=None)), "MalformedPayload"),
    always("a word where a price should be", acts.document(with_row(3, _4="one")), "MalformedPayload"),
    always("a row with too few values", acts.document(lambda rows: [*rows[:3], rows[3][:5], *rows[4:]]),
           "MalformedPayload"),
    always("candles of another interval", acts.document(lambda rows: [
        [*row[:6], row[6] + 3 * 3_600_000, *row[7:]] for row in rows
    ]), "MalformedPayload"),
    always("a page of a million rows", acts.answering(200, b"[" + b",".join([ROW] * 10**6) + b"]"), "MalformedPayload"),
    harmless("wrong content type", acts.typed("text/html; charset=utf-8")),
    harmless("byte order mark", acts.body(lambda text: b"\xef\xbb\xbf" + text)),
    harmless("UTF-16 instead of UTF-8", acts.body(lambda text: text.decode().encode("utf-16"))),
    harmless("JSON with white space", acts.body(lambda text: json.dumps(json.loads(text), indent=2).encode())),
    harmless("more columns than promised", acts.document(lambda rows: [[*row, "new"] for row in rows])),
    harmless("rows in the wrong order", acts.document(lambda rows: rows[::-1])),
    harmless("last row twice", acts.document(lambda rows: [*rows, rows[-1]][1:] if len(rows) > 99 else rows),
             stored={"binance": HOURS - 1}, missing=1),
    harmless("the page before, again", first_hours, stored={"binance": FIRST}, missing=SECOND),
    harmless("an empty page in the middle", acts.answering(200, []), stored={"binance": FIRST}, missing=SECOND),
    harmless("rows missing in the middle", acts.document(lambda rows: rows[:40] + rows[50:]),
             stored={"binance": HOURS - 10}, missing=10),
    harmless("a row twice, with another price", acts.document(
        lambda rows: [*rows[1:], [*rows[-1][:4], "99.50", *rows[-1][5:]]]),
        stored={"binance": HOURS - 1}, missing=1, rejected=1),
    harmless("negative prices", acts.document(with_row(3, _1="-1", _3="-1")), stored={"binance": HOURS - 1}, missing=1,
             rejected=1),
    harmless("high below low", acts.document(with_row(3, _2="1")), stored={"binance": HOURS - 1}, missing=1,
             rejected=1),
    harmless("negative volume", acts.document(with_row(3, _5="-1")), stored={"binance": HOURS - 1}, missing=1,
             rejected=1),
    harmless("a row between two hours", acts.document(with_row(3, _0=int(PAGE_TWO) + 3 * 3_600_000 + 60_000)),
             stored={"binance": HOURS - 1}, missing=1, rejected=1),
    Case(name="no candles at all", subject=BINANCE_HOURS, faults=[Fault(klines, acts.answering(200, []))],
         outcome="UnsupportedRequest", stored={}),
    Case(name="instrument list that is not one", subject=BINANCE_HOURS, outcome="MalformedPayload", stored={},
         faults=[Fault(listing, acts.answering(200, {"symbols": 3}))]),
]  # fmt: skip


def clock(name: str, ours: timedelta, theirs: timedelta, stored: int) -> Case:
    """Two days up to now; the source's clock shows `theirs` after 10:00, ours `ours`; 47 hours are closed before it."""
    ten = BINANCE.NOW.replace(minute=0, second=0)
    told = {"serverTime": BINANCE.millis(ten + theirs)}
    subject = replace(
        BINANCE_HOURS, now=ten + ours, span=TimeRange(ten - timedelta(hours=48), ten + timedelta(hours=1))
    )
    # Its newest candle is as open as its own clock says.
    open_row = acts.document(
        lambda rows: [row if row[0] < BINANCE.millis(ten - timedelta(hours=1)) or theirs >= timedelta(0)
                      else [*row[:4], "1.5", *row[5:]] for row in rows]
    )  # fmt: skip
    served = Fault(lambda request: request.url.path.endswith("/time"), acts.answering(200, told))
    return Case(name=name, subject=subject, faults=[served, Fault(klines, open_row)], stored={"binance": stored},
                missing=48 - stored if ours >= timedelta(0) else 0)  # fmt: skip


CLOCKS = [
    clock("our clock 90 s fast, a candle still open there", timedelta(seconds=40), timedelta(seconds=-50), 47),
    clock("our clock 90 s slow, a candle closed there already", timedelta(seconds=-50), timedelta(seconds=40), 47),
]


def unreached(name: str, address: str) -> Case:
    """Both markets at an address where nobody answers."""
    addresses = {f"providers.binance.{market}": address for market in ("rest_url", "spot_rest_url")}
    settings = QUICK | addresses
    return Case(name=name, subject=BINANCE_HOURS, outcome="ConnectionLost", stored={}, settings=settings)


def address_of(port: socket.socket) -> str:
    return f"http://127.0.0.1:{port.getsockname()[1]}"


# Taken by us, and nobody listens.
_closed = socket.socket()
_closed.bind(("127.0.0.1", 0))
# Its queue of connections is full: whoever knocks waits for ever.
_full = socket.socket()
_full.bind(("127.0.0.1", 0))
_full.listen(0)
_waiting = [socket.socket() for _ in range(4)]
for _one in _waiting:
    _one.setblocking(False)
    _one.connect_ex(_full.getsockname())

PLACES = [
    unreached("host name that does not exist", "http://nothing.invalid"),
    unreached("connection refused", address_of(_closed)),
    unreached("connecting takes for ever", address_of(_full)),
]

# Gone on with after its first page, with more than a page to come.
TWICE = TimeRange(BINANCE_HOURS.span.start, BINANCE_HOURS.span.start + timedelta(hours=2 * HOURS))
LONGER = replace(BINANCE_HOURS, span=TWICE)
RESUMED = Case(
    name="500 for a page, four times", subject=LONGER, stored={"binance": 2 * HOURS}, waited=14,
    faults=[Fault(lambda request: klines(request) and request.url.params.get("startTime") == PAGE_TWO,
                  acts.answering(500), 4)],
)  # fmt: skip

CASES = [RESUMED, *PLACES, *TRANSPORT, *STATUS, *BODIES, *CLOCKS]
