"""Instrument lists folded into intervals: lists written by hand, month after month, with what must follow."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

from market_data.model.instrument import AssetClass, Instrument
from market_data.pipeline.fetch.listings import Fold, fold
from market_data.storage.facts.instruments import Interval

JANUARY, FEBRUARY, MARCH = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3))
LISTED = datetime(2020, 5, 4, tzinfo=UTC)
ENDED = datetime(2025, 6, 9, tzinfo=UTC)


def called(raw: str, symbol: str, start: datetime | None = None, end: datetime | None = None) -> Interval:
    return Interval("source", raw, Instrument(symbol, AssetClass.STOCK), "XNYS", start, end)


class Desk:
    """Intervals as the database would hold them after each list."""

    def __init__(self) -> None:
        self.stored: list[Interval] = []

    def hear(self, now: datetime, *listed: Interval, complete: bool = True) -> Fold:
        found = fold(self.stored, listed, now, complete=complete)
        changed = {(each.raw_symbol, each.key): each for each in found.changed}
        kept = [changed.get((each.raw_symbol, each.key), each) for each in self.stored]
        stored = [*kept, *found.added]
        self.stored = [
            replace(each, key=(each.instrument.symbol, each.instrument.asset_class.value, each.valid_from))
            for each in stored
        ]
        return found

    @property
    def said(self) -> set[tuple[str, str, datetime | None, datetime | None]]:
        return {(each.raw_symbol, each.instrument.symbol, each.valid_from, each.valid_to) for each in self.stored}


def test_the_same_list_again_changes_nothing() -> None:
    desk = Desk()
    listed = [called("KO", "KO"), called("PEP", "PEP", LISTED), called("OLD", "OLD", None, ENDED)]
    assert len(desk.hear(JANUARY, *listed).added) == 3
    again = desk.hear(FEBRUARY, *listed)
    assert (again.added, again.changed, again.unchanged) == ([], [], 3)
    assert desk.said == {("KO", "KO", None, None), ("PEP", "PEP", LISTED, None), ("OLD", "OLD", None, ENDED)}


def test_a_rename_closes_the_old_name_where_the_new_one_begins() -> None:
    desk = Desk()
    desk.hear(JANUARY, called("LUNAUSDT", "LUNA"), called("BTCUSDT", "BTC"))
    desk.hear(FEBRUARY, called("LUNA2USDT", "LUNA"), called("BTCUSDT", "BTC"))
    expected = {("LUNAUSDT", "LUNA", None, FEBRUARY), ("LUNA2USDT", "LUNA", FEBRUARY, None)}
    assert desk.said == expected | {("BTCUSDT", "BTC", None, None)}
    assert desk.hear(MARCH, called("LUNA2USDT", "LUNA"), called("BTCUSDT", "BTC")).unchanged == 2


def test_a_rename_whose_day_the_source_tells_happens_on_that_day() -> None:
    desk = Desk()
    day = datetime(2026, 1, 20, tzinfo=UTC)
    desk.hear(JANUARY, called("LUNAUSDT", "LUNA", LISTED))
    desk.hear(FEBRUARY, called("LUNA2USDT", "LUNA", day))
    assert desk.said == {("LUNAUSDT", "LUNA", LISTED, day), ("LUNA2USDT", "LUNA", day, None)}


def test_a_delisting_closes_on_the_day_the_source_says_or_when_it_is_gone() -> None:
    desk = Desk()
    desk.hear(JANUARY, called("TWTR", "TWTR", LISTED), called("FRC", "FRC"), called("KO", "KO"))
    desk.hear(FEBRUARY, called("TWTR", "TWTR", LISTED, ENDED), called("KO", "KO"))
    assert desk.said == {("TWTR", "TWTR", LISTED, ENDED), ("FRC", "FRC", None, FEBRUARY), ("KO", "KO", None, None)}
    assert desk.hear(MARCH, called("TWTR", "TWTR", LISTED, ENDED), called("KO", "KO")).unchanged == 2


def test_a_raw_symbol_that_comes_to_mean_another_instrument_begins_anew() -> None:
    desk = Desk()
    desk.hear(JANUARY, called("XUSDT", "OLDX", LISTED))
    desk.hear(FEBRUARY, called("XUSDT", "NEWX"))
    assert desk.said == {("XUSDT", "OLDX", LISTED, FEBRUARY), ("XUSDT", "NEWX", FEBRUARY, None)}
    assert desk.hear(MARCH, called("XUSDT", "NEWX")).unchanged == 1


def test_a_symbol_given_to_another_company_has_two_lives() -> None:
    desk = Desk()
    # Until 2025 one company, now another; the source lists both under one name and tells only the end.
    listed = [called("META", "META"), called("META", "META", None, ENDED)]
    desk.hear(JANUARY, *listed)
    assert desk.said == {("META", "META", None, ENDED), ("META", "META", ENDED, None)}
    assert desk.hear(FEBRUARY, *listed).unchanged == 2
    # The same when we knew the first one while it lived.
    late = Desk()
    late.hear(datetime(2025, 1, 1, tzinfo=UTC), called("META", "META"))
    late.hear(JANUARY, *listed)
    assert late.said == desk.said


def test_one_that_is_listed_again_later_has_a_new_interval() -> None:
    desk = Desk()
    desk.hear(JANUARY, called("UST", "UST", LISTED, ENDED))
    desk.hear(FEBRUARY, called("UST", "UST"))
    # All that is known is that it was not listed between its end and now.
    assert desk.said == {("UST", "UST", LISTED, ENDED), ("UST", "UST", ENDED, None)}
    relisted = Desk()
    relisted.hear(JANUARY, called("AAUSDT", "AA", LISTED))
    relisted.hear(FEBRUARY, called("AAUSDT", "AA", ENDED))
    assert relisted.said == {("AAUSDT", "AA", LISTED, ENDED), ("AAUSDT", "AA", ENDED, None)}


def test_who_took_a_name_over_before_we_came_begins_where_the_other_ended() -> None:
    desk = Desk()
    desk.hear(JANUARY, called("X", "NEWX"))
    desk.hear(FEBRUARY, called("X", "NEWX"), called("X", "OLDX", LISTED, ENDED))
    assert desk.said == {("X", "OLDX", LISTED, ENDED), ("X", "NEWX", ENDED, None)}


def test_the_day_a_source_tells_replaces_the_one_we_noticed() -> None:
    desk = Desk()
    desk.hear(JANUARY, called("FRC", "FRC"), called("KO", "KO"))
    desk.hear(FEBRUARY, called("KO", "KO"))
    desk.hear(MARCH, called("KO", "KO"), called("FRC", "FRC", None, ENDED))
    assert desk.said == {("FRC", "FRC", None, ENDED), ("KO", "KO", None, None)}
    # An older life of the same name is one of its own.
    older = datetime(2010, 1, 4, tzinfo=UTC)
    desk.hear(MARCH, called("KO", "KO"), called("FRC", "FRC", None, ENDED), called("FRC", "FRC", None, older))
    assert desk.said == {("FRC", "FRC", None, older), ("FRC", "FRC", older, ENDED), ("KO", "KO", None, None)}


def test_a_part_of_a_list_closes_nothing_and_a_list_cut_short_is_not_believed() -> None:
    desk = Desk()
    everything = [called(f"S{number}", f"S{number}") for number in range(100)]
    desk.hear(JANUARY, *everything)
    assert desk.hear(FEBRUARY, everything[0], complete=False).changed == []
    short = desk.hear(FEBRUARY, *everything[:40])
    assert (short.changed, short.kept_open) == ([], 60)
    assert len(desk.hear(FEBRUARY, *everything[:60]).changed) == 40


def test_what_a_source_tells_later_completes_what_is_stored() -> None:
    desk = Desk()
    desk.hear(JANUARY, called("KO", "KO"))
    assert len(desk.hear(FEBRUARY, called("KO", "KO", LISTED)).changed) == 1
    assert desk.said == {("KO", "KO", LISTED, None)}
    assert desk.hear(MARCH, called("KO", "KO")).unchanged == 1
    assert desk.said == {("KO", "KO", LISTED, None)}


def test_lives_of_a_raw_symbol_never_overlap() -> None:
    desk = Desk()
    lists = [
        [called("A", "A"), called("B", "B", LISTED)],
        [called("A", "B"), called("B", "A")],
        [called("A", "A", None, ENDED), called("A", "C"), called("B", "A")],
        [called("B", "B"), called("A", "C", MARCH)],
    ]
    for month, listed in enumerate(lists, 1):
        desk.hear(datetime(2026, month, 2, tzinfo=UTC), *listed)
        for raw in ("A", "B"):
            lives = sorted(
                (each.valid_from or datetime.min.replace(tzinfo=UTC), each.valid_to or datetime.max.replace(tzinfo=UTC))
                for each in desk.stored
                if each.raw_symbol == raw
            )
            assert all(start < end for start, end in lives)
            assert all(first[1] <= second[0] for first, second in pairwise(lives))
            assert sum(end.year == 9999 for _, end in lives) == 1
