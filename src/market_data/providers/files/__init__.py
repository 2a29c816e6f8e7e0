"""files: candles of the user's own, from a folder of CSV, Parquet or Feather files that a small YAML file describes.

`files.yaml` in the folder lists them:

    - files: "BTC-*.csv"         # a pattern within the folder
      symbol: BTC
      asset_class: crypto
      timeframe: 1h
      columns:                   # our names to theirs; what is left out has the same name
        timestamp: date
        volume: Volume USD
      time: {unit: s, zone: UTC, stamps: open}   # or format: "%Y-%m-%d %H:%M"
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from market_data.model.aggregation import aggregate, agreeing, closed
from market_data.model.contract import Listing
from market_data.model.dataset import CANDLES
from market_data.model.errors import ConfigError, UnknownInstrument, UnsupportedRequest
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Capability, Page, Provider, ProviderSettings
from market_data.model.rows import Rows, joined, rejections
from market_data.model.session import Grid, grid
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.providers.files.described import DESCRIPTION, Described, described
from market_data.providers.files.rows import read_file

__all__ = ["Files", "FilesSettings"]

SUFFIXES: Final = (".csv", ".parquet", ".feather", ".arrow")
WEEK: Final = timedelta(weeks=1)
OFF_GRID: Final = "off_grid"


class FilesSettings(ProviderSettings):
    """Settings of the provider `files`."""

    folder: Path | None = None
    """Where the files and their description are."""


class Files(Provider):
    """Candles of the user's own files, taken for closed when they end before now.

    Texts keep their digits; binary floats are the shortest decimals that stand for them. A date in a daily or weekly
    file of a stock is its session. Coarser candles are made of the finest described.
    """

    name = "files"
    Settings = FilesSettings
    capabilities = (Capability(dataset=CANDLES, asset_classes=frozenset(AssetClass), timeframes=frozenset(Timeframe)),)

    def __init__(self, settings: FilesSettings, http: object) -> None:
        del http
        self._folder = settings.folder

    @property
    def ready(self) -> str | None:
        """See `Provider.ready`."""
        if self._folder is None:
            return f"no folder: set providers.files.folder to one that holds a {DESCRIPTION}"
        return None if (self._folder / DESCRIPTION).is_file() else f"{self._folder} holds no {DESCRIPTION}"

    async def resolve(self, instrument: Instrument) -> Listing:
        """See `Provider.resolve`."""
        if not self._entries(instrument):
            raise UnknownInstrument(f"no entry of {DESCRIPTION} is about {instrument}")
        return Listing(instrument, self.name, instrument.symbol)

    async def fetch_candles(
        self, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """See `Provider.fetch_candles`."""
        await self.resolve(instrument)
        entry = self._entry(instrument, timeframe)
        span = TimeRange(start, end)
        rows = await asyncio.to_thread(self._read, entry)
        if entry.timeframe is timeframe:
            base = grid(instrument.asset_class, timeframe, TimeRange(start - WEEK, end))
            rows = rows.with_frame(lambda frame: closed(frame, base, timeframe, now).filter(_inside(span)))
        else:
            wanted = grid(instrument.asset_class, timeframe, span).closed_by(now)
            parts = grid(instrument.asset_class, entry.timeframe, TimeRange(start, end + WEEK))
            rows = agreeing(_on(parts, rows)).with_frame(lambda frame: aggregate(frame, wanted, parts))
        # What has no time may be of any range: it is told whichever is asked for.
        rejected = rows.rejected.filter(_inside(span).fill_null(value=True))
        page = Page(
            frame=rows.frame.sort("timestamp"), rejected=rejected, source=self.name, fetched_at=now, response_ms=0.0
        )
        if page.holds_something:
            yield page

    def _entry(self, instrument: Instrument, timeframe: Timeframe) -> Described:
        entries = self._entries(instrument)
        fitting = [entry for entry in entries if entry.timeframe is timeframe] or sorted(
            (entry for entry in entries if entry.timeframe.duration < timeframe.duration),
            key=lambda entry: entry.timeframe.duration,
        )
        if not fitting:
            have = ", ".join(entry.timeframe for entry in entries)
            raise UnsupportedRequest(f"{DESCRIPTION} has {instrument} at {have} only, not at {timeframe}")
        return fitting[0]

    def _entries(self, instrument: Instrument) -> list[Described]:
        if (why := self.ready) is not None or self._folder is None:
            raise ConfigError(f"files cannot be read: {why}")
        return [
            entry
            for entry in described(self._folder)
            if (entry.symbol, entry.asset_class) == (instrument.symbol, instrument.asset_class)
        ]

    def _read(self, entry: Described) -> Rows:
        assert self._folder is not None, "there is an entry, so there is a folder"
        paths = sorted(path for path in self._folder.glob(entry.files) if path.suffix in SUFFIXES)
        rows = joined((read_file(path, entry) for path in paths), CANDLES.empty())
        return rows.with_frame(lambda frame: frame.unique(maintain_order=True).sort("timestamp", maintain_order=True))


def _inside(span: TimeRange) -> pl.Expr:
    return pl.col("timestamp").is_between(span.start, span.end, closed="left")


def _on(parts: Grid, rows: Rows) -> Rows:
    """Rows that are parts of others where the calendar has parts; nothing is made of the others."""
    frame = rows.frame
    times = frame["timestamp"].cast(pl.Int64).to_numpy()
    known = pl.Series(np.isin(times, parts.opens))
    near = pl.Series((times >= parts.opens[0]) & (times < parts.ends[-1])) if len(parts) else known
    return Rows(frame.filter(known), rows.rejected).rejecting(rejections(OFF_GRID, frame.filter(near & ~known)))
