"""What a chart request asks for, and Yahoo's refusals of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from market_data.sandbox.block import DAY, HOUR, MINUTE, SECOND, WEEK
from market_data.sandbox.buckets import MONDAY, Span

VALID_RANGES = ("1d", "5d", "1mo", "3mo", "6mo", "1y", "2y", "5y", "10y", "ytd", "max")
RANGE_DAYS = {"1d": 1, "5d": 7, "1mo": 31, "3mo": 92, "6mo": 183, "1y": 366, "2y": 731, "5y": 1827, "10y": 3653}
SPANS = {
    "1m": Span(MINUTE),
    "2m": Span(2 * MINUTE),
    "5m": Span(5 * MINUTE),
    "15m": Span(15 * MINUTE),
    "30m": Span(30 * MINUTE),
    "60m": Span(HOUR),
    "90m": Span(90 * MINUTE),
    "1h": Span(HOUR),
    "4h": Span(4 * HOUR),
    "1d": Span(DAY),
    "5d": Span(5 * DAY, MONDAY),
    "1wk": Span(WEEK, MONDAY),
    "1mo": Span(0, months=1),
    "3mo": Span(0, months=3),
}
INTRADAY = frozenset(SPANS) - {"1d", "5d", "1wk", "1mo", "3mo"}
# Days of history per interval, counted back from the present.
REACH_DAYS = {"1m": 30} | dict.fromkeys(("2m", "5m", "15m", "30m", "90m"), 60) | dict.fromkeys(("60m", "1h", "4h"), 730)
MOST_MINUTE_DAYS = 8


class YahooError(Exception):
    """A refusal: its HTTP status, code and text."""

    def __init__(self, status: int, code: str, description: str) -> None:
        super().__init__(description)
        self.status, self.code, self.description = status, code, description


@dataclass(frozen=True, slots=True)
class Asked:
    """A chart request; ``start`` and ``end`` in ms, end exclusive."""

    interval: str
    start: int
    end: int
    range: str
    events: frozenset[str]
    extended: bool

    @property
    def span(self) -> Span:
        """How its candles are cut."""
        return SPANS[self.interval]


def parsed(query: Mapping[str, str], now: int, first_trade: int) -> Asked:
    """The request in a query string.

    Raises:
        YahooError: 400 for an unknown interval or a bad range, 422 beyond the interval's reach.
    """
    interval = query.get("interval", "1d")
    if interval not in SPANS:
        known = ", ".join(SPANS)
        text = f"Invalid input - interval={interval} is not supported. Valid intervals: [{known}]"
        raise YahooError(400, "Bad Request", text)
    name = query.get("range", "")
    start, end = _period(query, name, now, first_trade)
    if start > end:
        dates = f"startDate = {start // SECOND}, endDate = {end // SECOND}"
        text = f"Invalid input - start date cannot be after end date. {dates}"
        raise YahooError(400, "Bad Request", text)
    _within_reach(interval, start, end, now)
    events = frozenset(query.get("events", "").replace("|", ",").split(","))
    return Asked(interval, start, end, name, events, query.get("includePrePost", "false").lower() == "true")


def _period(query: Mapping[str, str], name: str, now: int, first_trade: int) -> tuple[int, int]:
    if "period1" in query or "period2" in query:
        try:
            first, last = int(query.get("period1", "0")), int(query.get("period2", str(now // SECOND)))
        except ValueError:
            raise YahooError(400, "Bad Request", "Invalid input - period1 and period2 are epoch seconds") from None
        return first * SECOND, last * SECOND
    name = name or "1d"
    if name == "max":
        return first_trade, now + 1
    if name == "ytd":
        return Span(0, months=12, local=True).floor_one(now), now + 1
    days = RANGE_DAYS.get(name) or (int(name[:-1]) if name[:-1].isdigit() and name.endswith("d") else None)
    if days is None:
        known = ", ".join(VALID_RANGES)
        raise YahooError(400, "Bad Request", f"Invalid input - range={name} is not supported. Valid ranges: [{known}]")
    return now - days * DAY, now + 1


def _within_reach(interval: str, start: int, end: int, now: int) -> None:
    head = f"{interval} data not available for startTime={start // SECOND} and endTime={end // SECOND}."
    if interval == "1m" and end - start > MOST_MINUTE_DAYS * DAY:
        text = f"{head} Only 8 days worth of 1m granularity data are allowed to be fetched per request."
        raise YahooError(422, "Unprocessable Entity", text)
    days = REACH_DAYS.get(interval)
    if days is not None and start < now - days * DAY:
        text = f"{head} The requested range must be within the last {days} days."
        raise YahooError(422, "Unprocessable Entity", text)
