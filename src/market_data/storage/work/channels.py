"""Channels as every process of a database knows them: requests granted, bans, breakers; by the server's clock.

A process asks for a batch of requests with one statement, which also tells how the channel stands. Granted requests
lapse after a lease, so that a process that died costs the others nothing. Each grant counts from the slot of time it
was made in, for the window, its slot and its lease: in no window more are sent than the rate allows.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import psycopg
import structlog
from psycopg.conninfo import make_conninfo

from market_data.model.errors import MarketDataError
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import DialledAsync, Session, dial_async
from market_data.transport.ledger import Clock, Grant, Key, LocalLedger, Rate, Standing

log = structlog.get_logger()

# A slot, and a lease, is a sixtieth of the window, and never so short that a busy machine lets requests lapse.
SLOTS: Final = 60
SHORTEST_SLOT_MS: Final = 250
# Whoever waits longer for an answer does without; and so long until it is asked again. A busy process takes seconds.
ANSWER_SECONDS: Final = 10.0
AWAY_SECONDS: Final = 5.0
NAME: Final = "market-data channels"
SESSION: Final = Session(lock_seconds=ANSWER_SECONDS, statement_seconds=ANSWER_SECONDS)
# Of every rate, while the others cannot be seen: four processes still keep to it.
SHARE_ALONE: Final = 0.25

# What nobody tried for so long counts as well again: the next who asks finds out.
_RECENT: Final = "c.failed_at > clock_timestamp() - interval '1 hour'"
_STANDING: Final = (
    "greatest(0, coalesce(extract(epoch FROM h.banned_until - clock_timestamp()), 0))::float8 AS banned_for, "
    f"coalesce(h.ban, '') AS ban, CASE WHEN {_RECENT} THEN c.failures ELSE 0 END AS failures, "
    f"coalesce(c.rests_until IS NOT NULL AND {_RECENT}, false) AS opened, "
    "greatest(0, coalesce(extract(epoch FROM c.rests_until - clock_timestamp()), 0))::float8 AS rests_for, "
    "coalesce(c.fault, '') AS fault"
)
_NAMED: Final = "LEFT JOIN channels c ON c.name = %(channel)s::text LEFT JOIN channels h ON h.name = %(host)s::text "
# In one statement, so that nobody is ever waited for who sleeps in the middle. Conflicting rows are read as they are by
# then. Lost with the server's last moments it is only time, so nobody waits for the disk.
_TAKE: Final = f"""
WITH granted AS (
    INSERT INTO request_grants AS g (budget, slots, requests, granted)
    VALUES (%(budget)s, ARRAY[floor(extract(epoch FROM clock_timestamp()) * 1000 / %(slot)s)::int8 * %(slot)s],
            ARRAY[least(%(wanted)s, %(most)s)], least(%(wanted)s, %(most)s))
    ON CONFLICT (budget) DO UPDATE SET (slots, requests, granted) = (
        SELECT array_agg(at ORDER BY at), array_agg(requests ORDER BY at), max(room)
        FROM (
            SELECT at, sum(requests)::int AS requests, max(room) AS room
            FROM (
                SELECT clock.ms AS now, least(%(wanted)s, greatest(0, %(most)s - coalesce(sum(kept.requests), 0)))::int
                    AS room
                FROM (SELECT extract(epoch FROM clock_timestamp()) * 1000 AS ms) clock
                LEFT JOIN unnest(g.slots, g.requests) AS kept (at, requests)
                    ON kept.at > clock.ms - %(window)s - 2 * %(slot)s AND kept.at <= clock.ms
                GROUP BY clock.ms
            ) counted,
            LATERAL (
                SELECT at, requests FROM unnest(g.slots, g.requests) AS kept (at, requests)
                WHERE at > now - %(window)s - 2 * %(slot)s AND at <= now
                UNION ALL SELECT floor(now / %(slot)s)::int8 * %(slot)s, room WHERE room > 0
            ) entries
            GROUP BY at
        ) slots
    )
    RETURNING granted, slots[1] + %(window)s + 2 * %(slot)s - extract(epoch FROM clock_timestamp()) * 1000 AS wait,
        set_config('synchronous_commit', 'off', true)
)
SELECT granted, (wait / 1000)::float8, {_STANDING} FROM granted {_NAMED}
"""
# The sooner the others see it, the fewer ask: nobody waits for the disk here either.
_BAN: Final = """
INSERT INTO channels AS c (name, banned_until, ban) VALUES (
    %(host)s, clock_timestamp() + make_interval(secs => %(seconds)s), %(why)s)
