"""The description beside the files: which hold what, and how they tell it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, field_validator

from market_data.model.dataset import CANDLES
from market_data.model.errors import ConfigError
from market_data.model.instrument import AssetClass
from market_data.model.timeframe import Timeframe

DESCRIPTION: Final = "files.yaml"


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
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
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


def described(folder: Path) -> list[Described]:
    """The entries of a folder's description.

    Raises:
        ConfigError: naming what is wrong with it.
    """
    try:
        text: Any = yaml.safe_load((folder / DESCRIPTION).read_text(encoding="utf-8"))
        return TypeAdapter(list[Described]).validate_python(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{folder / DESCRIPTION}: {error}") from None
