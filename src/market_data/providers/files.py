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
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl
import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, field_validator

from market_data.model.aggregation import aggregate, closed
from market_data.model.dataset import CANDLES, UTC_MICROS
from market_data.model.errors import ConfigError, MalformedPayload, UnknownInstrument, UnsupportedRequest
from market_data.model.instrument import AssetClass, Instrument, Listing
from market_data.model.provider import Capability, Page, Provider, ProviderSettings
from market_data.model.session import grid
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.transport.payload import cast_exactly, require_columns

DESCRIPTION: Final = "files.yaml"
NEEDED: Final = ("timestamp", "open", "high", "low", "close", "volume")
SUFFIXES: Final = (".csv", ".parquet", ".feather", ".arrow")
MICROS: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}


class TimeColumn(BaseModel):
    """How a file tells the time of a row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: Literal["s", "ms", "us", "ns"] | None = None
    """Of a count since 1970."""
    format: str | None = None
    """Of a text, as strftime writes it; ISO 8601 where left out."""
    zone: str = "UTC"
    """Of a text or a time without zone."""
    stamps: Literal["open", "close"] = "open"
    """Which end of the candle it is."""

    @field_validator("zone")
    @classmethod
    def _exists(cls, zone: str) -> str:
        try:
            return ZoneInfo(zone).key
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"no time zone {zone!r}") from error


class Described(BaseModel):
    """An entry of the description."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: str
    symbol: str
    asset_class: AssetClass
    timeframe: Timeframe
    columns: dict[str, str] = {}
    time: TimeColumn = TimeColumn()

    @field_validator("columns")
    @classmethod
    def _are_ours(cls, columns: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(set(columns) - set(CANDLES.schema)):
            raise ValueError(f"no column of a candle is named {', '.join(unknown)}: {', '.join(CANDLES.schema)}")
        return columns


class FilesSettings(ProviderSettings):
    """Settings of the provider `files`."""

    folder: Path | None = None
    """Where the files and their description are."""


class Files(Provider):
    """Candles of the user's own files, taken for closed when they end before now.

    Texts keep their digits; binary floats are the shortest decimals that stand for them. Coarser candles are made of
    the finest described.
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
        frame = await asyncio.to_thread(self._read, entry)
        wanted = grid(instrument.asset_class, timeframe, span).closed_by(now)
        if entry.timeframe is timeframe:
            base = grid(instrument.asset_class, timeframe, TimeRange(start - timedelta(weeks=1), end))
            frame = closed(frame, base, timeframe, now)
            frame = frame.filter(pl.col("timestamp").is_between(start, end, closed="left"))
        else:
            parts = grid(instrument.asset_class, entry.timeframe, TimeRange(start, end + timedelta(weeks=1)))
            frame = aggregate(frame.unique("timestamp", keep="last"), wanted, parts)
        if frame.height:
            yield Page(frame=frame.sort("timestamp"), source=self.name, fetched_at=now, response_ms=0.0)

    def _entry(self, instrument: Instrument, timeframe: Timeframe) -> Described:
        entries = self._entries(instrument)
        fitting = [entry for entry in entries if entry.timeframe is timeframe] or sorted(
            (entry for entry in entries if entry.timeframe.duration < timeframe.duration),
            key=lambda entry: entry.timeframe.duration,
        )
        if not fitting:
            described = ", ".join(entry.timeframe for entry in entries)
            raise UnsupportedRequest(f"{DESCRIPTION} has {instrument} at {described} only, not at {timeframe}")
        return fitting[0]

    def _entries(self, instrument: Instrument) -> list[Described]:
        if (why := self.ready) is not None or self._folder is None:
            raise ConfigError(f"files cannot be read: {why}")
        try:
            text: Any = yaml.safe_load((self._folder / DESCRIPTION).read_text(encoding="utf-8"))
            entries = TypeAdapter(list[Described]).validate_python(text)
        except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
            raise ConfigError(f"{self._folder / DESCRIPTION}: {error}") from None
        return [
            entry
            for entry in entries
            if (entry.symbol, entry.asset_class) == (instrument.symbol, instrument.asset_class)
        ]

    def _read(self, entry: Described) -> pl.DataFrame:
        assert self._folder is not None, "there is an entry, so there is a folder"
        paths = sorted(path for path in self._folder.glob(entry.files) if path.suffix in SUFFIXES)
        frames = [CANDLES.empty(), *(_candles(path, entry) for path in paths)]
        return pl.concat(frames).unique(maintain_order=True).sort("timestamp", maintain_order=True)


def _candles(path: Path, entry: Described) -> pl.DataFrame:
    """A file's rows in the CANDLES schema.

    Raises:
        MalformedPayload: naming the file and what is wrong with it.
    """
    names = {name: entry.columns.get(name, name) for name in CANDLES.schema}
    try:
        frame = _frame(path)
        _require_names(frame, [names[name] for name in NEEDED])
        there = {name: theirs for name, theirs in names.items() if theirs in frame.columns}
        columns = [_number(frame[theirs].alias(name)) for name, theirs in there.items() if name != "timestamp"]
        candles = CANDLES.conform(pl.DataFrame([_moments(frame[names["timestamp"]], entry), *columns]))
        require_columns(candles, NEEDED)
    except (OSError, MalformedPayload, pl.exceptions.PolarsError) as error:
        raise MalformedPayload(f"{path.name}: {error}") from None
    return candles


def _frame(path: Path) -> pl.DataFrame:
    if path.suffix == ".csv":
        # All texts: a number must not pass through a float.
        return pl.read_csv(path, infer_schema=False)
    return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ipc(path)


def _require_names(frame: pl.DataFrame, names: list[str]) -> None:
    if missing := [name for name in names if name not in frame.columns]:
        raise MalformedPayload(f"it has no column {', '.join(missing)}, but {', '.join(frame.columns)}")


def _number(column: pl.Series) -> pl.Series:
    dtype = CANDLES.schema[column.name]
    return cast_exactly(column.cast(pl.String), dtype) if dtype.is_numeric() else column


def _moments(column: pl.Series, entry: Described) -> pl.Series:
    time = entry.time
    if time.unit is not None:
        counts = cast_exactly(column.cast(pl.String), pl.Int64())
        moments = (counts // 1000 if time.unit == "ns" else counts * MICROS[time.unit]).cast(UTC_MICROS)
    elif column.dtype == pl.String:
        moments = _in_utc(column.str.to_datetime(time.format, time_unit="us"), time.zone)
    else:
        moments = _in_utc(column.cast(pl.Datetime("us", getattr(column.dtype, "time_zone", None))), time.zone)
    if time.stamps == "close":
        moments = moments - entry.timeframe.duration
    return moments.alias("timestamp")


def _in_utc(moments: pl.Series, zone: str) -> pl.Series:
    if getattr(moments.dtype, "time_zone", None) is None:
        moments = moments.dt.replace_time_zone(zone)
    return moments.dt.convert_time_zone("UTC").cast(UTC_MICROS)