ON CONFLICT (name) DO UPDATE SET (banned_until, ban) = (excluded.banned_until, excluded.ban)
WHERE c.banned_until IS NULL OR c.banned_until < excluded.banned_until
RETURNING set_config('synchronous_commit', 'off', true)
"""
_FAILED: Final = f"""
WITH c AS (
    INSERT INTO channels AS c (name, failures, fault, failed_at, rests_until) VALUES (
        %(channel)s, 1, %(why)s, clock_timestamp(),
        CASE WHEN %(probing)s OR %(threshold)s <= 1 THEN clock_timestamp() + make_interval(secs => %(rest)s) END)
    ON CONFLICT (name) DO UPDATE SET (failures, fault, failed_at, rests_until, probed_until) = (
        SELECT in_a_row, excluded.fault, excluded.failed_at,
            CASE WHEN %(probing)s OR in_a_row >= %(threshold)s
                THEN clock_timestamp() + make_interval(secs => %(rest)s)
                WHEN {_RECENT} THEN c.rests_until END,
            CASE WHEN NOT %(probing)s THEN c.probed_until END
        FROM (SELECT CASE WHEN {_RECENT} THEN c.failures ELSE 0 END + 1 AS in_a_row) counted)
    RETURNING *
)
SELECT {_STANDING} FROM c LEFT JOIN channels h ON h.name = %(host)s::text
"""
_SUCCEEDED: Final = """
UPDATE channels SET (failures, fault, rests_until, probed_until) = (0, '', NULL, NULL)
WHERE name = %(channel)s AND (failures > 0 OR rests_until IS NOT NULL)
"""
_PROBE: Final = f"""
WITH mine AS (
    UPDATE channels SET probed_until = clock_timestamp() + make_interval(secs => %(seconds)s)
    WHERE name = %(channel)s AND rests_until <= clock_timestamp()
        AND (probed_until IS NULL OR probed_until <= clock_timestamp())
    RETURNING name
)
SELECT EXISTS (SELECT FROM mine), {_STANDING} FROM (VALUES (1)) one {_NAMED}
"""
_RELEASE: Final = "UPDATE channels SET probed_until = NULL WHERE name = %(channel)s"


class SharedLedger:
    """See `transport.ledger.Ledger`: kept in the database for all of an installation.

    Over a connection of its own, opened when first needed, so that nobody waits for the pool; asynchronous, so that an
    answer that never comes can be given up. While the database is away a process waits until what was granted before no
    longer counts, and goes on with a share of every rate.
    """

    def __init__(self, database: Database, clock: Clock = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._alone = LocalLedger(clock, SHARE_ALONE)
        self._away_until = -math.inf
        self._away_since: float | None = None
        self._untold: dict[str, tuple[float, str]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = asyncio.Lock()
        self._connection: DialledAsync | None = None

    async def take(self, key: Key, rate: Rate, wanted: int) -> Grant:
        """See `Ledger`."""
        window = max(1, round(rate.window * 1000))
        slot = max(SHORTEST_SLOT_MS, window // SLOTS)
        row = await self._ask(
            _TAKE, {**_names(key), "wanted": wanted, "most": rate.most, "window": window, "slot": slot}
        )
        if row is None:
            return await self._without(key, rate, wanted)
        requests, wait, *standing = row
        return Grant(requests=requests, lease_for=slot / 1000, wait_for=max(0.0, wait), standing=_standing(standing))

    async def ban(self, host: str, seconds: float, why: str) -> None:
        """See `Ledger`."""
        await self._alone.ban(host, seconds, why)
        if await self._ask(_BAN, {"host": host, "seconds": seconds, "why": why}) is None:
            self._untold[host] = (self._clock() + seconds, why)

    async def failed(self, key: Key, why: str, *, threshold: int, rest: float, probing: bool) -> Standing:
        """See `Ledger`."""
        told = {"why": why, "threshold": threshold, "rest": rest, "probing": probing}
        row = await self._ask(_FAILED, _names(key) | told)
        if row is None:
            return await self._alone.failed(key, why, threshold=threshold, rest=rest, probing=probing)
        return _standing(row)

    async def succeeded(self, key: Key) -> None:
        """See `Ledger`."""
        await self._alone.succeeded(key)
        await self._ask(_SUCCEEDED, _names(key))

    async def probe(self, key: Key, seconds: float) -> Standing | None:
        """See `Ledger`."""
        row = await self._ask(_PROBE, {**_names(key), "seconds": seconds})
        if row is None:
            return await self._alone.probe(key, seconds)
        mine, *standing = row
        return None if mine else _standing(standing)

    async def release(self, key: Key) -> None:
        """See `Ledger`."""
        await self._alone.release(key)
        await self._ask(_RELEASE, _names(key))

    async def aclose(self) -> None:
        """See `Ledger`."""
        self._forget()

    async def _ask(self, statement: str, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """The first row of the answer, empty when there is none to be had; None while the database is away."""
        if asyncio.get_running_loop() is not self._loop:
            # A connection belongs to the event loop it was opened in.
            self._forget()
            self._loop, self._turn = asyncio.get_running_loop(), asyncio.Lock()
        async with self._turn:
            if self._clock() < self._away_until:
                return None
            for again in (self._connection is not None, False):
                try:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        row = await self._answer(statement, values)
                        await self._tell_on()
                except (psycopg.Error, MarketDataError, OSError, TimeoutError) as error:
                    self._forget()
                    if not again:
                        self._do_without(error)
                        return None
                except BaseException:
                    # Cancelled in the middle of an answer, which the next would take for its own.
                    self._forget()
                    raise
                else:
                    self._found_again()
                    return row
        raise AssertionError("unreachable: the last try returns")

    async def _answer(self, statement: str, values: Mapping[str, Any]) -> tuple[Any, ...]:
        if self._connection is None:
            conninfo = await asyncio.to_thread(self._database.conninfo)
            self._connection = await dial_async(make_conninfo(conninfo, application_name=NAME), SESSION)
            self._connection.prepare_threshold = None
        cursor = await self._connection.execute(statement, values)
        return (await cursor.fetchone() or ()) if cursor.description else ()

    async def _without(self, key: Key, rate: Rate, wanted: int) -> Grant:
        """A share of the rate, once nothing counts any more that was granted before the database went away."""
        since = self._clock() if self._away_since is None else self._away_since
        if self._clock() < since + rate.window:
            return Grant(requests=0, wait_for=AWAY_SECONDS, standing=self._alone.standing(key))
        grant = await self._alone.take(key, rate, wanted)
        return replace(grant, wait_for=min(grant.wait_for, AWAY_SECONDS))

    async def _tell_on(self) -> None:
        """Bans that were told while the database was away."""
        for host, (until, why) in list(self._untold.items()):
            seconds = max(0.0, until - self._clock())
            await self._answer(_BAN, {"host": host, "seconds": seconds, "why": why})
            del self._untold[host]

    def _do_without(self, error: Exception) -> None:
        self._away_until = self._clock() + AWAY_SECONDS
        if self._away_since is None:
            self._away_since = self._clock()
            log.warning("channels_not_shared", share=SHARE_ALONE, error=str(error) or type(error).__name__)

    def _found_again(self) -> None:
        if self._away_since is not None:
            self._away_since = None
            log.info("channels_shared_again")

    def _forget(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # At once, whatever it is in the middle of; its event loop may be gone.
            connection.pgconn.finish()


def channel_standings(database: Database) -> dict[str, Standing]:
    """How every channel stands that ever failed or was banned, by name."""
    rows = database.rows(
        f"SELECT c.name, {_STANDING} FROM channels c JOIN channels h ON h.name = c.name ORDER BY c.name"
    )
    return {row.pop("name"): Standing(**row) for row in rows}


def _names(key: Key) -> dict[str, Any]:
    return {"channel": key.channel, "budget": key.budget, "host": key.host}


def _standing(row: Any) -> Standing:
    banned_for, ban, failures, opened, rests_for, fault = row
    return Standing(banned_for=banned_for, ban=ban, failures=failures, opened=opened, rests_for=rests_for, fault=fault)
