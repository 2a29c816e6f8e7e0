"""The write rules of DESIGN §5, one by one, against a real database; expectations are written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe
from market_data.storage.series.present import Counts
from market_data.storage.server.database import Database

Written = list[tuple[Any, ...]]
CORRECTIONS = "timestamp, revision, field_corrected, old_value, new_value, reason, source, corrected_by"


def corrections(desk: Any) -> Written:
    return desk.table("data_corrections", CORRECTIONS, "id")


def facts(desk: Any) -> Written:
    rows = desk.table("candles", "timestamp, source, close, chosen, reason", "timestamp, known_from")
    return [(moment, source, close.normalize(), chosen, reason) for moment, source, close, chosen, reason in rows]


def disputes(desk: Any) -> Written:
    rows = desk.table("disagreements", "timestamp, field, source_a, value_a, source_b, value_b", "id")
    return [(*row[:3], row[3].normalize(), row[4], row[5].normalize()) for row in rows]


def writes(connection: Any) -> dict[str, int]:
    """Rows inserted, updated and deleted so far, by table."""
    connection.execute("SELECT pg_stat_clear_snapshot()")
    found = connection.execute(
        "SELECT regexp_replace(relname, '_y[0-9]+$', ''), sum(n_tup_ins + n_tup_upd + n_tup_del)::int "
        "FROM pg_stat_user_tables GROUP BY 1"
    )
    return dict(found.fetchall())


def versions(database: Database) -> Written:
    """What PostgreSQL itself says of each row: where it lies and who wrote it."""
    return [
        tuple(row.values())
        for table in ("candles", "market_data_v2", "data_corrections", "disagreements", "series_moments")
        for row in database.rows(f"SELECT '{table}', ctid::text, xmin::text, cmin::text FROM {table} ORDER BY ctid")
    ]


def test_999_good_rows_with_a_repeated_and_a_bad_one(desk: Any) -> None:
    rows = [desk.candle(i) for i in range(999)]
    rows += [desk.candle(500), desk.candle(999, high="1")]
    outcome = desk.offer(rows)
    assert outcome.counts == Counts(inserted=999, unchanged=1, rejected=1)
    assert outcome.counts.fetched == 1001
    assert desk.present()["timestamp"].to_list() == [desk.at(i) for i in range(999)]
    ((moment, rule, payload, resolved),) = desk.table("quarantine", "timestamp, rule, payload, resolved_at", "id")
    assert (moment, rule, resolved) == (desk.at(999), "high_too_low", None)
    assert Decimal(payload["high"]) == 1
    log = desk.table(
        "enrichment_fetch_log",
        "records_fetched, records_inserted, records_updated, records_unchanged, records_kept, records_rejected",
        "id",
    )
    assert log == [(1001, 999, 0, 1, 0, 1)]


def test_of_two_rows_that_contradict_each_other_the_first_is_stored_and_the_second_kept_aside(desk: Any) -> None:
    outcome = desk.offer([desk.candle(0, "100"), desk.candle(0, "101"), desk.candle(1)])
    assert outcome.counts == Counts(inserted=2, rejected=1)
    assert [(row[2], row[3]) for row in facts(desk)] == [(Decimal(100), True), (Decimal(100), True)]
    assert desk.table("quarantine", "rule, payload ->> 'close'", "id") == [
        ("duplicate_timestamp", "101.000000000000000000")
    ]


def test_a_bad_row_does_not_take_the_place_of_the_good_one_after_it(desk: Any) -> None:
    outcome = desk.offer([desk.candle(0, high="1"), desk.candle(0, "101")])
    assert outcome.counts == Counts(inserted=1, rejected=1)
    assert facts(desk) == [(desk.at(0), "binance", Decimal(101), True, None)]
    assert desk.table("quarantine", "rule", "id") == [("high_too_low",)]


def test_rows_that_lack_a_value_or_the_grid_lose_nobody_else(desk: Any) -> None:
    rows = [
        desk.candle(0),
        desk.candle(1, close=None),
        desk.candle(2) | {"timestamp": None},
        desk.candle(3) | {"timestamp": desk.at(3) + timedelta(minutes=1)},
        desk.candle(4),
    ]
    outcome = desk.offer(rows)
    assert outcome.counts == Counts(inserted=2, rejected=3)
    assert sorted(desk.table("quarantine", "rule", "id")) == [
        ("off_grid",),
        ("value_missing",),
        ("value_missing, off_grid",),
    ]


def test_the_same_again_writes_nothing(desk: Any) -> None:
    rows = [desk.candle(i, str(100 + i % 7)) for i in range(200)]
    desk.offer(rows)
    desk.offer([desk.candle(5, "99")], "yahoo")
    before, versions_before = desk.present(), versions(desk.database)
    again = desk.offer(rows)
    kept_again = desk.offer([desk.candle(5, "99")], "yahoo")
    assert (again.counts, kept_again.counts) == (Counts(unchanged=200), Counts(unchanged=1))
    assert desk.present().equals(before)
    assert versions(desk.database) == versions_before


def test_server_counts_no_write_for_the_same_again(desk: Any) -> None:
    rows = [desk.candle(i) for i in range(100)]
    desk.offer(rows)
    counted = []
    for _ in range(2):
        for _pooled in range(12):  # every pooled connection reports its own work, when asked
            with desk.database.transaction() as connection:
                connection.execute("SELECT pg_stat_force_next_flush()")
        with desk.database.transaction() as connection:
            counted.append(writes(connection))
        desk.offer(rows)
    assert counted[0]["candles"] >= 100
    for table in ("candles", "market_data_v2", "data_corrections", "disagreements", "quarantine", "series_moments"):
        assert counted[0][table] == counted[1][table], table


def test_values_that_differ_in_scale_only_are_the_same(desk: Any) -> None:
    desk.offer([desk.candle(0, "100.5", volume="10")])
    assert desk.offer([desk.candle(0, "100.500", volume="10.0000")]).counts == Counts(unchanged=1)
    assert desk.offer([desk.candle(0, "100.500000000000000001")]).counts == Counts(updated=1)


def test_a_source_that_corrects_itself(desk: Any) -> None:
    desk.offer([desk.candle(i) for i in range(3)])
    outcome = desk.offer([desk.candle(1, "101.50", volume="11", trade_count=7)])
    assert outcome.counts == Counts(updated=1)
    row = desk.present().row(1, named=True)
    assert (row["close"], row["volume"], row["trade_count"], row["revision"], row["amended_from"], row["source"]) == (
        Decimal("101.5"),
        Decimal(11),
        7,
        2,
        1,
        "binance",
    )
    assert desk.present()["revision"].to_list() == [1, 2, 1]
    moment, who = desk.at(1), ("source_updated", "binance", "enrich")
    assert corrections(desk) == [
        (moment, 2, "close", "100", "101.5", *who),
        (moment, 2, "volume", "10", "11", *who),
        (moment, 2, "trade_count", None, "7", *who),
    ]
    assert facts(desk)[1:3] == [
        (moment, "binance", Decimal(100), True, None),
        (moment, "binance", Decimal("101.5"), True, "source_updated"),
    ]
    assert disputes(desk) == []


def test_a_source_that_takes_its_correction_back(desk: Any) -> None:
    for close in ("100", "101", "100"):
        desk.offer([desk.candle(0, close)])
    assert [row[2] for row in facts(desk)] == [Decimal(100), Decimal(101), Decimal(100)]
    assert desk.present()["revision"].to_list() == [3]


def test_a_better_source_takes_over_and_says_so(desk: Any) -> None:
    desk.offer([desk.candle(0, taker_buy_volume=None)], "yahoo")
    outcome = desk.offer([desk.candle(0, "101")], "binance")
    assert outcome.counts == Counts(updated=1)
    assert corrections(desk) == [
        (desk.at(0), 2, "close", "100", "101", "better_source", "binance", "enrich"),
        (desk.at(0), 2, "taker_buy_volume", None, "4", "better_source", "binance", "enrich"),
    ]
    assert disputes(desk) == [(desk.at(0), "close", "binance", Decimal(101), "yahoo", Decimal(100))]
    row = desk.present().row(0, named=True)
    assert (row["source"], row["revision"], row["validation_notes"]) == ("binance", 2, "source_disagreement")


def test_a_source_no_better_is_kept_aside_and_the_disagreement_lowers_the_score(desk: Any) -> None:
    desk.offer([desk.candle(0)], "binance")
    before = desk.present().row(0, named=True)
    outcome = desk.offer([desk.candle(0, "101", taker_buy_volume=None)], "yahoo")
    assert outcome.counts == Counts(kept=1)
    after = desk.present().row(0, named=True)
    assert (after["close"], after["source"], after["revision"]) == (Decimal(100), "binance", 1)
    assert (before["validation_notes"], after["validation_notes"]) == (None, "source_disagreement")
    assert after["quality_score"] < before["quality_score"]
    assert disputes(desk) == [(desk.at(0), "close", "binance", Decimal(100), "yahoo", Decimal(101))]
    assert corrections(desk) == []
    assert facts(desk)[1] == (desk.at(0), "yahoo", Decimal(101), False, None)


def test_a_source_that_agrees_is_on_record_and_changes_nothing(desk: Any) -> None:
    desk.offer([desk.candle(0, taker_buy_volume=None)], "yahoo", late_seconds=0)
    before = desk.present()
    outcome = desk.offer([desk.candle(0, taker_buy_volume=None)], "binance")
    assert outcome.counts == Counts(kept=1)
    assert desk.present().equals(before)
    assert (disputes(desk), corrections(desk)) == ([], [])
    assert desk.offer([desk.candle(0, taker_buy_volume=None)], "binance").counts == Counts(unchanged=1)


def test_a_kept_source_that_corrects_itself_is_still_kept(desk: Any) -> None:
    desk.offer([desk.candle(0)], "binance")
    desk.offer([desk.candle(0, "101")], "yahoo")
    assert desk.offer([desk.candle(0, "102")], "yahoo").counts == Counts(kept=1)
    assert desk.offer([desk.candle(0, "102")], "yahoo").counts == Counts(unchanged=1)
    assert [(row[1], row[2], row[3]) for row in facts(desk)] == [
        ("binance", Decimal(100), True),
        ("yahoo", Decimal(101), False),
        ("yahoo", Decimal(102), False),
    ]
    assert len(disputes(desk)) == 2


def test_a_source_that_lost_may_correct_itself_without_coming_back(desk: Any) -> None:
    desk.offer([desk.candle(0, taker_buy_volume=None)], "yahoo")
    desk.offer([desk.candle(0, "101")], "binance")
    assert desk.offer([desk.candle(0, "102", taker_buy_volume=None)], "yahoo").counts == Counts(kept=1)
    assert desk.present()["close"].to_list() == [Decimal(101)]


def test_an_empty_page(desk: Any) -> None:
    assert desk.offer([]).counts == Counts()
    assert desk.table("enrichment_fetch_log", "records_fetched, success", "id") == [(0, True)]
    assert facts(desk) == []


def test_across_a_year_and_into_a_year_without_partition(database: Database, new_desk: Callable[..., Any]) -> None:
    desk = new_desk(database)
    desk.offer([desk.candle(i) for i in range(24)])  # from noon of New Year's Eve
    found = database.rows("SELECT tableoid::regclass::text AS part, count(*) AS n FROM candles GROUP BY 1 ORDER BY 1")
    assert found == [{"part": "candles_y2024", "n": 12}, {"part": "candles_y2025", "n": 12}]
    desk.offer([desk.candle(11, "101"), desk.candle(12, "101")])
    assert desk.present()["revision"].to_list() == [1] * 11 + [2, 2] + [1] * 11
    early = desk.candle(0) | {"timestamp": datetime(2003, 5, 1, tzinfo=UTC)}
    assert desk.offer([early]).counts == Counts(inserted=1)


def test_two_series_do_not_mix(database: Database, new_desk: Callable[..., Any]) -> None:
    hours = new_desk(database)
    eth = new_desk(database, Series(Instrument("ETH", AssetClass.CRYPTO), Timeframe.H1))
    minutes = new_desk(database, Series(Instrument("BTC", AssetClass.CRYPTO), Timeframe.M1))
    for desk in (hours, eth, minutes):
        assert desk.offer([desk.candle(0), desk.candle(60)]).counts == Counts(inserted=2)
    assert eth.offer([eth.candle(0, "120")]).counts == Counts(updated=1)
    assert hours.present()["close"].to_list() == minutes.present()["close"].to_list() == [Decimal(100)] * 2


def test_every_change_has_a_moment_of_its_own_though_the_clock_stands_still_or_steps_back(desk: Any) -> None:
    still = desk.now
    for close, clock in (("100", still), ("101", still), ("102", still - timedelta(hours=1)), ("103", still)):
        desk.offer([desk.candle(0, close), desk.candle(1, close)], clock=lambda moment=clock: moment)
    moments = [row[0] for row in desk.table("candles", "known_from", "known_from, timestamp")]
    assert moments[::2] == moments[1::2] == [still + timedelta(microseconds=i) for i in range(4)]
    for i, close in enumerate(("100", "101", "102", "103")):
        known = desk.known(still + timedelta(microseconds=i))
        assert known["close"].to_list() == [Decimal(close)] * 2


def test_quality_of_a_day_counts_the_whole_day(desk: Any) -> None:
    desk.offer([desk.candle(i) for i in range(36)])  # noon of the first day to the end of the next
    desk.offer([desk.candle(13, "101")])
    assert desk.table("data_quality_metrics", "date::text, total_records", "date") == [
        ("2024-12-31", 12),
        ("2025-01-01", 24),
    ]


def test_rejected_rows_are_kept_once_however_often_they_come(desk: Any) -> None:
    rows = [desk.candle(i, high="1") for i in range(50)]
    assert desk.offer([*rows, *rows]).counts == Counts(rejected=100)
    desk.offer(rows)
    desk.offer([desk.candle(0, high="2")])
    desk.offer(rows[:1], "yahoo")
    assert desk.table("quarantine", "count(*)", "1") == [(52,)]


def test_a_wide_frame_of_every_column_comes_back_exactly(desk: Any) -> None:
    values = {
        "open": "0.000000000000000001",
        "high": "99999999999999999999.999999999999999999",
        "low": "0.000000000000000001",
        "close": "12345678901234567890.123456789012345678",
        "volume": "0",
        "quote_volume": "0.5",
        "vwap": "1.25",
        "trade_count": 0,
        "taker_buy_volume": "0",
        "taker_buy_quote_volume": "0.000000000000000001",
    }
    desk.offer([{"timestamp": desk.at(0)} | values])
    row = desk.present().row(0, named=True)
    for name in ("open", "high", "close"):
        assert row[name] == Decimal(str(values[name]))
    assert desk.offer([{"timestamp": desk.at(0)} | values]).counts == Counts(unchanged=1)


def test_small_differences_between_sources_are_no_disagreement(desk: Any) -> None:
    # Two tapes: prices within a thousandth, volumes within a twentieth. One provider's own: to the last digit.
    desk.offer([desk.candle(i) for i in range(4)], "binance")
    assert desk.offer([desk.candle(0, "100.1", volume="10.5")], "yahoo").counts == Counts(kept=1)
    desk.offer([desk.candle(1, "100.2")], "yahoo")
    desk.offer([desk.candle(2, volume="10.6")], "yahoo")
    desk.offer([desk.candle(3, "100.0001")], "binance:archive")
    assert [(row[0], row[1], row[4]) for row in disputes(desk)] == [
        (desk.at(1), "close", "yahoo"),
        (desk.at(2), "volume", "yahoo"),
        (desk.at(3), "close", "binance:archive"),
    ]
    assert desk.present()["validation_notes"].to_list() == [None] + ["source_disagreement"] * 3
