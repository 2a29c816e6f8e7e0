"""Feature and @feature: a named function of a window of candles, and the history it needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from market_data.model.fingerprint import docstring, fingerprint
from market_data.model.instrument import Series
from market_data.model.window import ENGINE_VERSION, Window

FeatureFunction = Callable[[Window], "NDArray[Any]"]
Lookback = int | Callable[[Series], int]
SECTIONS: Final = ("Formula", "Null", "Source")


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A column computed from a series' candles.

    Attributes:
        name: the column's name.
        function: Window to float64 values (NaN is null), or to int8 codes into `labels` (-1 is null).
        lookback: rows needed before the row being computed; a number, or a function of the series.
        inputs: columns of the frame that are read.
        unit: what the values are in, e.g. %.
        doc: the docstring: what it is, then Formula, Null and Source.
        observations: dataset name to the history needed on that dataset's own clock before a candle's end.
        labels: the texts of a text feature, None for a number.
        where: series for which the feature exists; elsewhere it is null.
        possible: the rows of a window whose history allows a value, where the calendar makes some impossible; the
            others lower no score.
    """

    name: str
    function: FeatureFunction
    lookback: Lookback
    inputs: tuple[str, ...]
    unit: str
    doc: str
    observations: Mapping[str, timedelta] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    where: Callable[[Series], bool] | None = None
    possible: Callable[[Window], NDArray[np.bool_]] | None = None

    @cached_property
    def version(self) -> str:
        """12 hex digits that change with the code, the parameters or the engine, not with comments or docstrings."""
        where = fingerprint(self.where) if self.where else ""
        lookback = fingerprint(self.lookback) if callable(self.lookback) else str(self.lookback)
        return fingerprint(
            self.function, ENGINE_VERSION, lookback, where, self.inputs, sorted(self.observations.items()), self.labels
        )

    @property
    def dtype(self) -> pl.DataType:
        """Polars type of the column."""
        return pl.String() if self.labels else pl.Float64()

    @property
    def sql_type(self) -> str:
        """PostgreSQL's type of the column."""
        return "text" if self.labels else "double precision"

    @cached_property
    def sections(self) -> dict[str, str]:
        """The docstring in parts: `Summary`, `Formula`, `Null`, `Source`, each one line of text."""
        parts = re.split(rf"^({'|'.join(SECTIONS)}):", self.doc, flags=re.MULTILINE)
        texts = [" ".join(part.split()) for part in parts]
        return {"Summary": texts[0]} | dict(zip(texts[1::2], texts[2::2], strict=True))

    def applies(self, series: Series) -> bool:
        """Whether the feature exists for the series; where it does not, it is null."""
        return self.where is None or self.where(series)

    def lookback_for(self, series: Series) -> int:
        """Rows needed before the row being computed, in that series."""
        return self.lookback(series) if callable(self.lookback) else self.lookback


def feature(
    *,
    lookback: Lookback,
    inputs: Sequence[str],
    unit: str,
    observations: Mapping[str, timedelta] | None = None,
    labels: Sequence[str] | None = None,
    where: Callable[[Series], bool] | None = None,
    possible: Callable[[Window], NDArray[np.bool_]] | None = None,
) -> Callable[[FeatureFunction], Feature]:
    """Declare a function as the feature of its name; see `Feature` for the arguments.

    Raises:
        TypeError: when the docstring lacks its summary or one of the sections Formula, Null and Source.
    """

    def declare(function: FeatureFunction) -> Feature:
        name = function.__name__
        declared = Feature(
            name=name,
            function=function,
            lookback=lookback,
            inputs=tuple(inputs),
            unit=unit,
            doc=_unindented(docstring(function)),
            observations=dict(observations or {}),
            labels=tuple(labels) if labels is not None else None,
            where=where,
            possible=possible,
        )
        absent = [part for part in ("Summary", *SECTIONS) if not declared.sections.get(part)]
        if absent:
            raise TypeError(f"the docstring of feature {name} lacks: {', '.join(absent)}")
        return declared

    return declare


def _unindented(doc: str) -> str:
    return "\n".join(line.strip() for line in doc.strip().splitlines())
