"""Where an instrument stands: its status against the calendar, and its quality day by day."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from market_data.model.errors import UnknownInstrument
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.quality import Least, status_name
from market_data.model.session import grid, lookback_start
from market_data.model.timeframe import MICROSECOND, Timeframe, TimeRange, from_micros
from market_data.storage.facts.expectations import Trading, trading
from market_data.storage.facts.reads import holding
from market_data.storage.server.database import Database
from market_data.storage.work.summaries import Changes, Summaries
from market_data.storage.work.switches import SILENT_AFTER

RECENT_FETCHES: Final = 20
# Longer than any time an exchange was closed.
LONGEST_BREAK: Final = timedelta(days=21)


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a timeframe of an instrument is stored."""

    timeframe: Timeframe
    last_end: datetime
    """When its last stored candle ends."""
    next_end: datetime
    """When the first expected candle after it ends: from then on it is missing."""

    def lag(self, now: datetime) -> timedelta:
        """How long the first expected candle that is not stored has been due; zero when none is."""
        return max(now - self.next_end, timedelta(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where an instrument stands, whatever the time is."""

    instrument: Instrument
    enrichment: Mapping[str, Any]
    """Its row of enrichment_status, empty when it was never enriched."""
    records: int
    quality_score: float | None
    validation_rate: float | None
    reaches: tuple[Reach, ...]
    next_run: Callable[[datetime], datetime | None] = lambda _: None
    """When scheduled work covers it next, from any moment on."""
    followed: frozenset[Timeframe] = frozenset()
    """The timeframes that are tracked; nobody promised to keep the others current."""
    trading: Trading | None = None
    """How its own contract stands with the venue; None while it has none."""
    data_completeness: float | None = None
    least: Least = field(default_factory=Least)

    @property
    def quiet(self) -> bool:
        """Whether nothing new is expected: its contract is halted, ended or not listed yet."""
        return self.trading is not None and self.trading.quiet

    def lag(self, now: datetime) -> timedelta | None:
        """The longest of its tracked timeframes; None when none that should be is stored.

        Zero when none is tracked, or nothing new is expected.
        """
        if not self.followed or self.quiet:
            return timedelta(0) if self.reaches else None
        return max((reach.lag(now) for reach in self.reaches if reach.timeframe in self.followed), default=None)

    def age(self, now: datetime) -> timedelta | None:
        """See `age_of`."""
        return age_of(self.reaches, now)

    def status(self, now: datetime) -> str:
        """CONTRACT's status, by the worst of its tracked timeframes; of history that nobody tracks by its quality."""
        failed = self.enrichment.get("status") == "error"
        return status_name(
            lag=self.lag(now),
            quality_score=self.quality_score,
            failed=failed,
            data_completeness=self.data_completeness,
            least=self.least,
        )

    def fields(self, now: datetime) -> dict[str, Any]:
        """CONTRACT's `/enrichment/status/{symbol}`."""
        age = self.age(now)
        return {
            "symbol": self.instrument.symbol,
            "asset_class": self.instrument.asset_class.value,
            "status": self.status(now),
            "last_enrichment_time": self.enrichment.get("last_enrichment_time"),
            "last_fetch_source": self.enrichment.get("last_fetch_source"),
            "data_age_seconds": None if age is None else age.total_seconds(),
            "records_available": self.records,
            "quality_score": self.quality_score,
            "validation_rate": self.validation_rate,
            "timeframes_available": [reach.timeframe.value for reach in self.reaches],
            "history": [reach.timeframe.value for reach in self.reaches if reach.timeframe not in self.followed],
            "next_enrichment": self.next_run(now),
            "error_message": self.enrichment.get("error_message"),
            "contract": self.trading and self.trading.symbol,
            "trading_status": self.trading and self.trading.status.value,
            "trading_note": self.trading and self.trading.words(now),
            "timestamp": now,
        }


class Standings:
    """Standings of instruments, each computed once per change of what is stored of it; safe between threads.

    Args:
        database: where they are stored.
        tracked: what the settings track, in which timeframes; what the database says of it counts more.
        next_run: when the schedule covers an asset class next, from a moment on; None when it does not.
        least: what data must reach to be well.
    """

    def __init__(
        self,
        database: Database,
        tracked: Mapping[Instrument, Collection[Timeframe]] = MappingProxyType({}),
        next_run: Callable[[AssetClass, datetime], datetime | None] = lambda *_: None,
        least: Least | None = None,
    ) -> None:
        self._least = least or Least()
        self._summaries = Summaries(database)
        self._next_run = next_run
        self._tracked = {instrument: frozenset(timeframes) for instrument, timeframes in tracked.items()}
        self._found: dict[Instrument, tuple[object, Standing]] = {}

    def over(self, database: Database) -> Standings:
        """The same over other connections."""
        return Standings(database, self._tracked, self._next_run, self._least)

    def of(self, instrument: Instrument) -> Standing:
        """Where an instrument stands.

        Raises:
            UnknownInstrument: when it was never enriched and is not tracked.
        """
        return self.named(instrument.symbol, instrument.asset_class)

    def named(self, symbol: str, asset_class: AssetClass | None = None) -> Standing:
        """Where the instrument meant by a symbol stands; see `meant`.

        Raises:
            UnknownInstrument: when it was never enriched and is not tracked.
        """
        instrument, changed, known = self._meant(symbol, asset_class)
        if not known:
            raise UnknownInstrument(f"{instrument} is not tracked and was never enriched")
        stands = trading(self._summaries.database, [instrument])
        return self._current(instrument, changed, stands.get(instrument))

    def of_all(self, instruments: Sequence[Instrument]) -> list[Standing]:
        """Where each of the instruments stands, known or not, in one read when nothing changed."""
        changes = self._summaries.changes_of_all(instruments)
        stand = trading(self._summaries.database, instruments)
        return [self._current(each, changes[each], stand.get(each)) for each in instruments]

    def _current(self, instrument: Instrument, changed: Changes, stands: Trading | None) -> Standing:
        version = (changed.enrichment and changed.enrichment["updated_at"], changed.moments)
        found = self._found.get(instrument)
        if found is None or found[0] != version:
            found = self._found[instrument] = (version, self._computed(instrument, changed))
        followed = self._followed(instrument, changed)
        next_run = partial(self._next_of, instrument, changed)
        return replace(found[1], next_run=next_run, followed=followed, trading=stands)

    def _next_of(self, instrument: Instrument, changed: Changes, now: datetime) -> datetime | None:
        """None while nothing will happen by itself: untracked, paused, or no scheduler runs."""
        alive = changed.scheduler_seen is not None and now - changed.scheduler_seen <= SILENT_AFTER
        if changed.paused or not alive or not self._is_tracked(instrument, changed):
            return None
        return self._next_run(instrument.asset_class, now)

    def _is_tracked(self, instrument: Instrument, changed: Changes) -> bool:
        return bool(self._followed(instrument, changed))

    def _followed(self, instrument: Instrument, changed: Changes) -> frozenset[Timeframe]:
        if changed.tracked is None:
            return self._tracked.get(instrument, frozenset())
        return frozenset(changed.tracked)

    def meant(self, symbol: str, asset_class: AssetClass | None = None) -> tuple[Instrument, bool]:
        """The instrument meant by a symbol, and whether it is tracked or was ever enriched.

        Its asset class is the one given, else that of the tracked one, else of the enriched one, else stock.
        """
        instrument, _, known = self._meant(symbol, asset_class)
        return instrument, known

    def stored(self, symbol: str, asset_class: AssetClass | None = None) -> tuple[Instrument, bool]:
        """As `meant`; one of which only facts are stored is known too, under the class they are stored as."""
        instrument, known = self.meant(symbol, asset_class)
        if known:
            return instrument, True
        classes = holding(self._summaries.database, symbol, asset_class)
        return (Instrument(symbol, classes[0]), True) if classes else (instrument, False)

    def _meant(self, symbol: str, asset_class: AssetClass | None) -> tuple[Instrument, Changes, bool]:
        found = self._summaries.changes_of(symbol, list(AssetClass) if asset_class is None else [asset_class])
        tracked = [one for one, its in found.items() if self._is_tracked(one, its)]
        enriched = [one for one, its in found.items() if its.enrichment is not None]
        known = [*tracked, *enriched]
        instrument = known[0] if known else Instrument(symbol, asset_class or AssetClass.STOCK)
        return instrument, found[instrument], bool(known)

    def _computed(self, instrument: Instrument, changed: Changes) -> Standing:
        totals = self._summaries.totals(instrument)
        lasts = self._summaries.lasts(instrument)
        return Standing(
            instrument=instrument,
            enrichment=changed.enrichment or {},
            records=totals["records"],
            quality_score=totals["quality_score"],
            validation_rate=totals["validation_rate"],
            data_completeness=totals["data_completeness"],
            least=self._least,
            reaches=reaches_of(instrument, lasts),
        )


def reaches_of(instrument: Instrument, lasts: Mapping[Timeframe, datetime]) -> tuple[Reach, ...]:
    """How far each timeframe is stored, by the open times of their last candles."""
    return tuple(_reach(Series(instrument, t), lasts[t]) for t in Timeframe if t in lasts)


def age_of(reaches: Iterable[Reach], now: datetime) -> timedelta | None:
    """Time since the newest candle ended, a stock's daily one with its session; None when nothing is stored."""
    newest = max((reach.last_end for reach in reaches), default=None)
    return None if newest is None else max(now - newest, timedelta(0))


def quality_of(summaries: Summaries, instrument: Instrument, days: int, now: datetime) -> dict[str, Any]:
    """CONTRACT's `/data/quality/{symbol}`: a summary and daily rows of the last `days` days of candles."""
    since = (now - timedelta(days=days)).date()
    daily = summaries.daily_quality(instrument, since)
    total = sum(row["total_records"] for row in daily)
    return {
        "symbol": instrument.symbol,
        "asset_class": instrument.asset_class.value,
        "period_days": days,
        "summary": {
            "avg_validation_rate": 100.0 * sum(row["validated_records"] for row in daily) / total if total else None,
            "avg_quality_score": _weighted(daily, "avg_quality_score", total),
            "total_gaps_detected": sum(row["gaps_detected"] for row in daily),
            "total_anomalies": sum(row["anomalies_detected"] for row in daily),
        },
        "daily_metrics": daily,
        "recent_fetch_logs": summaries.recent_fetches(instrument, now - timedelta(days=days), RECENT_FETCHES),
        "timestamp": now,
    }


def _reach(series: Series, last: datetime) -> Reach:
    start = lookback_start(series.asset_class, series.timeframe, last, 0)
    stored = grid(series.asset_class, series.timeframe, TimeRange(start, last + MICROSECOND))
    after = TimeRange(last + MICROSECOND, last + series.timeframe.duration + LONGEST_BREAK)
    due = grid(series.asset_class, series.timeframe, after)
    return Reach(series.timeframe, from_micros(stored.ends[-1]), from_micros(due.ends[0]))


def _weighted(rows: Iterable[dict[str, Any]], name: str, total: int) -> float | None:
    return sum(row[name] * row["total_records"] for row in rows) / total if total else None
