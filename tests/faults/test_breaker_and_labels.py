"""A breaker that spares a dead source, and open interest on both sides of the day its labels changed their meaning."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import fault_acts as acts
from fault_desk import ARCHIVE_MINUTES, BINANCE, BINANCE_HOURS, COIN, DAY, POLYGON, Case, Sources, opened, program
from fault_wire import Fault, Loopback, VirtualTime

from market_data.model.dataset import OPEN_INTEREST
from market_data.model.timeframe import Timeframe, TimeRange

FIVE = timedelta(minutes=5)
BROKE = datetime(2026, 6, 25, tzinfo=UTC)
LONG_AFTER = datetime(2026, 9, 1, tzinfo=UTC)
METRICS_HEADER = (
    "create_time,symbol,sum_open_interest,sum_open_interest_value,count_toptrader_long_short_ratio,"
    "sum_toptrader_long_short_ratio,count_long_short_ratio,sum_taker_long_short_vol_ratio\n"
)
DEAD = Case(
    name="dead", subject=BINANCE_HOURS, stored={}, priority=("binance", "polygon"),
    faults=[Fault(lambda request: request.url.path.startswith(("/fapi", "/api")), acts.answering(500))],
)  # fmt: skip


async def test_a_source_that_failed_three_times_is_left_alone_for_five_minutes(database_url: str) -> None:
    async with Loopback(Sources({}), DEAD.faults).serving() as loopback:
        time, begin = VirtualTime(), BINANCE_HOURS.span.start

        async def asked(hours: int) -> int:
            """Requests to the dead source for some more hours; all of them come from the other one."""
            before = len(loopback.asked)
            (report,) = await app.enricher.enrich([COIN], [Timeframe.H1], begin, begin + timedelta(hours=hours))
            assert (report.error, report.sources) == (None, ["polygon"])
            return sum("/fapi/" in url or "/api/" in url for url in loopback.asked[before:])

        with opened(DEAD, database_url, loopback.url, time) as app:
            (gate,) = (http.channels["binance"].gate for http in app.connections if http.name == "binance")
            # Three requests of four tries each: 2 + 4 + 8 s of waiting each.
            assert (await asked(10), time.passed, gate.state) == (12, 42.0, "open")
            assert (await asked(20), time.passed) == (0, 42.0)
            time.now += 299
            assert await asked(30) == 0
            time.now += 1
            assert gate.state == "half_open"
            # One more request with its tries finds out that nothing has changed.
            assert (await asked(40), gate.state) == (4, "open")
            time.now += 300
            loopback.faults = []
            (report,) = await app.enricher.enrich([COIN], [Timeframe.H1], begin + 3 * DAY, begin + 4 * DAY)
            assert (report.sources, gate.state) == (["binance"], "closed")
            await app.disconnect()


async def test_an_archive_that_is_down_costs_no_candle_and_no_breaker_but_its_own(database_url: str) -> None:
    down = Case(
        name="archive down", subject=ARCHIVE_MINUTES, stored={},
        settings={"providers.binance.archive_from_candles": 1000},
        faults=[Fault(lambda request: request.url.path.startswith("/data/"), acts.answering(503))],
    )  # fmt: skip
    async with Loopback(Sources({}), down.faults).serving() as loopback:
        time, span = VirtualTime(), ARCHIVE_MINUTES.span
        with opened(down, database_url, loopback.url, time) as app:
            (report,) = await app.enricher.enrich([COIN], [Timeframe.M1], span.start, span.end)
            await app.disconnect()
            assert (report.error, report.gaps) == (None, 0)
            (row,) = app.database.rows("SELECT count(*) AS n, array_agg(DISTINCT source) AS of FROM market_data_v2")
            assert (row["n"], row["of"]) == (3 * 1440, ["binance"])
            (channels,) = (http.channels for http in app.connections if http.name == "binance")
            assert {name for name, one in channels.items() if one.gate.state != "closed"} <= {"binance:archive"}
            assert channels["binance:archive"].gate.failures


async def test_open_interest_is_one_series_across_the_change_of_labels(database_url: str) -> None:
    # Each value names the end of its five minutes: its number since the day before the change.
    days = {BROKE - DAY: 1, BROKE: 0}
    files = {path(day): metrics(day, first) for day, first in days.items()}
    async with Loopback(Sources(files), []).serving() as loopback:
        values = {f"providers.binance.{name}": loopback.url for name in ("rest_url", "spot_rest_url", "archive_url")}
        with program(
            {**values, "providers.polygon.api_key": POLYGON.KEY}, database_url, LONG_AFTER, VirtualTime()
        ) as app:
            collected = await app.collector.collect(OPEN_INTEREST, COIN, TimeRange(BROKE - DAY, BROKE + DAY))
            await app.disconnect()
            assert collected.error is None
            rows = app.database.rows("SELECT timestamp, known_at, value FROM open_interest ORDER BY timestamp")
    # From the end of the first five minutes of the one day to the last but one of the other: [start, end).
    ends = [BROKE - DAY + FIVE * number for number in range(1, 2 * 288)]
    assert [row["timestamp"] for row in rows] == ends
    assert [row["value"] for row in rows] == [Decimal(number) for number in range(1, 2 * 288)]
    assert all(row["known_at"] == row["timestamp"] for row in rows), "known early would be look-ahead"


def path(day: datetime) -> str:
    return f"futures/um/daily/metrics/BTCUSDT/BTCUSDT-metrics-{day:%Y-%m-%d}.zip"


def metrics(day: datetime, first: int) -> bytes:
    """A day's file: labels from 00:05 to 24:00 before the change, from 00:00 to 23:55 since."""
    begun = (day - (BROKE - DAY)) // FIVE
    lines = [
        f"{day + FIVE * (number + first):%Y-%m-%d %H:%M:%S},{BINANCE.RAW_SYMBOL},{begun + number + 1},1,1,1,1,1\n"
        for number in range(288)
    ]
    return (METRICS_HEADER + "".join(lines)).encode()
