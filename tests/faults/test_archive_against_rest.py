"""Candles stored from REST, compared with the archive's by the sources' names: one planted difference is found."""

from __future__ import annotations

import hashlib
import io
import zipfile
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import fault_acts as acts
import httpx
import pytest
from fault_desk import COIN, program
from fault_wire import Fault, Honest, Loopback, VirtualTime

from market_data.bootstrap import App
from market_data.model.errors import UnsupportedRequest
from market_data.model.instrument import Series
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.fetch.reconcile import Reconciliation, reconcile
from market_data.sandbox import Sandbox

NOW = datetime(2026, 11, 20, 18, 30, 15, tzinfo=UTC)
SPAN = TimeRange(datetime(2026, 11, 10, tzinfo=UTC), datetime(2026, 11, 13, tzinfo=UTC))
HOURS = 72
PLANTED = datetime(2026, 11, 11, 5, tzinfo=UTC)
FILE = "/data/futures/um/daily/klines/BTCUSDT/1h/BTCUSDT-1h-2026-11-11.zip"


def passed_on(url: str) -> Honest:
    """To the sandbox, and its answer back."""
    return lambda request: httpx.get(url + request.url.raw_path.decode(), timeout=60)


def planted(url: str) -> bytes:
    """The sandbox's file with one hour's close a tenth higher."""
    with zipfile.ZipFile(io.BytesIO(httpx.get(url + FILE, timeout=60).content)) as honest:
        (name,) = honest.namelist()
        lines = honest.read(name).decode().splitlines()
    place = next(at for at, line in enumerate(lines) if line.startswith(str(int(PLANTED.timestamp()) * 1000)))
    cells = lines[place].split(",")
    cells[4] = str(Decimal(cells[4]) + Decimal("0.1"))
    lines[place] = ",".join(cells)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, "\n".join(lines) + "\n")
    return packed.getvalue()


async def against(app: App, source: str) -> Reconciliation:
    series = Series(COIN, Timeframe.H1)
    return await reconcile(app.sources, app.providers["binance"], source, series, SPAN)


async def test_one_planted_difference_is_found_and_recorded(database_url: str) -> None:
    with Sandbox(now=NOW, limits=False) as sandbox:
        url = sandbox.urls["providers.binance.archive_url"]
        content = planted(url)
        checksum = f"{hashlib.sha256(content).hexdigest()}  x.zip\n".encode()
        faults = [
            Fault(lambda request: request.url.path == FILE, acts.answering(200, content)),
            Fault(lambda request: request.url.path == f"{FILE}.CHECKSUM", acts.answering(200, checksum)),
        ]
        async with Loopback(passed_on(url), faults).serving() as loopback:
            values = {
                f"providers.binance.{name}": loopback.url for name in ("rest_url", "spot_rest_url", "archive_url")
            }
            with program(values, database_url, NOW, VirtualTime()) as app:
                try:
                    (report,) = await app.enricher.enrich([COIN], [Timeframe.H1], SPAN.start, SPAN.end)
                    assert (report.error, report.sources) == (None, ["binance"])
                    found = await against(app, "binance:archive")
                    assert (found.against, found.both, found.only_stored, found.only_other) == (
                        "binance:archive", HOURS, 0, 0,
                    )  # fmt: skip
                    compared = {field.field: (field.compared, field.equal, field.beyond) for field in found.fields}
                    assert compared["close"] == (HOURS, HOURS - 1, 1)
                    assert compared["volume"] == (HOURS, HOURS, 0)
                    assert found.beyond == 1
                    spot = await against(app, "binance:spot")
                    assert (spot.against, spot.both) == ("binance:spot", HOURS)
                    with pytest.raises(UnsupportedRequest, match="binance:archive"):
                        await against(app, "binance:elsewhere")
                finally:
                    await app.disconnect()
                (row,) = app.database.rows("SELECT timestamp, field, source_b FROM disagreements WHERE field = 'close' "
                                           "AND source_b = 'binance:archive'")  # fmt: skip
    assert row["timestamp"] == PLANTED


async def test_files_that_are_not_there_yet_are_left_out(database_url: str) -> None:
    begin = NOW.replace(hour=0, minute=0, second=0) - timedelta(days=1)
    with Sandbox(now=NOW, limits=False) as sandbox:
        values = {name: url for name, url in sandbox.urls.items() if name.startswith("providers.binance.")}
        with program(values, database_url, NOW, VirtualTime()) as app:
            pages = [
                page
                async for page in app.providers["binance"].fetch_candles_from(
                    "binance:archive", COIN, Timeframe.H1, begin, NOW, now=NOW
                )
            ]
            await app.disconnect()
    # Yesterday's file is there since this morning, today's is not.
    assert [(page.source, page.frame.height) for page in pages] == [("binance:archive", 24)]
