"""The way back from an upgrade, as docs/operations.md describes it: backup, newer schema, refusal, restore, and on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from market_data.model.errors import SchemaMismatch
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.job import Status
from market_data.model.timeframe import Timeframe
from market_data.storage.server import migrate
from market_data.storage.server.backup import back_up
from market_data.storage.server.database import Database
from market_data.storage.server.restore import restore

BTC = Instrument("BTC", AssetClass.CRYPTO)


async def test_back_to_the_old_program_with_a_backup(opened, empty_database_url: str, tmp_path: Path) -> None:
    span = {"start": datetime(2019, 9, 1, tzinfo=UTC), "end": datetime(2019, 9, 11, tzinfo=UTC)}
    async with opened() as app:
        done = app.jobs.trigger([BTC], [Timeframe.D1], **span)
        await asyncio.wait_for(app.worker().run(wait=False), 60)
        waiting = app.jobs.trigger([BTC], [Timeframe.H1], **span)
        before = app.database.rows("SELECT * FROM market_data_v2 ORDER BY timestamp")
        back_up(app.database, tmp_path / "before.dump")

        # What a newer program's migration may do.
        with app.database.transaction() as connection:
            connection.execute("CREATE TABLE things_to_come (id bigint PRIMARY KEY)")
            connection.execute("ALTER TABLE candles ADD COLUMN yet_unknown text")
            connection.execute("ALTER TABLE job_parts RENAME COLUMN notes TO remarks")
            connection.execute("UPDATE market_data_schema SET version_num = '9999'")
        with pytest.raises(SchemaMismatch, match="newer than"):
            migrate.upgrade(app.database)

    with Database.open(empty_database_url, None) as fresh:
        restore(fresh, tmp_path / "before.dump")
    async with opened(database__url=empty_database_url) as app:
        assert migrate.upgrade(app.database).applied == ()
        assert app.database.rows("SELECT * FROM market_data_v2 ORDER BY timestamp") == before
        await asyncio.wait_for(app.worker().run(wait=False), 60)
        for receipt, rows in ((done, 10), (waiting, 240)):
            job = app.jobs.job(receipt.job_id)
            assert job is not None
            assert (job.status, job.parts[0].counts["inserted"]) == (Status.COMPLETED, rows)
