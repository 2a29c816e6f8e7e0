"""A week within which a split falls: the source's stays the fact, the present is made of the days."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import NAMESPACE_OID, uuid5

import polars as pl
from history_desk import Desk, content
from polars.testing import assert_frame_equal

from market_data.model.dataset import CANDLES, SPLITS, UTC_MICROS
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.session import grid
from market_data.model.timeframe import Timeframe, TimeRange, from_micros
from market_data.pipeline.write.believe import settle
from market_data.pipeline.write.recompute import Recomputation
from market_data.storage.facts.append import Provenance, append
from market_data.storage.server.database import Database

ACME = Instrument("ACME", AssetClass.STOCK)
DAYS, WEEKS = Series(ACME, Timeframe.D1), Series(ACME, Timeframe.W1)
SPAN = TimeRange(datetime(2023, 1, 2, tzinfo=UTC), datetime(2024, 8, 1, tzinfo=UTC))
# A Wednesday: Monday and Tuesday of its week are in old shares.
SPLIT = date(2024, 5, 15)
MONDAY = datetime(2024, 5, 13, tzinfo=UTC)


def days() -> pl.DataFrame:
    """30 dollars and a bit before, 10 and a bit after; 3 for 1."""
    rows = []
    for number, moment in enumerate(grid(ACME.asset_class, Timeframe.D1, SPAN).opens.tolist()):
        opened = from_micros(moment)
        shares = 1 if opened.date() < SPLIT else 3
        price = Decimal(30 + number % 7) / shares
        close = round(price, 2)
        rows.append({
            "timestamp": opened, "open": close, "high": close + 1, "low": close - 1, "close": close,
            "volume": Decimal((1000 + number % 11) * shares), "vwap": close, "trade_count": 10 + number % 3,
        })  # fmt: skip
    return CANDLES.conform(pl.DataFrame(rows))


def weeks() -> pl.DataFrame:
    """As a source makes them, of raw days."""
    own = days().with_columns(week=pl.col("timestamp").dt.truncate("1w"))
    made = own.group_by("week", maintain_order=True).agg(
        pl.col("timestamp").first(), pl.col("open").first(), pl.col("high").max(), pl.col("low").min(),
        pl.col("close").last(), pl.col("volume").sum(),
    )  # fmt: skip
    return CANDLES.conform(made.drop("week").with_columns(pl.col("timestamp").cast(UTC_MICROS)))


def learn(desk: Desk) -> None:
    frame = pl.DataFrame({"execution_date": [SPLIT], "split_from": [Decimal(1)], "split_to": [Decimal(3)],
                          "component": [0]})  # fmt: skip
    with desk.database.transaction() as connection:
        origin = Provenance(source="yahoo", now=desk.now, run_id=uuid5(NAMESPACE_OID, "split"))
        append(connection, desk.database, SPLITS, ACME, SPLITS.conform(frame), origin)
    with desk.database.transaction() as connection:
        settle(connection, desk.reader, desk.shelves, ACME, desk.now)
    renew(desk)


def renew(desk: Desk) -> None:
    desk.now += timedelta(minutes=1)
    for _ in Recomputation(desk.database, desk.shelves, lambda: desk.now).run():
        pass
    desk.now += timedelta(minutes=1)


def the_week(frame: pl.DataFrame) -> dict[str, object]:
    (row,) = frame.filter(pl.col("timestamp").dt.truncate("1w") == MONDAY).rows(named=True)
    return row


def test_made_of_days_however_they_come(new_desk: Callable[..., Desk], database: Database) -> None:
    of_weeks, of_days = new_desk(database, WEEKS), new_desk(database, DAYS)
    of_weeks.offer(weeks(), "yahoo")
    learn(of_weeks)
    raw, mixed = the_week(weeks()), the_week(of_weeks.present())
    assert {name: mixed[name] for name in ("open", "high", "close", "volume")} == {
        name: raw[name] for name in ("open", "high", "close", "volume")
    }
    assert "split_within" in str(mixed["validation_notes"])
    place = of_weeks.present()["timestamp"].to_list().index(mixed["timestamp"])
    means = of_weeks.present()["sma_20"][place - 1 : place + 12]
    assert means.is_null().to_list() == [False, *[True] * 12]
    without = of_weeks.now
    told = of_weeks.present()
    of_days.now = of_weeks.now + timedelta(minutes=1)
    of_days.offer(days(), "yahoo")
    of_weeks.now = of_days.now
    renew(of_weeks)
    found = of_weeks.present()
    made = the_week(found)
    five = days().filter(pl.col("timestamp").dt.truncate("1w") == MONDAY).rows(named=True)
    old, new = five[:2], five[2:]
    assert made["open"] == round(old[0]["open"] / 3, 18)
    assert made["high"] == max(*(round(day["high"] / 3, 18) for day in old), *(day["high"] for day in new))
    assert made["close"] == five[-1]["close"]
    assert made["volume"] == sum(3 * day["volume"] for day in old) + sum(day["volume"] for day in new)
    assert made["trade_count"] == sum(day["trade_count"] for day in five)
    assert "split_within" in str(made["validation_notes"])
    assert found["sma_20"][place - 1 : place + 12].null_count() == 0
    # Nothing jumps: 34 a third of it is 11.
    assert (found["volatility_20"].drop_nulls() < 15).all()
    assert the_week(of_weeks.reader.candles(WEEKS, SPAN))["open"] == raw["open"]
    assert_frame_equal(content(of_weeks.known(of_weeks.now)), content(found), check_exact=True)
    assert_frame_equal(content(of_weeks.known(without)), content(told), check_exact=True)


def test_days_first_then_the_week_and_a_corrected_day(new_desk: Callable[..., Desk], database: Database) -> None:
    of_weeks, of_days = new_desk(database, WEEKS), new_desk(database, DAYS)
    of_days.offer(days(), "yahoo")
    of_weeks.now = of_days.now
    learn(of_weeks)
    of_weeks.offer(weeks(), "yahoo")
    renew(of_weeks)
    before = the_week(of_weeks.present())
    tuesday = days().filter(pl.col("timestamp").dt.date() == date(2024, 5, 14))
    of_days.now = of_weeks.now
    of_days.offer(tuesday.with_columns(high=pl.col("high") + 30), "yahoo")
    of_weeks.now = of_days.now
    renew(of_weeks)
    after = the_week(of_weeks.present())
    assert before["high"] != after["high"]
    assert after["high"] == round(tuesday["high"][0] / 3 + 10, 18)
    assert_frame_equal(content(of_weeks.known(of_weeks.now)), content(of_weeks.present()), check_exact=True)
