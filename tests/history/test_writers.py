"""Eight writers at once over the same series: nothing lost, nothing twice, and nobody is told of a deadlock."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from history_desk import Desk, content
from history_writer import write_for

from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe
from market_data.pipeline.write.derive import Shelves
from market_data.storage.server.database import Database

WRITERS = 8
BTC = Instrument("BTC", AssetClass.CRYPTO)
BOTH = (Series(BTC, Timeframe.H1), Series(BTC, Timeframe.M30))


def check(database: Database, shelves: Shelves) -> int:
    """Every series is what its own history says, to the bit; returns how many corrections were made."""
    total = 0
    for series in BOTH:
        desk = Desk(database, shelves, series)
        present = desk.present()
        assert present["timestamp"].is_unique().all()
        moment = database.rows("SELECT max(moment) AS moment FROM series_moments")[0]["moment"]
        assert content(desk.known(moment)).equals(content(present))
        rows = database.rows(
            "SELECT timestamp, revision, old_value, new_value FROM data_corrections WHERE timeframe = %s "
            "AND field_corrected = 'close' ORDER BY timestamp, revision",
            [series.timeframe.value],
        )
        by_time: dict[Any, list[dict[str, Any]]] = {}
        for row in rows:
            by_time.setdefault(row["timestamp"], []).append(row)
        for found in present.select("timestamp", "revision", "close").iter_rows(named=True):
            made = by_time.get(found["timestamp"], [])
            # Each correction begins where the one before it ended, and the last is what stands.
            assert [row["revision"] for row in made] == list(range(2, found["revision"] + 1))
            assert all(a["new_value"] == b["old_value"] for a, b in pairwise(made))
            if made:
                assert float(made[-1]["new_value"]) == float(found["close"])
            total += len(made)
    return total


def test_eight_threads_of_one_program(database: Database, shelves: Shelves) -> None:
    errors: list[Exception] = []

    def write(number: int) -> None:
        try:
            write_for(database, shelves, BOTH, random.Random(number), 3.0)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert check(database, shelves) > 0


@pytest.mark.prove
def test_eight_programs_for_a_minute(database: Database, database_url: str, shelves: Shelves) -> None:
    script = Path(__file__).with_name("history_writer.py")
    writers = [
        subprocess.Popen(
            [sys.executable, str(script), database_url, str(number), "60"], stdout=subprocess.PIPE, text=True
        )
        for number in range(WRITERS)
    ]
    started = time.monotonic()
    batches = 0
    for writer in writers:
        said, _ = writer.communicate(timeout=180)
        assert writer.returncode == 0
        batches += int(said)
    print(
        f"{batches} batches of {WRITERS} writers in {time.monotonic() - started:.0f} s, "
        f"{check(database, shelves)} corrections"
    )


def test_as_many_writers_as_pooled_connections_do_not_starve_each_other(
    database_url: str, shelves: Shelves, new_desk: Callable[..., Desk]
) -> None:
    with Database.open(database_url, None, pool_size=2) as narrow:
        desks = [new_desk(narrow) for _ in range(2)]
        threads = [
            threading.Thread(target=lambda desk=desk: desk.offer([desk.candle(i) for i in range(20)])) for desk in desks
        ]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - started < 15
        assert desks[0].present().height == 20
