"""Numbers and times as people and machines read them; expected texts are written by hand."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console

from market_data.cli.arguments import parse_moment
from market_data.cli.chart import price_chart, sparkline
from market_data.cli.figures import column, jsonable, seconds, shown
from market_data.cli.output import print_rows
from market_data.model.instrument import AssetClass


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (Decimal("12345.670000000000000000"), "12,345.67"),
        (Decimal("0.000000123"), "0.000000123"),
        (Decimal("1E+3"), "1,000"),
        (Decimal("0E-18"), "0"),
        (1.5, "1.5"),
        (-0.25, "-0.25"),
        (0.0, "0"),
        (12345.678901, "12,345.7"),
        (1234567890.4, "1,234,567,890"),
        (0.0123456789, "0.0123457"),
        (0.00001234, "1.23e-05"),
        (datetime(2024, 1, 31, 13, 30, tzinfo=UTC), "2024-01-31 13:30"),
        (datetime(2024, 1, 31, 13, 30, 5, tzinfo=UTC), "2024-01-31 13:30:05"),
        (date(2024, 1, 31), "2024-01-31"),
        (["a", "b"], "a, b"),
        ([], "–"),
        (AssetClass.ETF, "etf"),
    ],
)
def test_shown(value: Any, expected: str) -> None:
    assert shown(value) == expected


def test_points_of_a_column_stand_below_each_other() -> None:
    assert column([Decimal("1.5"), None, Decimal("1200.125")]) == ["1.500", "–", "1,200.125"]
    assert column([Decimal(100), Decimal(20)]) == ["100", "20"]


@pytest.mark.parametrize(("value", "expected"), [(0.4249, "0.42 s"), (59.99, "59.99 s"), (185.0, "3 min 05 s")])
def test_seconds(value: float, expected: str) -> None:
    assert seconds(value) == expected


def test_jsonable() -> None:
    value = {
        "price": Decimal("7293.100000000000000000"),
        "tiny": Decimal("1E-8"),
        "none": None,
        "nan": float("nan"),
        "at": datetime(2024, 1, 31, 13, 30, tzinfo=UTC),
        "day": date(2024, 1, 31),
        "many": (AssetClass.ETF, 1, 0.5, True),
        "id": UUID(int=1),
    }
    assert jsonable(value) == {
        "price": "7293.1",
        "tiny": "0.00000001",
        "none": None,
        "nan": None,
        "at": "2024-01-31T13:30:00Z",
        "day": "2024-01-31",
        "many": ["etf", 1, 0.5, True],
        "id": "00000000-0000-0000-0000-000000000001",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-31", datetime(2024, 1, 31, tzinfo=UTC)),
        ("2024-01-31T13:30:00Z", datetime(2024, 1, 31, 13, 30, tzinfo=UTC)),
        ("2024-01-31t13:30:00z", datetime(2024, 1, 31, 13, 30, tzinfo=UTC)),
        ("2024-01-31 13:30Z", datetime(2024, 1, 31, 13, 30, tzinfo=UTC)),
        ("2024-01-31T13:30:00.5-05:00", datetime(2024, 1, 31, 18, 30, 0, 500000, tzinfo=UTC)),
        ("2024-02-29", datetime(2024, 2, 29, tzinfo=UTC)),
    ],
)
def test_moments(text: str, expected: datetime) -> None:
    moment = parse_moment(text, "--start")
    assert moment == expected
    assert moment is not None
    assert moment.tzinfo is UTC


def test_chart_of_a_rising_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("market_data.cli.chart._has_braille", lambda: True)
    times = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=day) for day in range(3)]
    lines = price_chart(times, [1.0, 2.0, 3.0], 36, height=3).splitlines()
    # Three thirds of one straight line: each line of the chart holds one, left to right from the bottom.
    assert [line[:6] for line in lines[:3]] == ["3.00 ┤", "2.00 ┤", "1.00 ┤"]
    bottom, middle, top = ([x for x, cell in enumerate(line[6:]) if cell != "\u2800"] for line in reversed(lines[:3]))
    assert (bottom[0], top[-1]) == (0, 29)
    assert bottom[-1] <= middle[0] + 1
    assert middle[-1] <= top[0] + 1
    assert sorted({*bottom, *middle, *top}) == list(range(30))
    assert lines[3] == "      2024-01-01          2024-01-03"


def test_chart_of_a_flat_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("market_data.cli.chart._has_braille", lambda: True)
    times = [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)]
    # Of twelve rows of dots the seventh: the third of the middle line, both columns of it.
    lines = price_chart(times, [5.0, 5.0], 16, height=3).splitlines()
    assert lines[:3] == ["5.00 ┤", "5.00 ┤" + "⠤" * 10, "5.00 ┤"]


def test_sparkline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("market_data.cli.chart._has_braille", lambda: True)
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8], width=8) == "▁▂▃▄▅▆▇█"
    assert sparkline([5.0, 5.0], width=2) == "▄▄"
    assert sparkline([1.0]) == ""


def test_a_narrow_terminal_cuts_no_value(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("market_data.cli.output.console", lambda: Console(width=20, file=sys.stdout))
    print_rows(None, [{"first": 1234567, "second": Decimal("1234567.25"), "third": 7654321, "name": "a name to fold"}])
    text = capsys.readouterr().out
    assert {"1,234,567", "1,234,567.25", "7,654,321"} <= set(text.split())
    assert "".join(text.split()).endswith("anametofold")


def test_no_chart_where_the_terminal_has_no_braille(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("market_data.cli.chart._has_braille", lambda: False)
    assert price_chart([datetime(2024, 1, 1, tzinfo=UTC)] * 2, [1.0, 2.0], 80) == ""
