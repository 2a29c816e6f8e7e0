"""Claims that a source no longer makes: withdrawn by a second complete answer, or held in doubt; history is kept."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
from history_desk import Desk

from market_data.model.dataset import DIVIDENDS, SPLITS, Dataset
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.provider import Page
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.write.believe import believed_payments, believed_splits
from market_data.pipeline.write.normalise import numbered
from market_data.pipeline.write.withdraw import take_answer
from market_data.storage.facts.append import Provenance, append
from market_data.storage.facts.claims import doubts
from market_data.storage.facts.reads import newest_versions
from market_data.storage.server.database import Database

ZZZ = Instrument("ZZZ", AssetClass.STOCK)
ASKED = TimeRange(datetime(2014, 1, 1, tzinfo=UTC), datetime(2024, 10, 1, tzinfo=UTC))


@pytest.fixture
def desk(database: Database, new_desk: Callable[..., Desk]) -> Desk:
    found = new_desk(database, Series(ZZZ, Timeframe.D1))
    found.now = datetime(2024, 7, 1, tzinfo=UTC)
    return found


def answer(
    desk: Desk, dataset: Dataset, rows: list[dict[str, Any]], source: str = "polygon", *, since: date | None = None
) -> list[str]:
    """A source's whole answer now; complete from its oldest entry unless said otherwise."""
    desk.now += timedelta(minutes=30)
    frame = dataset.conform(pl.DataFrame(rows, infer_schema_length=None)) if rows else dataset.empty()
    oldest = since or (min(row[dataset.time] for row in rows) if rows else ASKED.start.date())
    complete = TimeRange(datetime.combine(oldest, datetime.min.time(), UTC), ASKED.end)
    page = Page(frame=frame, source=source, fetched_at=desk.now, response_ms=5.0, complete=complete)
    with desk.database.transaction() as connection:
        origin = Provenance(source=source, now=desk.now, run_id=uuid4())
        append(connection, desk.database, dataset, ZZZ, numbered(dataset, frame), origin)
        return take_answer(connection, desk.reader, dataset, ZZZ, page, ASKED, origin)


def split(day: str, to: int = 10) -> dict[str, Any]:
    return {"execution_date": date.fromisoformat(day), "split_from": Decimal(1), "split_to": Decimal(to)}


def paid(day: str, amount: str = "0.25") -> dict[str, Any]:
    return {"ex_date": date.fromisoformat(day), "amount": Decimal(amount), "currency": "USD", "dividend_type": "cash"}


def days(desk: Desk, dataset: Dataset, moment: datetime | None = None) -> list[str]:
    found = newest_versions(desk.database, dataset, ZZZ, as_of=moment)
    return [str(day) for day in found[dataset.time]]


OLD = split("2015-06-01", 2)


def test_a_second_answer_without_it_withdraws_a_split_and_its_past_stands(desk: Desk) -> None:
    answer(desk, SPLITS, [OLD, split("2024-06-11")])
    told = desk.now
    (waits,) = answer(desk, SPLITS, [OLD, split("2024-06-18")])
    assert "withdrawn once a further answer lacks them" in waits
    assert days(desk, SPLITS) == ["2015-06-01", "2024-06-11", "2024-06-18"]
    (done,) = answer(desk, SPLITS, [OLD, split("2024-06-18")])
    assert done == "1 splits withdrawn: polygon no longer tells them"
    assert days(desk, SPLITS) == ["2015-06-01", "2024-06-18"]
    assert days(desk, SPLITS, told) == ["2015-06-01", "2024-06-11"]
    assert answer(desk, SPLITS, [OLD, split("2024-06-18")]) == []
    states = [(str(each.date), each.state.value) for each in believed_splits(desk.reader, ZZZ, desk.now)]
    assert states == [("2015-06-01", "unconfirmed"), ("2024-06-11", "withdrawn"), ("2024-06-18", "unconfirmed")]
    versions = desk.table("stock_splits", "execution_date::text, revision, withdrawn", "execution_date, revision")
    assert versions[1:3] == [("2024-06-11", 1, False), ("2024-06-11", 2, True)]
    changed = desk.table("data_corrections", "dataset, field_corrected, old_value, new_value, reason", "id")
    assert changed == [("splits", "withdrawn", "false", "true", "source_updated")]
    # Told again: it stands again.
    answer(desk, SPLITS, [OLD, split("2024-06-11"), split("2024-06-18")])
    assert days(desk, SPLITS) == ["2015-06-01", "2024-06-11", "2024-06-18"]


