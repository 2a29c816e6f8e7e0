"""Corporate actions as stored: every claim with its life, what was believed of splits and when, what was asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from market_data.model.actions import ActionState, PaymentClaim, Split, SplitClaim
from market_data.model.dataset import DIVIDENDS, SPLITS, Dataset
from market_data.model.instrument import Instrument
from market_data.model.timeframe import TimeRange
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection

_OF: Final = "symbol = %s AND asset_class = %s"
_VALUES: Final = {
    SPLITS.name: ("split_from", "split_to"),
    DIVIDENDS.name: ("amount", "currency", "dividend_type"),
}


def split_claims(database: Database, instrument: Instrument, as_of: datetime) -> list[SplitClaim]:
    """What each source had said of splits by then, and whether it had taken it back."""
    return [
        SplitClaim(**_life(versions, SPLITS), split_from=newest["split_from"], split_to=newest["split_to"])
        for versions in _by_claim(_versions(database, SPLITS, instrument, as_of), SPLITS)
        for newest in (versions[-1],)
    ]


def payment_claims(database: Database, instrument: Instrument, as_of: datetime) -> list[PaymentClaim]:
    """What each source had said of dividends and distributions by then, and whether it had taken it back."""
    return [
        PaymentClaim(
            **_life(versions, DIVIDENDS),
            amount=newest["amount"],
            currency=newest["currency"],
            kind=newest["dividend_type"],
        )
        for versions in _by_claim(_versions(database, DIVIDENDS, instrument, as_of), DIVIDENDS)
        for newest in (versions[-1],)
    ]


def claims_known(database: Database, dataset: Dataset, instrument: Instrument, as_of: datetime) -> datetime | None:
    """When the newest version of any claim became known, of those known by then; None without any."""
    (row,) = database.rows(
        f"SELECT max(known_from) AS newest FROM {dataset.table} WHERE {_OF} AND known_from <= %s",
        (*_key(instrument), as_of),
    )
    newest: datetime | None = row["newest"]
    return newest


def last_moment(database: Database, instrument: Instrument) -> datetime | None:
    """When the newest claim of a split or the newest candle of an instrument became known."""
    key = _key(instrument)
    (row,) = database.rows(
        f"SELECT greatest((SELECT max(known_from) FROM stock_splits WHERE {_OF}), "
        f"(SELECT max(moment) FROM series_moments WHERE {_OF})) AS last",
        (*key, *key),
    )
    last: datetime | None = row["last"]
    return last


def believed_then(
    database: Database, instrument: Instrument, as_of: datetime
) -> tuple[datetime | None, list[dict[str, Any]]]:
    """The newest belief about splits that was on record by then: since when, and its rows in order of time."""
    rows = database.rows(
        "SELECT known_from, date, split_from, split_to, state, reason FROM split_beliefs "
        f"WHERE {_OF} AND known_from = (SELECT max(known_from) FROM split_beliefs WHERE {_OF} AND known_from <= %s) "
        "ORDER BY date, split_to / split_from",
        (*_key(instrument), *_key(instrument), as_of),
    )
    return (rows[0]["known_from"], rows) if rows else (None, [])


def beliefs_of(database: Database, instrument: Instrument) -> list[dict[str, Any]]:
    """Every belief about splits there ever was, oldest first."""
    return database.rows(
        "SELECT known_from, date, split_from, split_to, state, reason FROM split_beliefs "
        f"WHERE {_OF} ORDER BY known_from, date",
        _key(instrument),
    )


def note_belief(connection: Connection, instrument: Instrument, splits: Iterable[Split], now: datetime) -> None:
    """Put on record what is believed of splits from now on."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO split_beliefs (symbol, asset_class, known_from, date, split_from, split_to, state, reason) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (*_key(instrument), now, each.date, each.split_from, each.split_to, each.state.value, each.reason)
                for each in splits
            ],
        )


