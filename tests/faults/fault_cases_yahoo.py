"""What Yahoo can do wrong."""

from __future__ import annotations

from typing import Any

import fault_acts as acts
import httpx
from fault_desk import YAHOO_HOURS, Case, opens
from fault_wire import Act, Fault

COUNT = len(opens(YAHOO_HOURS, YAHOO_HOURS.span))
ALL = {"yahoo": COUNT}
OUTAGE = "<html><body><h1>Will be right back...</h1></body></html>"
RANGE = "1h data not available for startTime=1 and endTime=2. The requested range must be within the last 730 days."


def hours(request: httpx.Request) -> bool:
    return request.url.path.startswith("/v8/finance/chart/") and request.url.params.get("interval") in ("1h", "60m")


def charts(request: httpx.Request) -> bool:
    return request.url.path.startswith("/v8/finance/chart/")


def refusal(status: int, code: str, text: str) -> Act:
    return acts.answering(status, {"chart": {"result": None, "error": {"code": code, "description": text}}})


def always(name: str, act: Act, outcome: str, **more: Any) -> Case:
    return Case(
        **(
            {"name": name, "subject": YAHOO_HOURS, "faults": [Fault(hours, act)], "outcome": outcome, "stored": {}}
            | more
        )
    )


def once(name: str, act: Act, **more: Any) -> Case:
    return Case(name=name, subject=YAHOO_HOURS, faults=[Fault(charts, act, 1)], stored=ALL, **more)


def result(change: Any) -> Act:
    """The only result changed."""

    def all_of(answer: Any) -> Any:
        change(answer["chart"]["result"][0])
        return answer

    return acts.document(all_of)


def quote(name: str, number: int, value: Any) -> Act:
    def change(found: Any) -> None:
        found["indicators"]["quote"][0][name][number] = value

    return result(change)


def holes(found: Any) -> None:
    for values in found["indicators"]["quote"][0].values():
        values[5:9] = [None] * 4


def again(found: Any) -> None:
    found["timestamp"].append(found["timestamp"][-1])
    for values in found["indicators"]["quote"][0].values():
        values.append(values[-1])


def nothing(found: Any) -> None:
    found.pop("timestamp", None)
    found["indicators"]["quote"] = [{}]


def shorter(found: Any) -> None:
    found["indicators"]["quote"][0]["close"].pop()


def backwards(found: Any) -> None:
    found["timestamp"].reverse()
    for values in found["indicators"]["quote"][0].values():
        values.reverse()


def meta(**values: Any) -> Act:
    return result(lambda found: found["meta"].update(values))


CASES = [
    once("429 as HTML, once", acts.answering(429, "Edge: Too Many Requests"), waited=2),
    always("429 as HTML, always", acts.answering(429, "Edge: Too Many Requests"), "RateLimited", waited=14),
    always("outage page with 200", acts.answering(200, OUTAGE), "ProviderUnavailable", waited=14),
    once("outage page with 200, once", acts.answering(200, OUTAGE), waited=2),
    always("redirect to the consent page",
           acts.answering(302, b"", location="https://guce.yahoo.com/consent?brandType=eu"), "GeoBlocked"),
    always("consent page with 200", acts.answering(200, acts.HTML), "MalformedPayload"),
    always("422 range text", refusal(422, "Unprocessable Entity", RANGE), "UnsupportedRequest"),
    always("404 possibly delisted", refusal(404, "Not Found", "No data found, symbol may be delisted"),
           "UnknownInstrument"),
    always("400 data does not exist", refusal(400, "Bad Request", "Data doesn't exist for startDate = 1"),
           "UnsupportedRequest"),
    always("no timestamp key", result(nothing), "UnsupportedRequest"),
    always("null holes", result(holes), "complete", stored={"yahoo": COUNT - 4}, missing=4),
    always("last row twice", result(again), "complete", stored=ALL),
    always("rows in the wrong order", result(backwards), "complete", stored=ALL),
    always("Infinity in a price", quote("high", 3, float("inf")), "MalformedPayload"),
    always("NaN in a price", quote("low", 3, float("nan")), "MalformedPayload"),
    always("a negative price", quote("low", 3, -5.0), "complete", stored={"yahoo": COUNT - 1}, missing=1, rejected=1),
    always("fewer values than times", result(shorter), "MalformedPayload"),
    always("candles of another interval", meta(dataGranularity="1d"), "MalformedPayload"),
    always("candles of another symbol", meta(symbol="AAPU"), "MalformedPayload"),
    always("candles in another currency", meta(currency="GBp"), "UnknownInstrument"),
    always("truncated JSON", acts.body(lambda text: text[: len(text) // 2]), "MalformedPayload"),
    always("half a body, always", acts.half, "ConnectionLost"),
    always("empty body", acts.answering(200), "MalformedPayload"),
]  # fmt: skip
