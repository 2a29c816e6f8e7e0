"""Two sources on the same candles: what is within tolerance, what is recorded, what is shown."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from asking_sources import asking
from market_data.model.errors import UnsupportedRequest, UsageError
from market_data.model.timeframe import TimeRange
from market_data.pipeline.fetch.reconcile import Reconciliation, compare, provider_of, reconcile
from market_data.pipeline.write.tolerance import tolerance


def test_one_providers_channels_must_agree_exactly() -> None:
    assert tolerance("close", "binance", "binance:archive") == 0
    assert tolerance("close", "binance", "yahoo") == Decimal("0.001")
    assert tolerance("volume", "polygon", "yahoo") == Decimal("0.05")


def test_differences_are_counted_by_field(desk: Any) -> None:
    stored = desk.frame([desk.candle(i) for i in range(4)]).with_columns(pl.lit("polygon").alias("source"))
    other = desk.frame(
        [
            desk.candle(0),
            desk.candle(1, "100.05", volume="10.4"),  # 0.05 % and 4 %: within
            desk.candle(2, "100.2", volume="20"),  # 0.2 % and half: beyond
            desk.candle(9),
        ]
    )
    differing, counts = compare(stored, other, "yahoo")
    by_field = {count.field: count for count in counts}
    close, volume = by_field["close"], by_field["volume"]
    assert (close.compared, close.equal, close.within, close.beyond) == (3, 1, 1, 1)
    assert close.worst == pytest.approx(0.2 / 100.2)
    assert (volume.equal, volume.within, volume.beyond, volume.worst) == (1, 1, 1, 0.5)
    assert by_field["vwap"].compared == 0, "null on either side is not compared"
    assert [(row["timestamp"], row["field"]) for row in differing.to_dicts()] == [
        (desk.at(2), "close"), (desk.at(2), "volume"),
    ]  # fmt: skip


async def against(desk: Any, source: Any) -> Reconciliation:
    span = TimeRange(desk.at(0), desk.at(10))
    return await reconcile(sources(desk), source, source.name, desk.series, span)


def sources(desk: Any) -> Any:
    return asking(desk.database, {}, lambda: desk.now)


async def test_disagreements_are_recorded_and_nothing_else_is_stored(desk: Any, make_source: Any) -> None:
    desk.offer([desk.candle(i) for i in range(3)], "polygon")
    other = make_source("yahoo", [desk.candle(0), desk.candle(1, "104"), desk.candle(3)])
    found = await against(desk, other)
    assert (found.both, found.only_stored, found.only_other, found.beyond) == (2, 1, 1, 1)
    assert desk.table("disagreements", "timestamp, field, source_a, value_a::text, source_b, value_b::text", "id") == [
        (desk.at(1), "close", "polygon", "100.000000000000000000", "yahoo", "104.000000000000000000")
    ]
    assert desk.present()["close"].to_list() == [Decimal(100)] * 3
    assert len(desk.table("recompute_due", "reason", "id")) == 1
    await against(desk, other)
    assert len(desk.table("disagreements", "id", "id")) == 1, "the same disagreement is on record once"


async def test_an_unknown_channel_or_provider_is_named(desk: Any, make_source: Any) -> None:
    source = make_source("yahoo", [])
    with pytest.raises(UnsupportedRequest, match="yahoo has no source 'yahoo:archive', only 'yahoo'"):
        await reconcile(sources(desk), source, "yahoo:archive", desk.series, TimeRange(desk.at(0), desk.at(1)))
    with pytest.raises(UsageError, match="Unknown source 'nasdaq'. Providers: yahoo"):
        provider_of("nasdaq", [source])
