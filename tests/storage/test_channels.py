"""What processes know in common of the hosts they ask, on a real server: budgets, bans, breakers; and without it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from structlog.testing import capture_logs

from market_data.storage.server.database import Database
from market_data.storage.work.channels import SHARE_ALONE, SharedLedger, channel_standings
from market_data.transport.budget import Budget, Time
from market_data.transport.ledger import Key, Rate, Standing

ARCHIVE = Key("binance:archive", "binance:archive", "binance:archive")
FUNDING = Key("binance:funding", "binance:funding", "binance")
FUTURES = Key("binance", "binance", "binance")
FIVE = Rate(5, 60.0)


@pytest.fixture
async def two(database: Database) -> AsyncIterator[tuple[SharedLedger, SharedLedger]]:
    """The ledgers of two processes."""
    ledgers = SharedLedger(database), SharedLedger(database)
    yield ledgers
    for ledger in ledgers:
        await ledger.aclose()


def shift(database: Database, seconds: float) -> None:
    """Let time pass for what was granted, failed and banned."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE request_grants SET slots = (SELECT array_agg(at - %s::int8) FROM unnest(slots) at)",
            [int(seconds * 1000)],
        )
        connection.execute(
            "UPDATE channels SET (banned_until, failed_at, rests_until, probed_until) = (banned_until - %(by)s, "
            "failed_at - %(by)s, rests_until - %(by)s, probed_until - %(by)s)".replace(
                "%(by)s", f"interval '{seconds} seconds'"
            )
        )


async def test_two_processes_keep_to_one_rate(database: Database, two: tuple[SharedLedger, SharedLedger]) -> None:
    one, other = two
    granted = [
        (await ledger.take(FUTURES, FIVE, wanted)).requests for ledger, wanted in ((one, 3), (other, 3), (one, 1))
    ]
    assert granted == [3, 2, 0]
    wait = (await other.take(FUTURES, FIVE, 1)).wait_for
    assert 58 < wait <= 62
    shift(database, 59)
    assert (await one.take(FUTURES, FIVE, 1)).requests == 0, "sent at the end of its lease, it is still in the window"
    shift(database, 4)
    assert (await one.take(FUTURES, FIVE, 9)).requests == 5
    assert (await one.take(ARCHIVE, FIVE, 1)).requests == 1, "another budget is another's"


async def test_at_once_from_many_sides(database: Database) -> None:
    ledgers = [SharedLedger(database) for _ in range(6)]
    rate = Rate(40, 60.0)

    async def hammer(ledger: SharedLedger) -> int:
        return sum([(await ledger.take(FUTURES, rate, 1 + number % 3)).requests for number in range(12)])

    assert sum(await asyncio.gather(*map(hammer, ledgers))) == 40
    for ledger in ledgers:
        await ledger.aclose()


async def test_a_server_clock_set_back_locks_nobody_out(
    database: Database, two: tuple[SharedLedger, SharedLedger]
) -> None:
    assert (await two[0].take(FUTURES, FIVE, 5)).requests == 5
    shift(database, -3600)
    assert (await two[1].take(FUTURES, FIVE, 5)).requests == 5


async def test_a_busy_process_asks_by_the_batch_and_an_idle_one_by_the_piece(database: Database) -> None:
    class Counting(SharedLedger):
        asked = 0

        async def take(self, key: Key, rate: Rate, wanted: int):  # type: ignore[no-untyped-def]
            self.asked += 1
            return await super().take(key, rate, wanted)

    ledger = Counting(database)
    budget = Budget(Rate(1200, 60.0), ledger, Time())
    for _ in range(200):
        await budget.acquire(FUTURES, lambda *_: None)
    # 1, 2, 4, 8, 16, then 24 at once; a few more on a slow machine, where a lease of a second may end first.
    assert ledger.asked < 40
    (row,) = database.rows("SELECT (SELECT sum(n) FROM unnest(requests) n) AS granted FROM request_grants")
    assert 200 <= row["granted"] < 230
    await ledger.aclose()


