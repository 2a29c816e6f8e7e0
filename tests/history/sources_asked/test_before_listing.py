"""Gaps before an instrument was listed anywhere: asked for once, then proved empty; all commands count them alike."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from asking_sources import asking
from market_data.model.errors import ProviderUnavailable
from market_data.model.instrument import AssetClass
from market_data.model.timeframe import TimeRange
from market_data.pipeline.fetch.candles import Enricher
from market_data.pipeline.fetch.heal import Healed, Healer
from market_data.pipeline.write.gaps import coverage
from market_data.storage.facts.instruments import Interval, write
from market_data.storage.series import coverage as ledger
from market_data.storage.series.coverage import State, Stretch

LISTED = 20
"""Position of the first candle."""


async def enrich(desk: Any, *sources: Any) -> int:
    """Gaps that enriching positions 0 to 39 tells."""
    enricher = Enricher(
        asking(desk.database, {AssetClass.CRYPTO: sources}, lambda: desk.now, batch_rows=500), desk.shelves
    )
    (report,) = await enricher.enrich([desk.series.instrument], [desk.series.timeframe], desk.at(0), desk.at(40))
    assert report.error is None
    return report.gaps


async def heal(desk: Any, *sources: Any) -> Healed:
    (healed,) = await Healer(asking(desk.database, {AssetClass.CRYPTO: sources}, lambda: desk.now), desk.shelves).heal()
    return healed


def lists(desk: Any, source: str, valid_from: datetime | None, raw_symbol: str = "BTC") -> None:
    interval = Interval(source, raw_symbol, desk.series.instrument, None, valid_from, None)
    with desk.database.transaction() as connection:
        write(connection, [interval], [], desk.now)


def stretches(desk: Any, state: State) -> list[Stretch]:
    with desk.database.transaction() as connection:
        return ledger.stretches(connection, desk.series, state=state)


@pytest.fixture
def sources(make_source: Callable[..., Any]) -> list[Any]:
    """Two sources that have the candles since the listing."""
    return [make_source(name, range(LISTED, 40)) for name in ("binance", "polygon")]


async def test_what_was_before_the_listing_is_proved_empty_once_all_were_asked(desk: Any, sources: list[Any]) -> None:
    lists(desk, "polygon", None)
    lists(desk, "binance", desk.at(LISTED))
    assert await enrich(desk, *sources) == LISTED
    assert coverage(desk.database, desk.series, TimeRange(desk.at(0), desk.at(40)), desk.now).missing == LISTED
    healed = await heal(desk, *sources)
    assert (healed.asked, healed.no_trade, healed.missing, healed.filled) == (LISTED, LISTED, 0, 0)
    assert len(sources[1].asked) == 1, "older history of another source is asked for first"
    (empty,) = stretches(desk, State.NO_TRADE)
    assert (empty.start, empty.end, empty.filled_by, empty.next_try_at) == (desk.at(0), desk.at(20), "binance", None)
    assert empty.last_error == (
        f"binance: listed since 2025-01-01 08:00 UTC; 2024-12-31 12:00 to 2025-01-01 08:00 UTC was asked for at "
        f"{desk.now:%Y-%m-%d %H:%M}: binance: no candles from 2024-12-31 to 2025-01-01; "
        "polygon: no candles from 2024-12-31 to 2025-01-01"
    )
    assert await enrich(desk, *sources) == 0
    assert stretches(desk, State.MISSING) == []


async def test_older_candles_of_another_source_move_the_bound(
    desk: Any, sources: list[Any], make_source: Callable[..., Any]
) -> None:
    lists(desk, "binance", desk.at(LISTED))
    await enrich(desk, *sources)
    healed = await heal(desk, sources[0], make_source("polygon", [10, *range(12, 20)]))
    assert (healed.filled, healed.no_trade, healed.missing) == (9, 10, 1)
    (empty,), (left,) = stretches(desk, State.NO_TRADE), stretches(desk, State.MISSING)
    assert (empty.start, empty.end) == (desk.at(0), desk.at(10))
    assert (left.start, left.end, left.tries) == (desk.at(11), desk.at(12), 1), "it was traded before, so this is a gap"


async def test_a_candle_that_the_listing_falls_into_is_missing(desk: Any, sources: list[Any]) -> None:
    lists(desk, "binance", desk.at(LISTED).replace(minute=0) - (desk.at(2) - desk.at(1)) / 2)
    await enrich(desk, *sources)
    healed = await heal(desk, *sources)
    assert (healed.no_trade, healed.missing) == (LISTED - 1, 1)


async def test_nothing_is_proved_while_a_source_may_yet_have_it(
    desk: Any, sources: list[Any], make_source: Callable[..., Any]
) -> None:
    lists(desk, "binance", desk.at(LISTED))
    await enrich(desk, *sources)
    healed = await heal(desk, sources[0], make_source("polygon", error=ProviderUnavailable("down")))
    assert (healed.no_trade, healed.missing) == (0, LISTED)


async def test_a_source_that_only_noticed_a_new_name_proves_nothing(desk: Any, sources: list[Any]) -> None:
    lists(desk, "binance", None, "XBT")
    lists(desk, "binance", desk.at(LISTED))
    await enrich(desk, *sources)
    healed = await heal(desk, *sources)
    assert (healed.no_trade, healed.missing) == (0, LISTED)
