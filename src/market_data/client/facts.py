"""The calls of the client for everything besides candles: one per dataset that has a door, made of its declaration."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from market_data.model.dataset import SERVED, Dataset

Moment = str | date | datetime


class FactCall(Protocol):
    """Asks for rows of one dataset of an instrument, per source and in order of time."""

    def __call__(
        self,
        symbol: str,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        asset_class: str | None = None,
        source: str | None = None,
        limit: int | None = None,
        as_of: Moment | None = None,
    ) -> pl.DataFrame:
        """The rows."""


class Facts:
    """What the client and the datasets' calls agree on."""

    def facts(self, dataset: str, symbol: str, **asked: Any) -> pl.DataFrame:
        """Rows of the dataset of that name."""
        raise NotImplementedError

    if TYPE_CHECKING:
        # The calls themselves are put on the class below.
        def __getattr__(self, name: str) -> FactCall: ...


def _call(dataset: Dataset) -> Any:
    def call(
        self: Facts,
        symbol: str,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        asset_class: str | None = None,
        source: str | None = None,
        limit: int | None = None,
        as_of: Moment | None = None,
    ) -> pl.DataFrame:
        asked = {"asset_class": asset_class, "source": source, "limit": limit, "as_of": as_of}
        return self.facts(dataset.name, symbol, start=start, end=end, **asked)

    call.__name__, call.__qualname__ = dataset.name, f"Facts.{dataset.name}"
    call.__doc__ = (
        f"{dataset.about}\n\n        Args:\n            source: only of this one.\n"
        "            limit: at most so many.\n            as_of: what was known at this moment.\n\n"
        "        Raises:\n            UnknownInstrument: when it is not tracked and nothing is stored of it.\n"
        "            UsageError: when an argument is wrong.\n        "
    )
    return call


for _dataset in SERVED:
    setattr(Facts, _dataset.name, _call(_dataset))