async def test_a_ban_is_obeyed_by_all_channels_of_the_host_in_every_process(
    database: Database, two: tuple[SharedLedger, SharedLedger]
) -> None:
    one, other = two
    await one.ban("binance", 3600, "way too many requests")
    for key in (FUTURES, FUNDING):
        standing = (await other.take(key, FIVE, 1)).standing
        assert (3590 < standing.banned_for <= 3600, standing.ban) == (True, "way too many requests")
    assert (await other.take(ARCHIVE, FIVE, 1)).standing == Standing()
    await other.ban("binance", 60, "a shorter one ends no longer one")
    assert channel_standings(database)["binance"].banned_for > 3500
    shift(database, 3601)
    assert (await one.take(FUTURES, FIVE, 1)).standing.banned_for == 0


async def test_failures_of_all_processes_open_one_breaker(
    database: Database, two: tuple[SharedLedger, SharedLedger]
) -> None:
    one, other = two

    async def fail(ledger: SharedLedger, *, probing: bool = False) -> Standing:
        return await ledger.failed(ARCHIVE, "503", threshold=3, rest=300, probing=probing)

    assert [(await fail(ledger)).opened for ledger in (one, other, one)] == [False, False, True]
    standing = (await other.take(ARCHIVE, FIVE, 1)).standing
    assert (standing.opened, standing.failures, standing.fault) == (True, 3, "503")
    assert 290 < standing.rests_for <= 300
    assert not (await other.take(FUTURES, FIVE, 1)).standing.opened
    refused = await other.probe(ARCHIVE, 120)
    assert refused and refused.opened
    shift(database, 301)
    assert await one.probe(ARCHIVE, 120) is None
    assert await other.probe(ARCHIVE, 120) is not None, "one finds out, the others wait for what it finds"
    assert (await fail(one, probing=True)).rests_for > 290
    shift(database, 301)
    assert await other.probe(ARCHIVE, 120) is None
    shift(database, 121)
    assert await one.probe(ARCHIVE, 120) is None, "who found out died"
    await one.succeeded(ARCHIVE)
    assert (await other.take(ARCHIVE, FIVE, 1)).standing == Standing()


async def test_what_nobody_tried_for_an_hour_counts_as_well_again(
    database: Database, two: tuple[SharedLedger, SharedLedger]
) -> None:
    for _ in range(3):
        await two[0].failed(ARCHIVE, "503", threshold=3, rest=300, probing=False)
    assert channel_standings(database)[ARCHIVE.channel].opened
    shift(database, 3601)
    assert channel_standings(database)[ARCHIVE.channel] == Standing(fault="503")
    standing = await two[1].failed(ARCHIVE, "503", threshold=3, rest=300, probing=False)
    assert (standing.failures, standing.opened) == (1, False)


@contextmanager
def gone(database: Database) -> Iterator[None]:
    """The database is away meanwhile."""
    known, database._conninfo = database._conninfo, lambda: "host=127.0.0.1 port=1 dbname=none"
    yield
    database._conninfo = known


async def test_without_the_database_a_process_goes_on_with_a_share(database: Database) -> None:
    now = [0.0]
    ledger, rate = SharedLedger(database, lambda: now[0]), Rate(20, 60.0)
    with capture_logs() as logs:
        with gone(database):
            began = time.monotonic()
            first = await ledger.take(FUTURES, rate, 1)
            assert (first.requests, first.wait_for) == (0, 5), "others may just have used the window up"
            now[0] += 60
            granted = sum([(await ledger.take(FUTURES, rate, 1)).requests for _ in range(20)])
            assert time.monotonic() - began < 5, "never a hang"
            assert granted == 20 * SHARE_ALONE
            await ledger.ban("binance", 50, "told meanwhile")
            assert (await ledger.take(FUTURES, rate, 1)).standing.banned_for == 50
        now[0] += 6
        assert (await ledger.take(FUTURES, rate, 20)).requests == 20
    assert [entry["event"] for entry in logs] == ["channels_not_shared", "channels_shared_again"]
    await ledger.aclose()
    assert channel_standings(database)["binance"].banned_for > 40, "what was told meanwhile is told on"


async def test_a_connection_that_was_cut_is_opened_again(database: Database) -> None:
    ledger = SharedLedger(database)
    await ledger.take(FUTURES, FIVE, 1)
    database.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'market-data channels' "
        "AND datname = current_database()"
    )
    with capture_logs() as logs:
        assert (await ledger.take(FUTURES, FIVE, 9)).requests == 4
    assert not logs
    await ledger.aclose()
