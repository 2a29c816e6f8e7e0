"""What our parsers make of recorded answers is what was recorded, value by value, counted by source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from conformance_table import CHECKS, lines
from conformance_tally import MOST_SHOWN, Tally

from market_data.model.dataset import CANDLES

FOUND: dict[str, Sequence[Tally]] = {}


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    print("", *lines(FOUND), sep="\n")


@pytest.mark.parametrize("name", CHECKS)
def test_parsed_values_are_the_recorded_ones(
    name: str, recordings: Path, record_property: Callable[[str, object], None]
) -> None:
    folder = recordings / name
    if not folder.is_dir():
        pytest.skip(f"CONFORMANCE NOT CHECKED: no recording {folder} (set MARKET_DATA_RECORDINGS)")
    if name == "openbb_deribit":
        pytest.importorskip("ccxt", reason="CONFORMANCE NOT CHECKED: the library ccxt is absent")
    FOUND[name] = CHECKS[name](folder)
    values = sum(tally.values for tally in FOUND[name])
    differing = [what for tally in FOUND[name] for what in tally.differing]
    record_property(f"{name}: values compared", values)
    record_property(f"{name}: values equal", values - len(differing))
    assert values > 0, f"nothing in {folder} was compared"
    assert differing[:MOST_SHOWN] == []


def test_a_value_that_is_not_as_recorded_is_counted() -> None:
    tally, frame = Tally("candles"), CANDLES.empty()
    tally.compare("here", [{"close": 1.5}], [{"close": 1.25, "open": None}])
    tally.compare("there", frame, [{"close": 1}])
    assert (tally.rows, tally.values, len(tally.differing)) == (2, 2, 2)
