"""A disk that fills up in the middle of an ingest: the caller is told, nothing is half, and it goes on afterwards."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from history_desk import Desk, content, state

from market_data.model.errors import DiskFull
from market_data.pipeline.write.derive import Shelves
from market_data.storage.series.present import Counts
from market_data.storage.server.database import Database
from market_data.storage.server.migrate import upgrade

CANDLES = 50_000
ROOM_BYTES = 24 * 2**20


@pytest.fixture
def small_disk(data_home: Path) -> Iterator[Path]:
    """A file system of 400 MB."""
    folder = data_home / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up_during_an_ingest(small_disk: Path, shelves: Shelves) -> None:
    with Database.open(None, small_disk, server_settings={"min_wal_size": "'192MB'"}) as database:
        upgrade(database)
        # Room for its log of changes is put aside: without it the server would end before the tables are full.
        for _ in range(12):
            database.rows("SELECT pg_logical_emit_message(false, 'any', 'thing'), pg_switch_wal()")
        database.rows("CHECKPOINT")
        desk = Desk(database, shelves)
        desk.offer([desk.candle(i) for i in range(100)])
        before, told = state(database), desk.present()
        (small_disk / "ballast").write_bytes(b"\0" * (shutil.disk_usage(small_disk).free - ROOM_BYTES))
        rows = desk.frame([desk.candle(i) for i in range(50 - CANDLES, 50)])
        offered_at = desk.now
        with pytest.raises(DiskFull, match="No space is left"):
            desk.offer(rows)
        assert state(database) == before
        desk.now = offered_at
        # What is small enough still goes through.
        assert desk.offer([desk.candle(i) for i in range(90, 110)]).counts == Counts(inserted=10, unchanged=10)
        assert content(desk.present())[:100].equals(content(told))
