"""Rows as a file or on standard output: JSON, CSV, Parquet."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from market_data.cli.figures import plain
from market_data.cli.output import print_json, say
from market_data.model.errors import MarketDataError, UsageError

if TYPE_CHECKING:
    import polars as pl


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


def check_target(form: Format, out: Path | None) -> None:
    """Refuse what cannot be written there.

    Raises:
        UsageError: naming what would do.
    """
    if form is Format.PARQUET and out is None:
        raise UsageError("--format parquet is binary: name a file with --out FILE")
    if form is Format.TABLE and out is not None:
        raise UsageError("--out needs --format json, csv or parquet")
    if out is not None and not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}")


def write(frame: pl.DataFrame, form: Format, out: Path | None, what: str = "candles") -> None:
    """Write the rows in that form, to a file or to standard output.

    Raises:
        MarketDataError: when the file cannot be written.
    """
    try:
        if form is Format.PARQUET:
            frame.write_parquet(out)  # type: ignore[arg-type]  # checked: it is given
        elif form is Format.CSV:
            text = _with_plain_cells(frame).write_csv()
            typer.echo(text, nl=False) if out is None else out.write_text(text, encoding="utf-8")
        elif out is None:
            print_json(frame.to_dicts())
        else:
            import json

            from market_data.cli.figures import jsonable

            out.write_text(json.dumps(jsonable(frame.to_dicts()), allow_nan=False), encoding="utf-8")
    except OSError as error:
        raise MarketDataError(
            f"Cannot write {out}: {error.strerror or error}; free some space or name another --out"
        ) from None
    if out is not None:
        say(f"{frame.height:,} {what} written to {out}")


def _with_plain_cells(frame: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    def text(value: object) -> str:
        return f"{plain(value):f}"  # type: ignore[arg-type]

    exact = [name for name, kind in frame.schema.items() if kind.is_decimal()]
    times = [
        pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ") for name, kind in frame.schema.items() if kind == pl.Datetime
    ]
    lists = [pl.col(name).list.join(", ") for name, kind in frame.schema.items() if kind == pl.List]
    exact_texts = (pl.col(name).map_elements(text, return_dtype=pl.String) for name in exact)
    return frame.with_columns(*exact_texts, *times, *lists)
