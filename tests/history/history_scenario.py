"""One rich write, the same every time: run as a program it is killed at the step it is told."""

from __future__ import annotations

import sys
from typing import Any

from history_desk import Desk
from history_steps import killing_at, stepping

from market_data.bootstrap.shelves import open_shelves
from market_data.storage.series.present import Counts
from market_data.storage.server.database import Database


def prepare(desk: Desk) -> None:
    """What is stored before: 80 candles of one source, some more of a lesser one."""
    desk.offer([desk.candle(i, str(100 + i % 9)) for i in range(80)])
    desk.offer([desk.candle(i, "103", taker_buy_volume=None) for i in range(78, 95)], "yahoo")


def act(desk: Desk) -> Counts:
    """Corrects 5 candles, takes 15 over from the lesser source, repeats 3, adds 5, has one refused."""
    rows: list[dict[str, Any]] = [desk.candle(i, str(110 + i % 5)) for i in range(70, 75)]
    rows += [desk.candle(i, str(100 + i % 9)) for i in range(75, 78)]
    rows += [desk.candle(i, str(120 + i % 3)) for i in range(80, 100)]
    rows += [desk.candle(100, high="1")]
    return desk.offer(rows).counts


ACTED = Counts(inserted=5, updated=20, unchanged=3, rejected=1)


def main(url: str, step: int) -> None:
    """Do the write and die at a step."""
    with Database.open(url, None) as database:
        desk = Desk(database, open_shelves())
        prepare_time(desk)
        with stepping(database, killing_at(step)):
            act(desk)


def prepare_time(desk: Desk) -> None:
    """Set the clock to when the scenario's write happens."""
    from datetime import timedelta

    desk.now += timedelta(minutes=2)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
