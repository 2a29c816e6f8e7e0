"""Corrections by hand: a person's version of a candle that stands against every source, until it is reverted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from uuid import uuid4

import polars as pl

from market_data.model.dataset import CANDLES
from market_data.model.errors import UsageError
from market_data.model.instrument import Series
from market_data.model.timeframe import MICROSECOND, TimeRange
from market_data.pipeline.write.change import Change, apply
from market_data.pipeline.write.derive import Shelves, fact_score
from market_data.pipeline.write.normalise import with_ends
from market_data.pipeline.write.validate import validate
from market_data.storage.series.due import lock_instrument
from market_data.storage.series.present import Origin, lock_series, next_moment
from market_data.storage.series.reader import Reader
from market_data.storage.series.verdict import COMPARED, MANUAL, Verdict, classify
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection
from market_data.storage.work import audit
from market_data.storage.work.runs import end_run, start_run

REASON: Final = "manual_correction"


@dataclass(frozen=True)
class Amender:
    """What correcting by hand needs, and who does it."""

    database: Database
    shelves: Shelves
    clock: Callable[[], datetime]
    actor: str

    def correct(self, series: Series, timestamp: datetime, values: Mapping[str, str], comment: str) -> Change:
        """Set fields of a stored candle; its features and those of later ones it reaches follow in one transaction.

        Args:
            values: field name to its new value as text; an empty text makes an optional field absent.
            comment: why; kept with every field that changes.

        Raises:
            UsageError: when no such candle is stored, a field or value is none, a rejecting rule is broken, or nothing
                would change.
        """
        parsed = parse_values(values)
        if not comment.strip():
            raise UsageError("A correction needs a reason: say why, so that others can judge it later.")

        def transaction(connection: Connection) -> Change:
            return self._correct(connection, series, timestamp, parsed, comment)

        return self.database.retrying_transaction(transaction)

    def revert(self, series: Series, timestamp: datetime, comment: str) -> Change:
        """Take corrections of a candle back: what would stand had there been none stands again, as a new version.

        Raises:
            UsageError: when the candle is not corrected by hand.
        """

        def transaction(connection: Connection) -> Change:
            return self._revert(connection, series, timestamp, comment)

        return self.database.retrying_transaction(transaction)

    def _correct(
        self, connection: Connection, series: Series, timestamp: datetime, values: Mapping[str, Any], comment: str
    ) -> Change:
        now = self._lock(connection, series)
        facts = Reader(self.database).newest_facts(series, TimeRange(timestamp, timestamp + MICROSECOND))
        standing = facts.filter("chosen").sort("known_from").tail(1)
        if standing.is_empty():
            raise UsageError(
                f"No candle of {series} at {timestamp:%Y-%m-%dT%H:%M:%SZ} is stored; only those can be corrected."
            )
        wanted = standing.select(*CANDLES.schema, "data_age_seconds", "contract_id").with_columns(
            pl.lit(value, CANDLES.schema[name]).alias(name) for name, value in values.items()
        )
        if wanted.select(COMPARED).equals(standing.select(COMPARED), null_equal=True):
            raise UsageError(f"{series} at {timestamp:%Y-%m-%dT%H:%M:%SZ} already has these values.")
        checked = validate(series, with_ends(series, wanted), self.shelves.rules)
        if checked.rejected.height:
            broken = ", ".join(checked.rejected["rules"][0])
            raise UsageError(
                f"The corrected candle would be rejected: {broken}. Correct all fields that belong together."
            )
        accepted = checked.accepted.with_columns(fact_score(series, checked.accepted, self.shelves))
        judged = classify(accepted, facts, MANUAL)
        origin = Origin(source=MANUAL, fetched_at=now, now=now, run_id=uuid4(), actor=self.actor, comment=comment)
        return self._write(connection, series, judged, origin, "correct")

    def _revert(self, connection: Connection, series: Series, timestamp: datetime, comment: str) -> Change:
        now = self._lock(connection, series)
        reader = Reader(self.database)
        versions = reader.versions(series, TimeRange(timestamp, timestamp + MICROSECOND))
        standing = versions.filter("chosen").tail(1)
        if standing.is_empty() or standing["source"][0] != MANUAL:
            raise UsageError(f"{series} at {timestamp:%Y-%m-%dT%H:%M:%SZ} is not corrected by hand.")
        restored = undisturbed(versions)
        source: str = restored["source"][0]
        incoming = with_ends(series, restored.drop("source", "known_from", "chosen", "fetched_at"))
        facts = reader.newest_facts(series, TimeRange(timestamp, timestamp + MICROSECOND))
        # To the write rules a repetition, but here it is what shall stand.
        judged = classify(incoming, facts, source).with_columns(
            verdict=pl.lit(Verdict.UPDATED.value), reason=pl.lit(REASON)
        )
        origin = Origin(
            source=source,
            fetched_at=restored["fetched_at"][0],
            now=now,
            run_id=uuid4(),
            actor=self.actor,
            comment=comment or "reverted",
        )
        return self._write(connection, series, judged, origin, "revert")

    def _lock(self, connection: Connection, series: Series) -> datetime:
        lock_instrument(connection, series.instrument, exclusive=False)
        lock_series(connection, series)
        return next_moment(connection, series, self.clock())

    def _write(self, connection: Connection, series: Series, judged: pl.DataFrame, origin: Origin, kind: str) -> Change:
        start_run(connection, origin.run_id, kind, series.instrument, origin.now, timeframe=series.timeframe)
        change = apply(connection, Reader(self.database), self.shelves, series, judged, origin)
        end_run(connection, origin.run_id, "completed", origin.now, counts=change.counts)
        for span in change.spans:
            audit.refresh_quality(connection, series.instrument, span, origin.now)
        return change


def undisturbed(versions: pl.DataFrame) -> pl.DataFrame:
    """The version that the write rules would have made stand, had nobody corrected by hand.

    Args:
        versions: all versions of one candle in the order in which they became known.
    """
    stands: pl.DataFrame | None = None
    for position in range(versions.height):
        version = versions[position]
        source = version["source"][0]
        if source == MANUAL:
            continue
        if (
            stands is None
            or stands["source"][0] == source
            or (
                version["quality_score"][0] > stands["quality_score"][0]
                and not version.select(COMPARED).equals(stands.select(COMPARED), null_equal=True)
            )
        ):
            stands = version
    assert stands is not None  # only candles of a source can be corrected
    return stands


def parse_values(values: Mapping[str, str]) -> dict[str, Decimal | int | None]:
    """Values of candle fields from text.

    Raises:
        UsageError: naming the fields there are, or the value that is none.
    """
    if not values:
        raise UsageError(f"Nothing to correct: give field=value, of {', '.join(COMPARED)}.")
    parsed: dict[str, Decimal | int | None] = {}
    for name, text in values.items():
        if name not in COMPARED:
            raise UsageError(f"A candle has no field {name!r} to correct. Valid: {', '.join(COMPARED)}")
        number = _exact(text) if text else None
        if text and number is None:
            raise UsageError(f"{name}={text}: not a number with up to 20 digits before and 18 after the point.")
        if number is None or CANDLES.schema[name].is_decimal():
            parsed[name] = number
        elif number != int(number):
            raise UsageError(f"{name}={text}: not a whole number.")
        else:
            parsed[name] = int(number)
    return parsed


def _exact(text: str) -> Decimal | None:
    """The number, None when it is none or does not fit a candle's columns."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    if not number.is_finite() or abs(number) >= 10**20:
        return None
    return number if number == round(number, 18) else None