def test_one_hiccup_withdraws_nothing(desk: Desk) -> None:
    both = [OLD, split("2024-06-11")]
    answer(desk, SPLITS, both)
    answer(desk, SPLITS, [OLD])
    assert answer(desk, SPLITS, both) == []
    (waits,) = answer(desk, SPLITS, [OLD])
    assert "further answer" in waits
    assert days(desk, SPLITS) == ["2015-06-01", "2024-06-11"]


def test_the_only_entry_moved_is_withdrawn_though_the_list_reaches_back_no_further(desk: Desk) -> None:
    answer(desk, DIVIDENDS, [paid("2024-06-11")])
    answer(desk, DIVIDENDS, [paid("2024-06-25")])
    answer(desk, DIVIDENDS, [paid("2024-06-25")])
    assert days(desk, DIVIDENDS) == ["2024-06-25"]
    (event,) = [each for each in believed_payments(desk.reader, ZZZ, desk.now) if each.applies]
    assert event.date == date(2024, 6, 25)


def test_what_lies_before_the_oldest_entry_is_beyond_what_the_answer_speaks_of(desk: Desk) -> None:
    quarters = [f"{year}-{month}-05" for year in (2022, 2023) for month in ("03", "06", "09", "12")]
    answer(desk, DIVIDENDS, [paid(day) for day in quarters])
    # A plan that reaches two years back: the oldest drop out, a new one of the same amount came.
    for _ in range(3):
        assert answer(desk, DIVIDENDS, [paid(day) for day in [*quarters[2:], "2024-03-05"]]) == []
    assert days(desk, DIVIDENDS) == [*quarters, "2024-03-05"]


def test_an_empty_list_withdraws_nothing_and_raises_doubt(desk: Desk) -> None:
    answer(desk, SPLITS, [split("2024-06-11")])
    for _ in range(3):
        (told,) = answer(desk, SPLITS, [])
        assert told == "splits of 2024-06-11 is no longer told by polygon: the list of the source is empty"
    assert days(desk, SPLITS) == ["2024-06-11"]
    (doubt,) = doubts(desk.database, ZZZ)
    assert doubt["claim"] == {"execution_date": "2024-06-11", "component": 1}
    answer(desk, SPLITS, [split("2024-06-11")])
    assert doubts(desk.database) == []


def test_a_list_that_loses_more_than_a_fifth_is_doubted(desk: Desk) -> None:
    months = [paid(f"2023-{month:02}-05", f"0.{month:02}") for month in range(1, 13)]
    answer(desk, DIVIDENDS, months)
    for _ in range(3):
        told = answer(desk, DIVIDENDS, months[:1] + months[4:])
        assert len(told) == 3
        assert "3 of 12 entries vanished at once" in told[0]
    assert len(days(desk, DIVIDENDS)) == 12
    for _ in range(3):
        answer(desk, DIVIDENDS, [row for row in months if row not in (months[3], months[7])])
    assert len(days(desk, DIVIDENDS)) == 10


def test_a_split_that_the_price_confirms_is_not_withdrawn_on_an_absence(desk: Desk) -> None:
    rows = []
    for day in (3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 17, 18):
        price = Decimal(100) / (10 if day >= 11 else 1)
        values = dict.fromkeys(("open", "high", "low", "close"), price)
        rows.append({"timestamp": datetime(2024, 6, day, 13, 30, tzinfo=UTC), **values, "volume": 1})
    desk.offer(rows, "polygon")
    answer(desk, SPLITS, [OLD, split("2024-06-10")])
    for _ in range(3):
        (told,) = answer(desk, SPLITS, [OLD])
        assert told.endswith("the price confirms it")
    assert days(desk, SPLITS) == ["2015-06-01", "2024-06-10"]
    # The same split for the day after is the same event: the wrong day goes.
    for _ in range(3):
        answer(desk, SPLITS, [OLD, split("2024-06-11")])
    assert days(desk, SPLITS) == ["2015-06-01", "2024-06-11"]


def test_another_sources_claim_stands(desk: Desk) -> None:
    answer(desk, SPLITS, [OLD, split("2024-06-11")])
    answer(desk, SPLITS, [OLD, split("2024-06-11")], "yahoo")
    for _ in range(2):
        answer(desk, SPLITS, [OLD], "polygon")
    found = [each for each in believed_splits(desk.reader, ZZZ, desk.now) if each.applies]
    assert [str(each.date) for each in found] == ["2015-06-01", "2024-06-11"]
    assert {claim.source: claim.withdrawn is None for claim in found[1].claims} == {"polygon": False, "yahoo": True}