def split_from_row(row: dict[str, Any], claims: Sequence[SplitClaim] = ()) -> Split:
    """A row of a belief as a split."""
    return Split(
        date=row["date"],
        split_from=row["split_from"],
        split_to=row["split_to"],
        state=ActionState(row["state"]),
        reason=row["reason"],
        claims=tuple(claims),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A source's whole answer on a dataset of an instrument: the range asked, the range it is complete for."""

    source: str
    asked: TimeRange
    complete: TimeRange | None
    at: datetime


def note_answer(connection: Connection, dataset: Dataset, instrument: Instrument, answer: Answer) -> None:
    """Put on record that a source was asked and answered."""
    complete = (answer.complete.start, answer.complete.end) if answer.complete else (None, None)
    connection.execute(
        "INSERT INTO answers (symbol, asset_class, dataset, source, start_time, end_time, complete_from, "
        "complete_until, answered_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (symbol, asset_class, dataset, source, start_time, end_time) DO UPDATE SET "
        "complete_from = excluded.complete_from, complete_until = excluded.complete_until, "
        "answered_at = greatest(answers.answered_at, excluded.answered_at)",
        (
            *_key(instrument), dataset.name, answer.source, answer.asked.start, answer.asked.end, *complete, answer.at,
        ),
    )  # fmt: skip


def asked_since(database: Database, dataset: Dataset, instrument: Instrument) -> list[dict[str, Any]]:
    """Ranges that sources answered for: `source`, `start_time`, `end_time`, `answered_at`, in order."""
    return database.rows(
        f"SELECT source, start_time, end_time, answered_at FROM answers WHERE {_OF} AND dataset = %s "
        "ORDER BY start_time, end_time",
        (*_key(instrument), dataset.name),
    )


def _key(instrument: Instrument) -> tuple[str, str]:
    return instrument.symbol, instrument.asset_class.value


def _versions(database: Database, dataset: Dataset, instrument: Instrument, as_of: datetime) -> list[dict[str, Any]]:
    values = ", ".join(_VALUES[dataset.name])
    return database.rows(
        f"SELECT source, component, {dataset.time} AS date, known_from, withdrawn, {values} FROM {dataset.table} "
        f"WHERE {_OF} AND known_from <= %s ORDER BY source, {dataset.time}, component, known_from",
        (*_key(instrument), as_of),
    )


def _by_claim(versions: list[dict[str, Any]], dataset: Dataset) -> Iterable[list[dict[str, Any]]]:
    """The versions of each entry of a source, oldest first; the same row told twice is one entry."""
    entries: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in versions:
        kind = row["dividend_type"] if dataset is DIVIDENDS else None
        entries.setdefault((row["source"], row["date"], kind, row["component"]), []).append(row)
    told: set[tuple[Any, ...]] = set()
    for (source, day, *_), rows in entries.items():
        said = (source, day, rows[-1]["withdrawn"], *(rows[-1][name] for name in _VALUES[dataset.name]))
        if said not in told:
            told.add(said)
            yield rows


def _life(versions: list[dict[str, Any]], dataset: Dataset) -> dict[str, Any]:
    """Source and date of an entry, since when it says what it says, and since when it no longer does."""
    newest = versions[-1]
    since = newest["known_from"]
    for row in reversed(versions):
        same = all(row[name] == newest[name] for name in _VALUES[dataset.name])
        if not same or (row["withdrawn"] and not newest["withdrawn"]):
            break
        since = row["known_from"]
    withdrawn = newest["known_from"] if newest["withdrawn"] else None
    return {"source": newest["source"], "date": newest["date"], "since": since, "withdrawn": withdrawn}


DAY: Final = timedelta(days=1)


def covered(ranges: Iterable[TimeRange], first: date, last: date) -> bool:
    """Whether ranges in order together cover all days from the one to the other."""
    reached: date | None = None
    for span in ranges:
        start, end = span.start.date(), span.end.date()
        if reached is None:
            reached = end if start <= first else None
        elif start <= reached:
            reached = max(reached, end)
    return reached is not None and reached >= last
