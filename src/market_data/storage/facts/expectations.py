"""What a contract's status makes of its series: until when candles are expected, and when none were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from market_data.model.instrument import AssetClass, Instrument, Series, Status
from market_data.model.timeframe import EPOCH, TimeRange
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection

# What is halted for longer than this is as good as gone, and said to be.
GIVEN_UP_AFTER: Final = timedelta(days=7)
_OF_SERIES: Final = "symbol = %s AND asset_class = %s AND timeframe = %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trading:
    """How the own contract of an instrument stands with its venue."""

    contract_id: int
    symbol: str
    source: str
    status: Status
    text: str | None
    since: datetime | None
    listed_from: datetime | None
    listed_to: datetime | None
    last_end: datetime | None = None
    """When its last stored candle ends."""

    @property
    def quiet(self) -> bool:
        """Whether nothing new is expected of it."""
        return self.status is not Status.TRADING

    def words(self, now: datetime) -> str | None:
        """What to tell of it; None while it trades."""
        if not self.quiet:
            return None
        venue = f" ({self.text})" if self.text else ""
        since = self.listed_to if self.status.ended else self.since
        since = self.last_end or since
        when = f" since {since:%Y-%m-%d %H:%M} UTC" if since else ""
        name = f"{self.symbol} at {self.source}"
        if self.status is Status.NOT_YET_LISTED:
            begins = f" before {self.listed_from:%Y-%m-%d %H:%M} UTC" if self.listed_from else ""
            return f"{name} does not trade yet{venue}{begins}"
        if self.status is Status.HALTED and (since is None or now - since < GIVEN_UP_AFTER):
            return f"{name} is halted{venue}{when}: no candles are expected"
        word = "not trading, delisted" if self.status is Status.HALTED else f"{self.status.value}, delisted"
        return f"{name} is {word.removeprefix('delisted, ')}{venue}{when}: no candles are expected after that"


def trading_of(connection: Connection, instruments: Sequence[Instrument]) -> dict[Instrument, Trading]:
    """The own contracts of instruments that have one, with the newest word on each."""
    rows = connection.execute(
        "SELECT i.symbol, i.class, t.contract_id, c.symbol, t.source, v.status, v.status_text, v.status_since, "
        "v.listed_from, v.listed_to, (SELECT max(m.end_time) FROM coverage m WHERE (m.symbol, m.asset_class) = "
        "(i.symbol, i.class) AND m.state = 'present') FROM unnest(%s::text[], %s::text[]) i (symbol, class) "
        "CROSS JOIN LATERAL (SELECT * FROM contract_ties t WHERE (t.symbol, t.asset_class) = (i.symbol, i.class) "
        "ORDER BY decided_at DESC LIMIT 1) t JOIN contracts c ON c.contract_id = t.contract_id "
        "CROSS JOIN LATERAL (SELECT * FROM contract_versions v WHERE v.contract_id = t.contract_id "
        "ORDER BY (v.source = t.source) DESC, known_from DESC LIMIT 1) v",
        [[each.symbol for each in instruments], [each.asset_class.value for each in instruments]],
    )
    return {
        Instrument(symbol, AssetClass(name)): Trading(
            contract_id=number,
            symbol=exact,
            source=source,
            status=Status(status),
            text=text,
            since=since,
            listed_from=listed_from,
            listed_to=listed_to,
            last_end=last_end,
        )
        for symbol, name, number, exact, source, status, text, since, listed_from, listed_to, last_end in rows
    }


def trading(database: Database, instruments: Sequence[Instrument]) -> dict[Instrument, Trading]:
    """As `trading_of`, in a transaction of its own."""
    with database.transaction() as connection:
        return trading_of(connection, instruments)


def expected_until(connection: Connection, series: Series, now: datetime) -> datetime:
    """Up to when candles of a series are expected: `now` while its contract trades.

    Of one that ended or is halted, up to its last stored candle: the venue's own date of the end has been late. While
    nothing is stored, up to that date; of one that is not listed yet, none.
    """
    found = trading_of(connection, [series.instrument]).get(series.instrument)
    if found is None or not found.quiet:
        return now
    row = connection.execute(
        f"SELECT timestamp FROM market_data_v2 WHERE {_OF_SERIES} ORDER BY timestamp DESC LIMIT 1", series.key
    ).fetchone()
    if row is not None:
        last: datetime = row[0] + series.timeframe.duration
        return min(now, last)
    return min(now, found.listed_to) if found.status.ended and found.listed_to is not None else EPOCH


def halts(connection: Connection, series: Series, span: TimeRange) -> list[tuple[TimeRange, str]]:
    """When the own contract was seen halted within a span or at its edge, and in whose words; over by now."""
    rows = connection.execute(
        "SELECT coalesce(status_since, known_from), until, v.source || ': ' || c.symbol || ' was halted' || "
        "coalesce(' (' || status_text || ')', '') FROM (SELECT *, lead(known_from) OVER "
        "(PARTITION BY contract_id, source ORDER BY known_from) AS until FROM contract_versions) v "
        "JOIN contracts c USING (contract_id) JOIN (SELECT contract_id FROM contract_ties "
        "WHERE (symbol, asset_class) = (%s, %s) ORDER BY decided_at DESC LIMIT 1) t USING (contract_id) "
        "WHERE status = 'halted' AND until >= %s AND known_from <= %s ORDER BY 1",
        [series.symbol, series.asset_class.value, span.start, span.end],
    )
    return [(TimeRange(start, end), words) for start, end, words in rows if start < end]
