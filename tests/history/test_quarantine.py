"""Rows in quarantine: listed, shown, and stored when a changed rule lets them pass."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any
from unittest.mock import patch

import history_steps as steps
import pytest

from market_data.pipeline.write.derive import Shelves
from market_data.pipeline.write.release import retry
from market_data.storage.series.present import Counts
from market_data.storage.work import quarantine


def lenient(shelves: Shelves, *names: str) -> Shelves:
    """The shelves without some of the rejecting rules."""
    return replace(shelves, rules=tuple(rule for rule in shelves.rules if rule.name not in names))


def waiting(desk: Any) -> list[tuple[Any, ...]]:
    return desk.table("quarantine", "timestamp, rule, resolved_at IS NULL, resolution", "timestamp, id")


def test_rows_that_pass_now_are_stored_exactly_and_leave(desk: Any) -> None:
    bad = [desk.candle(i, "100.000000000000000001", high="1") for i in (0, 1, 5)]
    desk.offer([*bad, desk.candle(2), desk.candle(7, volume="-1")])
    assert retry(desk.database, desk.shelves, lambda: desk.now) == Counts(rejected=4)
    rules = lenient(desk.shelves, "high_too_low")
    assert retry(desk.database, rules, lambda: desk.now) == Counts(inserted=3, rejected=1)
    assert waiting(desk) == [
        (desk.at(0), "high_too_low", False, "inserted"),
        (desk.at(1), "high_too_low", False, "inserted"),
        (desk.at(5), "high_too_low", False, "inserted"),
        (desk.at(7), "negative_volume, taker_volume_too_high", True, None),
    ]
    assert desk.present()["close"].to_list() == [Decimal("100.000000000000000001")] * 2 + [Decimal(100)] + [
        Decimal("100.000000000000000001")
    ]
    # Gaps between them were not asked for: the ledger does not call them missing because of this.
    assert retry(desk.database, rules, lambda: desk.now) == Counts(rejected=1)


def test_a_retry_that_fails_half_way_leaves_all_in_quarantine(desk: Any) -> None:
    desk.offer([desk.candle(i, high="1") for i in range(3)])
    before = waiting(desk)
    rules = lenient(desk.shelves, "high_too_low")

    def fails(*_: Any) -> None:
        raise RuntimeError("stopped")

    with patch("market_data.pipeline.write.release.resolve", fails), pytest.raises(RuntimeError, match="stopped"):
        retry(desk.database, rules, lambda: desk.now)
    assert waiting(desk) == before
    assert desk.present().is_empty()


def test_listing_and_showing(desk: Any) -> None:
    desk.offer([desk.candle(0, high="1"), desk.candle(1, high="1")])
    found = quarantine.listed(desk.database, desk.series.instrument)
    assert [row["timestamp"] for row in found] == [desk.at(1), desk.at(0)]
    one = quarantine.shown(desk.database, found[0]["id"])
    assert one is not None
    assert (one["rule"], Decimal(one["payload"]["high"])) == ("high_too_low", 1)
    assert quarantine.shown(desk.database, 10**9) is None
    assert retry(desk.database, lenient(desk.shelves, "high_too_low"), lambda: desk.now, numbers=[one["id"]]) == Counts(
        inserted=1
    )
    assert len(quarantine.listed(desk.database)) == 1
    assert len(quarantine.listed(desk.database, resolved=True)) == 2


def test_many_rejected_rows_cost_a_handful_of_statements(desk: Any) -> None:
    rows = desk.frame([desk.candle(i, high="1") for i in range(1400)])
    count: list[str] = []
    with steps.stepping(desk.database, count.append):
        assert desk.offer(rows).counts == Counts(rejected=1400)
    assert len(count) < 40
    assert desk.table("quarantine", "count(*)", "1") == [(1400,)]
