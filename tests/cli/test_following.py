"""What a person sees of jobs: bars on a terminal, what failed once, and who it failed for."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from uuid import uuid4

import pytest

from market_data.cli.following import bars, failures, troubles
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.job import Kind, PartState, Status, Task
from market_data.model.timeframe import Timeframe


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def part(symbol: str, status: Status, **fields: object) -> PartState:
    task = Task(kind=Kind.BACKFILL, instrument=Instrument(symbol, AssetClass.CRYPTO), timeframe=Timeframe.H1)
    return replace(PartState(number=0, run_id=uuid4(), task=task, status=status), **fields)  # type: ignore[arg-type]


def test_bars_from_nothing_known_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    done = part("BTC", Status.COMPLETED)
    with bars() as show:
        show([])
        show([part("BTC", Status.QUEUED), part("ETH", Status.QUEUED)])
        for rows in (0, 500, 1000):
            show([part("BTC", Status.IN_PROGRESS, done=rows, expected=2000), part("ETH", Status.QUEUED)])
        show([done, part("ETH", Status.IN_PROGRESS, done=None, expected=50)])
        show([done, part("ETH", Status.FAILED, error="no")])
    seen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert re.search(r"all parts +\S* *2/2", seen), seen


def test_a_failure_is_said_once_with_those_it_failed() -> None:
    refused = "polygon: not in your plan; upgrade it"
    parts = [part(symbol, Status.FAILED, error=refused, notes=[refused]) for symbol in "ABCDEF"]
    parts.append(part("G", Status.COMPLETED, notes=["binance: took a while"]))
    assert failures(parts) == [f"A 1h, B 1h, C 1h, D 1h and 2 more: {refused}"]
    assert troubles(parts) == ["note: binance: took a while"]
