"""What must be done to Yahoo's rows before they are candles: pure functions on frames."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, tzinfo

import numpy as np
import polars as pl

from market_data.model.dataset import EXACT, UTC_MICROS
from market_data.model.session import Grid
from market_data.providers.yahoo.parse import Split

PRICES = ("open", "high", "low", "close")
NOTE_UNADJUSTED = "unadjusted_for_splits"
NOTE_DUPLICATE = "earlier_row_of_the_day_dropped"
NOTE_SPLITS_UNKNOWN = "later_splits_unknown"
NOTE_BASE_VOLUME_UNKNOWN = "base_volume_unknown"
ADJUSTED_DECIMALS = 6
# Half the spacing of 32-bit floats, relative to the value: Yahoo's prices went through one.
SINGLE_PRECISION = 2.0**-23


def at_session_open(days: pl.DataFrame, sessions: Grid, zone: tzinfo) -> pl.DataFrame:
    """Daily rows stamped with the open of the session of their exchange-local date, one per date.

    Of two rows of one date the later is kept and noted: the source appends today's row again. A row of a date without
    session keeps its own time stamp: the rules refuse it.
    """
    opens = pl.DataFrame({"opens": pl.Series(sessions.opens, dtype=pl.Int64).cast(UTC_MICROS)})
    by_date = opens.with_columns(date=local_date("opens", zone))
    dated = days.sort("timestamp").with_columns(date=_session_date(zone))
    dated = dated.with_columns(again=pl.struct(PRICES).n_unique().over("date") > 1)
    latest = dated.unique("date", keep="last", maintain_order=True)
    latest = latest.with_columns(notes=pl.when("again").then(with_note(NOTE_DUPLICATE)).otherwise("notes"))
    joined = latest.join(by_date, on="date", how="left", maintain_order="left")
    return joined.with_columns(timestamp=pl.coalesce("opens", "timestamp")).select(days.columns)


def without_live_row(rows: pl.DataFrame, wanted: Grid) -> pl.DataFrame:
    """Rows without the last one where that is off the grid: the price of this moment, which the source appends."""
    ordered = rows.sort("timestamp")
    last = ordered["timestamp"].cast(pl.Int64).tail(1).to_numpy()
    return ordered if np.isin(last, wanted.opens).all() else ordered.head(-1)


def unadjusted(rows: pl.DataFrame, splits: Sequence[Split], zone: tzinfo, price_hint: int) -> pl.DataFrame:
    """Prices and volumes as they were traded: every split after a row is taken back.

    The source divides by the ratio and rounds to a 32-bit float. A price is given with `price_hint` decimals where that
    very price, divided by the ratio, is the float that was sent and no other price of as many decimals is near; else it
    is the product, with all its digits.
    """
    later = rows.with_columns(date=local_date("timestamp", zone), up=pl.lit(1, EXACT), down=pl.lit(1, EXACT))
    for split in splits:
        before = pl.col("date") < split.moment.astimezone(zone).date()
        if split.raw_before is not None:
            before &= pl.col("date").is_between(split.raw_from or date.min, split.raw_before, closed="left").not_()
        later = later.with_columns(
            up=pl.when(before).then(pl.col("up") * pl.lit(split.numerator, EXACT)).otherwise("up"),
            down=pl.when(before).then(pl.col("down") * pl.lit(split.denominator, EXACT)).otherwise("down"),
        )
    changed = pl.col("up") != pl.col("down")
    return later.with_columns(
        *(pl.when(changed).then(_price(name, price_hint)).otherwise(name).alias(name) for name in PRICES),
        volume=pl.when(changed).then(pl.col("volume") * pl.col("down") / pl.col("up")).otherwise("volume"),
        notes=pl.when(changed).then(with_note(NOTE_UNADJUSTED)).otherwise("notes"),
    ).select(rows.columns)


def in_coins(rows: pl.DataFrame) -> pl.DataFrame:
    """Candles of a coin with their volume as what it is: the source states dollars where all others state coins.

    The dollars become `quote_volume`. How many coins they bought is not sent: `volume` is what they buy at the mean of
    high, low and close, and the row's note says that it is not known.
    """
    typical = (pl.col("high") + pl.col("low") + pl.col("close")) / pl.lit(3, EXACT)
    traded = (pl.col("volume") > 0) & (typical > 0)
    return rows.with_columns(
        quote_volume=pl.col("volume"),
        volume=pl.when(traded).then(pl.col("volume") / typical).otherwise("volume"),
        notes=pl.when(traded).then(with_note(NOTE_BASE_VOLUME_UNKNOWN)).otherwise("notes"),
    )


def noted(rows: pl.DataFrame, note: str) -> pl.DataFrame:
    """Rows with one more note."""
    return rows.with_columns(notes=with_note(note))


def with_note(note: str) -> pl.Expr:
    """The column of notes with one more."""
    return pl.concat_str("notes", pl.lit(note), separator="; ", ignore_nulls=True)


def local_date(column: str, zone: tzinfo) -> pl.Expr:
    """The exchange-local date of a column of UTC moments."""
    return pl.col(column).dt.convert_time_zone(str(zone)).dt.date()


def _session_date(zone: tzinfo) -> pl.Expr:
    """The date of a daily row: one stamped in a day's last two hours is the next day's, shifted with the clocks."""
    local = pl.col("timestamp").dt.convert_time_zone(str(zone))
    return (local if str(zone) == "UTC" else local.dt.offset_by("2h")).dt.date()


def _price(name: str, price_hint: int) -> pl.Expr:
    product = pl.col(name) * pl.col("up") / pl.col("down")
    round_price = product.round(price_hint)
    adjusted = round_price.cast(pl.Float64) * pl.col("down").cast(pl.Float64) / pl.col("up").cast(pl.Float64)
    sent = pl.col(name).cast(pl.Float64).cast(pl.Float32)
    # The source rounds to six decimals before its float; charts of older make did not.
    same = (adjusted.round(ADJUSTED_DECIMALS).cast(pl.Float32) == sent) | (adjusted.cast(pl.Float32) == sent)
    alone = product.cast(pl.Float64) * 2 * SINGLE_PRECISION < 10.0**-price_hint
    return pl.when(same & alone).then(round_price.cast(EXACT)).otherwise(product)
