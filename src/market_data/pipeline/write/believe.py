"""What is believed of splits and payments: the claims of all sources joined, splits held against the raw price's jump.

What is believed of splits is put on record whenever it changes (`settle`), so that features, adjusted reads and whoever
asks what was believed at a past moment read the same. Between a new claim and the next record it is worked out anew.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import partial
from typing import Final

from market_data.model.actions import Payment, Sessions, Split, joined_payments, joined_splits
from market_data.model.dataset import SPLITS
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.jumps import settled
from market_data.model.session import sessions_apart
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.write.derive import Shelves
from market_data.storage.facts.actions import (
    believed_then,
    claims_known,
    last_moment,
    note_belief,
    payment_claims,
    split_claims,
    split_from_row,
)
from market_data.storage.facts.append import lock_facts
from market_data.storage.facts.reads import newest_versions
from market_data.storage.series.due import lock_instrument, note_due_after
from market_data.storage.series.reader import Reader
from market_data.storage.series.session_prices import prices_around
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection

REACH: Final = timedelta(days=10)
"""Prices this near a split can tell whether it took place."""
PRICED_IN: Final = "USD"
"""Every source serves listings in this currency only."""


def believed_splits(reader: Reader, instrument: Instrument, as_of: datetime) -> list[Split]:
    """Splits known at a moment, in order of their date, those to come and those that do not apply included.

    For windows of features: take those with `applies` and `date <= session`; `date` is the session from whose open on
    the new shares trade, `ratio` the exact number of new shares for an old one (a `Fraction`: older prices are divided
    by it, older volumes multiplied).
    """
    known = claims_known(reader.database, SPLITS, instrument, as_of)
    if known is None:
        return []
    since, rows = believed_then(reader.database, instrument, as_of)
    if since is not None and since >= known:
        return [split_from_row(row) for row in rows]
    return judged_splits(reader, instrument, as_of)


def judged_splits(reader: Reader, instrument: Instrument, as_of: datetime) -> list[Split]:
    """The same worked out from the claims and prices known at that moment, with the claims of each."""
    counted = sessions_of(instrument)
    splits = joined_splits(split_claims(reader.database, instrument, as_of), counted)
    days = [claim.date for split in splits if split.applies for claim in split.claims]
    prices = prices_around(reader, instrument, days, as_of)
    return settled(splits, prices.values(), counted)


def believed_payments(reader: Reader, instrument: Instrument, as_of: datetime) -> list[Payment]:
    """Dividends and distributions known at a moment, in order of their ex-date; rivals of others do not apply."""
    claims = payment_claims(reader.database, instrument, as_of)
    return joined_payments(claims, sessions_of(instrument), PRICED_IN)


def sessions_of(instrument: Instrument) -> Sessions:
    """Counts the sessions of an instrument's calendar."""
    return partial(sessions_apart, instrument.asset_class.calendar)


def settle(
    connection: Connection, reader: Reader, shelves: Shelves, instrument: Instrument, now: datetime
) -> date | None:
    """Put on record what is believed of splits now, if that changed; windows that a changed split lies in become due.

    The transaction is one of its own, after the one that wrote claims or prices: it reads what is committed.

    Returns:
        the first date from which on what applies differs from before; None when nothing that applies changed.
    """
    # No candle is derived from the old belief and stored after its stretch was noted.
    lock_instrument(connection, instrument, exclusive=True)
    lock_facts(connection, SPLITS, instrument)
    # What was written last may be younger than a clock that stands still or stepped back.
    now = max(now, last_moment(reader.database, instrument) or now)
    known = claims_known(reader.database, SPLITS, instrument, now)
    if known is None:
        return None
    since, rows = believed_then(reader.database, instrument, now)
    before = [split_from_row(row) for row in rows]
    after = judged_splits(reader, instrument, now)
    if since is None or since < known or _content(before) != _content(after):
        moment = now if since is None else max(now, since + timedelta(microseconds=1))
        note_belief(connection, instrument, after, moment)
    differing = {day for day, _ in _applied(before) ^ _applied(after)}
    reach = {timeframe: shelves.lookback(Series(instrument, timeframe)) for timeframe in Timeframe}
    note_due_after(connection, instrument, differing, reach, "what is believed of splits changed", now)
    return min(differing, default=None)


def settle_near(
    database: Database, shelves: Shelves, series: Series, span: TimeRange, clock: Callable[[], datetime]
) -> None:
    """`settle` after prices of a span were written, where they can bear on a split; days also on the week it is in.

    Args:
        database: where they are committed.
        shelves: what looks back over splits.
        series: whose prices.
        span: open times of what was written.
        clock: when it is.
    """
    instrument = series.instrument
    if instrument.asset_class is AssetClass.CRYPTO:
        return
    around = TimeRange(span.start - REACH, span.end + REACH)
    claimed = newest_versions(database, SPLITS, instrument, around)
    if claimed.is_empty():
        return
    reader = Reader(database)

    def transaction(connection: Connection) -> None:
        settle(connection, reader, shelves, instrument, clock())
        if series.timeframe is Timeframe.D1:
            near = {claim + timedelta(days=apart) for claim in claimed[SPLITS.time].unique() for apart in (-7, 0, 7)}
            weeks = {Timeframe.W1: shelves.lookback(Series(instrument, Timeframe.W1))}
            note_due_after(connection, instrument, near, weeks, "days of a week with a split changed", clock())

    database.retrying_transaction(transaction)


def _content(splits: list[Split]) -> list[tuple[object, ...]]:
    return [(each.date, each.ratio, each.state, each.reason) for each in splits]


def _applied(splits: list[Split]) -> set[tuple[date, object]]:
    return {(each.date, each.ratio) for each in splits if each.applies}
