"""Market routes: rows, ranges, pages, forms and ETags."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from market_data.api.selections import _made_ahead

HOURS = 240
ARROW = "application/vnd.apache.arrow.stream"


def frame_of(content: bytes) -> pl.DataFrame:
    frame = pl.read_ipc_stream(io.BytesIO(content))
    assert isinstance(frame, pl.DataFrame)
    return frame


def test_json_rows_hold_the_stored_numbers_exactly(asking: Any) -> None:
    answer = asking.get("/api/v1/market/features/btc/1h", params={"limit": 2})
    assert answer.status_code == 200, answer.text
    body = json.loads(answer.text, parse_float=Decimal)
    assert (body["symbol"], body["asset_class"], body["timeframe"], body["count"]) == ("BTC", "crypto", "1h", 2)
    newest = body["candles"][-1]
    # The 240th close: 100 + 239/4.
    assert (newest["timestamp"], newest["close"]) == ("2026-02-28T23:00:00Z", Decimal("159.75"))
    assert newest["volume"] == 249
    # Mean of 155, 155.25 … 159.75, the last twenty closes.
    assert newest["sma_20"] == Decimal("157.375")
    assert (newest["source"], newest["revision"], newest["validation_notes"]) == ("binance", 1, None)


def test_a_range_is_half_open(asking: Any) -> None:
    params = {"start": "2026-02-20", "end": "2026-02-20T03:00:00Z"}
    body = asking.get("/api/v1/market/candles/BTC/1h", params=params).json()
    assert [row["timestamp"] for row in body["candles"]] == [
        "2026-02-20T00:00:00Z",
        "2026-02-20T01:00:00Z",
        "2026-02-20T02:00:00Z",
    ]
    assert body["next"] is None


def test_pages_join_without_gap_or_repeat(asking: Any) -> None:
    seen, start, pages = [], "2020-01-01", 0
    while start:
        body = asking.get("/api/v1/market/candles/BTC/1h", params={"start": start, "limit": 100}).json()
        seen += [row["timestamp"] for row in body["candles"]]
        start, pages = body["next"], pages + 1
    assert (len(seen), len(set(seen)), pages) == (HOURS, HOURS, 3)
    assert seen == sorted(seen)


def test_every_form_holds_the_same_rows(asking: Any) -> None:
    path, params = "/api/v1/market/features/BTC/1h", {"start": "2026-02-20", "limit": 50}
    arrow = frame_of(asking.get(path, params=params, headers={"Accept": ARROW}).content)
    parquet = asking.get(path, params=params, headers={"Accept": "application/vnd.apache.parquet"})
    csv = asking.get(path, params=params, headers={"Accept": "text/csv"})
    rows = json.loads(asking.get(path, params=params).text, parse_float=Decimal)["candles"]
    assert arrow.height == len(rows) == 50
    assert arrow.equals(pl.read_parquet(io.BytesIO(parquet.content)))
    assert arrow.columns == list(rows[0]) == csv.text.splitlines()[0].split(",")
    assert arrow["close"].to_list() == [Decimal(row["close"]) for row in rows]
    assert arrow["timestamp"].to_list() == [datetime.fromisoformat(row["timestamp"]) for row in rows]
    assert [line.split(",")[0] for line in csv.text.splitlines()[1:]] == [row["timestamp"] for row in rows]
    assert arrow["sma_20"].to_list() == [row["sma_20"] and float(row["sma_20"]) for row in rows]
    assert parquet.headers["content-disposition"] == 'attachment; filename="BTC-1h.parquet"'


def test_a_stream_without_rows_tells_its_columns(asking: Any) -> None:
    params = {"start": "2001-01-01", "end": "2001-02-01"}
    answer = asking.get("/api/v1/market/candles/BTC/1h", params=params, headers={"Accept": ARROW})
    assert frame_of(answer.content).schema["close"] == pl.Decimal(38, 18)
    assert frame_of(answer.content).is_empty()


def test_a_stream_takes_many_windows(asking: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("market_data.api.selections.CHUNK_ROWS", 7)
    whole = frame_of(asking.get("/api/v1/market/candles/BTC/1h", headers={"Accept": ARROW}).content)
    assert (whole.height, whole["timestamp"].n_unique()) == (HOURS, HOURS)
    newest = asking.get("/api/v1/market/candles/BTC/1h", params={"limit": 10}, headers={"Accept": ARROW})
    assert frame_of(newest.content).equals(whole.tail(10))
    trades = frame_of(asking.get("/api/v1/market/trades/BTC", headers={"Accept": ARROW}).content)
    assert trades["trade_id"].to_list() == [str(n) for n in range(25)]


def test_a_download_is_made_one_piece_ahead_and_ends_with_its_reader() -> None:
    made, ended = [], threading.Event()

    def pieces() -> Iterator[bytes]:
        try:
            for number in range(1000):
                made.append(threading.current_thread())
                yield str(number).encode()
        finally:
            ended.set()

    download = _made_ahead(pieces())
    assert [next(download) for _ in range(3)] == [b"0", b"1", b"2"]
    download.close()
    del download
    assert ended.wait(10)
    # Two are sent, one is held, and one may have been under way.
    assert (len(made) <= 4, len(set(made))) == (True, 1)


def test_what_is_known_already_is_not_sent_again(asking: Any) -> None:
    first = asking.get("/api/v1/market/features/BTC/1h", params={"limit": 5})
    tag = first.headers["etag"]
    again = asking.get("/api/v1/market/features/BTC/1h", params={"limit": 5}, headers={"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    other = asking.get("/api/v1/market/features/BTC/1h", params={"limit": 6}, headers={"If-None-Match": tag})
    assert other.status_code == 200


@pytest.mark.parametrize("path", ["market/candles/BTC/1h", "market/features/BTC/1h"])
def test_closed_history_has_a_tag_that_lasts_until_it_changes(
    database_url: str, clock: Any, opening: Callable[..., AbstractContextManager[Any]], filling: Any, path: str
) -> None:
    past = {"start": "2026-02-20", "end": "2026-02-21"}
    with opening(database_url, clock) as (served, asking):
        filling(served.app)
        tags = {
            form: asking.get(f"/api/v1/{path}", params=past, headers={"Accept": form}).headers["etag"]
            for form in ("application/json", ARROW, "text/csv", "application/vnd.apache.parquet")
        }
        # A form is no other form's version.
        assert len(set(tags.values())) == len(tags)
        clock.now += timedelta(days=1)

        def again(form: str) -> int:
            headers = {"Accept": form, "If-None-Match": tags[form]}
            return asking.get(f"/api/v1/{path}", params=past, headers=headers).status_code

        assert [again(form) for form in tags] == [304] * 4
        served.app.database.rows("UPDATE series_moments SET moment = moment + interval '1 second'")
        assert [again(form) for form in tags] == [200] * 4


def test_a_page_of_facts_is_not_sent_again(asking: Any) -> None:
    first = asking.get("/api/v1/market/trades/BTC", params={"limit": 5})
    headers = {"If-None-Match": f'"other", {first.headers["etag"]}'}
    again = asking.get("/api/v1/market/trades/BTC", params={"limit": 5}, headers=headers)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert asking.get("/api/v1/market/trades/BTC", params={"limit": 6}, headers=headers).status_code == 200


def test_facts_come_in_pages(asking: Any) -> None:
    seen, cursor = [], None
    while True:
        params = {"limit": 10} | ({"cursor": cursor} if cursor else {})
        body = asking.get("/api/v1/market/trades/BTC", params=params).json()
        seen += [(row["trade_id"], row["price"]) for row in body["trades"]]
        cursor = body["next"]
        if cursor is None:
            break
    assert seen == [(str(n), 7000.5 + n) for n in range(25)]


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [
        (
            "dividends/AAPL",
            "dividends",
            {"ex_date": "2026-02-09", "amount": 0.26, "currency": "USD", "source": "yahoo"},
        ),
        ("splits/AAPL", "splits", {"execution_date": "2020-08-31", "split_from": 1, "split_to": 4, "revision": 1}),
        ("earnings/AAPL", "earnings", {"fiscal_year": 2025, "fiscal_quarter": 1, "eps_actual": 1.5}),
        ("options/AAPL", "options", {"contract": "AAPL261218C00200000", "strike": 200, "iv": 0.25, "vega": None}),
        ("news/AAPL", "news", {"title": '"Quoted" title 0 \\ é', "symbols": ["AAPL"], "summary": None}),
        ("quotes/BTC", "quotes", {"sequence": 0, "bid_price": 1.5, "ask_size": 3}),
    ],
)
def test_every_dataset_is_served(asking: Any, path: str, name: str, expected: dict[str, object]) -> None:
    answer = asking.get(f"/api/v1/market/{path}")
    assert answer.status_code == 200, answer.text
    row = answer.json()[name][0]
    assert {key: row[key] for key in expected} == expected


def test_dates_are_a_range_too(asking: Any) -> None:
    def days(**params: str) -> int:
        return len(asking.get("/api/v1/market/dividends/AAPL", params=params).json()["dividends"])

    assert days(start="2026-02-09", end="2026-02-10") == 1
    assert days(start="2026-02-01", end="2026-02-09") == 0
    assert days(start="2026-02-10") == 0
    assert days(as_of="2026-02-28T00:00:00Z") == 0


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_long_bodies_are_compressed_as_the_asker_can_read(asking: Any, encoding: str) -> None:
    import pyarrow as pa

    path, params = "/api/v1/market/features/BTC/1h", {"limit": 50}
    plain = asking.get(path, params=params, headers={"Accept-Encoding": "identity"})
    answer, raw = asking.raw(path, params=params, headers={"Accept-Encoding": encoding})
    assert (answer.headers["content-encoding"], int(answer.headers["content-length"])) == (encoding, len(raw))
    assert len(raw) < len(plain.content) / 3
    assert pa.input_stream(pa.BufferReader(raw), compression=encoding).read() == plain.content
    answer, raw = asking.raw(path, headers={"Accept-Encoding": encoding, "Accept": ARROW})
    assert answer.headers["content-encoding"] == encoding
    assert frame_of(pa.input_stream(pa.BufferReader(raw), compression=encoding).read()).height == HOURS


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("market/candles/NOSUCH/1h", 404, "NOSUCH"),
        ("market/candles/BTC/2h", 422, "Invalid timeframes: ['2h']"),
        ("market/candles/BTC/1h?start=2026-02-02&end=2026-02-01", 422, "not before end"),
        ("market/candles/BTC/1h?start=yesterday", 422, "write 2024-01-31"),
        ("market/candles/BTC/1h?start=2026-02-02T10:00:00", 422, "no time zone"),
        ("market/candles/BTC/1h?limit=10001", 422, "too many"),
        ("market/candles/BTC/1h?limit=0", 422, "limit"),
        ("market/trades/BTC?cursor=x", 422, "cursor"),
        ("market/trades/B%20C", 422, "symbol"),
        ("market/nothing", 404, "Not Found"),
    ],
)
def test_errors_say_what_to_do(asking: Any, path: str, status: int, words: str) -> None:
    answer = asking.get(f"/api/v1/{path}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert words in body["detail"]
    assert body["status"] == status
    assert body["action"]


def test_none_of_our_forms_is_said(asking: Any) -> None:
    answer = asking.get("/api/v1/market/candles/BTC/1h", headers={"Accept": "image/png"})
    assert (answer.status_code, answer.json()["status"]) == (406, 406)


def test_as_of_answers_what_was_known(asking: Any) -> None:
    before = asking.get("/api/v1/market/features/BTC/1h", params={"as_of": "2026-02-28T00:00:00Z"}).json()
    now = asking.get("/api/v1/market/features/BTC/1h", params={"as_of": "2026-03-01T12:00:00Z", "limit": 3}).json()
    assert before["candles"] == []
    assert [row["sma_20"] for row in now["candles"]] == [156.875, 157.125, 157.375]
    assert datetime.fromisoformat(now["as_of"]) == datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_prices_are_adjusted_where_asked_for(asking: Any) -> None:
    """A dividend of 0.26 on 2026-02-09, the close before it as stored: total factor 1 - 0.26 / close."""
    path, day = "/api/v1/market/candles/AAPL/1d", {"start": "2026-02-05", "end": "2026-02-10"}
    raw = asking.get(path, params=day).json()
    total = asking.get(path, params={**day, "adjusted": "total"}).json()
    splits = asking.get(path, params={**day, "adjusted": "true"}).json()
    assert [body["adjusted"] for body in (raw, total, splits)] == ["none", "total", "splits"]
    closes = [row["close"] for row in raw["candles"]]
    # Thursday, Friday, Monday: Monday is the ex-date.
    factor = 1 - 0.26 / closes[1]
    expected = [closes[0] * factor, closes[1] * factor, closes[2]]
    assert [row["close"] for row in total["candles"]] == pytest.approx(expected, abs=1e-9)
    # The only split was before all of this.
    assert [row["close"] for row in splits["candles"]] == closes
    stream = asking.get(path, params={**day, "adjusted": "total"}, headers={"Accept": ARROW})
    assert frame_of(stream.content)["close"].cast(pl.Float64).to_list() == pytest.approx(expected, abs=1e-9)
    assert asking.get(path, params={"adjusted": "perhaps"}).status_code == 422
