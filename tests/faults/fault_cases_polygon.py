"""What Massive (Polygon.io) can do wrong."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import fault_acts as acts
import httpx
from fault_desk import HOURS, POLYGON_HOURS, Case
from fault_wire import Act, Fault

ALL = {"polygon": HOURS}
WINDOW, PAGE = 720, 700
SECOND_WINDOW = str(int((POLYGON_HOURS.span.start + timedelta(hours=WINDOW)).timestamp()) * 1000)
NOT_ENTITLED = {"status": "NOT_AUTHORIZED", "request_id": "r", "message": "You are not entitled to this data."}
TOO_MANY = {"status": "ERROR", "request_id": "r", "error": "You've exceeded the maximum requests per minute."}
BACKUP = ("polygon", "binance")


def bars(request: httpx.Request) -> bool:
    return request.url.path.startswith("/v2/aggs")


def second(request: httpx.Request) -> bool:
    """The first page of the second window."""
    return bars(request) and f"/hour/{SECOND_WINDOW}/" in request.url.path and "cursor" not in request.url.params


def second_more(request: httpx.Request) -> bool:
    """Its second page."""
    return bars(request) and f"/hour/{SECOND_WINDOW}/" in request.url.path and "cursor" in request.url.params


def once(name: str, act: Act, **more: Any) -> Case:
    return Case(name=name, subject=POLYGON_HOURS, faults=[Fault(second, act, 1)], stored=ALL, **more)


def always(name: str, act: Act, outcome: str, **more: Any) -> Case:
    given = {"stored": {"polygon": WINDOW}, "faults": [Fault(second, act)]} | more
    return Case(name=name, subject=POLYGON_HOURS, outcome=outcome, **given)


def harmless(name: str, act: Act, **more: Any) -> Case:
    return Case(**({"name": name, "subject": POLYGON_HOURS, "faults": [Fault(bars, act)], "stored": ALL} | more))


def without(*names: str) -> Act:
    return acts.changed_rows(
        lambda rows: [{name: value for name, value in row.items() if name not in names} for row in rows], "results"
    )


def with_values(**values: Any) -> Act:
    return acts.changed_rows(lambda rows: [*rows[:3], rows[3] | values, *rows[4:]], "results")


def page_of(request: httpx.Request, honest: httpx.Response) -> httpx.Response:
    """Names itself as the next page."""
    return httpx.Response(
        200, json=honest.json() | {"next_url": f"https://api.massive.com{request.url.raw_path.decode()}"}
    )


CASES = [
    harmless("next_url on another host", acts.document(lambda answer: answer)),
    always("next_url names the same page", page_of, "MalformedPayload"),
    always("next_url that is no address", acts.document(lambda answer: answer | {"next_url": 3}), "MalformedPayload"),
    always("no results key, count 0", acts.answering(200, {"status": "OK", "resultsCount": 0}), "complete",
           stored={"polygon": HOURS - WINDOW}, missing=WINDOW),
    always("no results key, count 5", acts.answering(200, {"status": "OK", "resultsCount": 5}), "MalformedPayload"),
    always("results that are no list", acts.answering(200, {"status": "OK", "results": {}}), "MalformedPayload"),
    always("status ERROR with 200", acts.answering(200, TOO_MANY), "MalformedPayload"),
    harmless("status DELAYED", acts.document(lambda answer: answer | {"status": "DELAYED"}), note="delayed"),
    always("429 with an empty body, always", acts.answering(429), "RateLimited", waited=14),
    once("429 with an empty body, once", acts.answering(429), waited=2),
    once("413, once", acts.answering(413), waited=2),
    once("503, once", acts.answering(503, acts.HTML), waited=2),
    always("401 unknown key", acts.answering(401, {"status": "ERROR", "error": "Unknown API Key"}), "BadCredentials"),
    always("403 not entitled", acts.answering(403, NOT_ENTITLED), "NotEntitled"),
    always("403 not entitled, with a second source", acts.answering(403, NOT_ENTITLED), "complete",
           stored={"polygon": WINDOW, "binance": HOURS - WINDOW}, priority=BACKUP),
    always("404", acts.answering(404, {"status": "NOT_FOUND", "message": "Ticker not found."}), "UnknownInstrument"),
    always("NaN in a price", with_values(c=float("nan")), "MalformedPayload"),
    always("Infinity in a price", with_values(h=float("inf")), "MalformedPayload"),
    always("a row without its time", acts.changed_rows(
        lambda rows: [*rows[:3], {name: value for name, value in rows[3].items() if name != "t"}, *rows[4:]],
        "results"), "MalformedPayload"),
    always("a row without volume", acts.changed_rows(
        lambda rows: [*rows[:3], {name: value for name, value in rows[3].items() if name != "v"}, *rows[4:]],
        "results"), "MalformedPayload"),
    harmless("rows without vw and n", without("vw", "n")),
    harmless("rows in the wrong order", acts.changed_rows(lambda rows: rows[::-1], "results")),
    harmless("every row twice", acts.changed_rows(lambda rows: rows + rows, "results")),
    harmless("a negative price", with_values(l=-1), faults=[Fault(second, with_values(l=-1))],
             stored={"polygon": HOURS - 1}, missing=1, rejected=1),
    harmless("200 with an empty body", acts.answering(200), faults=[Fault(second, acts.answering(200))],
             stored={"polygon": WINDOW}, outcome="MalformedPayload"),
    harmless("second page truncated", acts.half, faults=[Fault(second_more, acts.half)], stored={"polygon": WINDOW},
             outcome="ConnectionLost"),
    harmless("second page truncated, once", acts.half, faults=[Fault(second_more, acts.half, 1)]),
    harmless("byte order mark", acts.body(lambda text: b"\xef\xbb\xbf" + text)),
]  # fmt: skip
