"""Binance's statistics on their own clock: open interest, ratios, funding, premium, taker volumes, spot flow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import polars as pl
import structlog

from market_data.model.contract import Listing
from market_data.model.dataset import (
    EXACT,
    FUNDING_RATES,
    LONG_SHORT_RATIOS,
    OPEN_INTEREST,
    PREMIUM_INDEX,
    SPOT_FLOW,
    TAKER_VOLUMES,
    Dataset,
)
from market_data.model.errors import MarketDataError
from market_data.model.provider import Page
from market_data.model.rows import Rows, joined
from market_data.model.timeframe import EPOCH, Timeframe, TimeRange
from market_data.providers.binance import archive
from market_data.providers.binance.client import Client, millis
from market_data.providers.binance.klines import PREMIUM, TRADED, candles
from market_data.providers.binance.markets import USD_M, Market
from market_data.providers.binance.parse import refuse_others
from market_data.transport.columns import Count, Field, Written, moment
from market_data.transport.ordered import fetch_ordered
from market_data.transport.payload import load_json
from market_data.transport.rows import read_objects, read_rows
from market_data.transport.senders import Response

PERIOD = Timeframe.M5
# REST keeps 30 days and refuses a start before them.
REST_REACH = timedelta(days=29, hours=12)
ROWS = 500
FUNDING_ROWS = 1000
FIRST_METRICS_DAY = datetime(2021, 12, 1, tzinfo=UTC)
# Until then a row was labelled with the end of its five minutes, since then with their start
# (github.com/binance/binance-public-data, issue 491). Ours is the end: that is when the value is known.
LABELS_ARE_STARTS_SINCE = datetime(2026, 6, 25, tzinfo=UTC)
CONCURRENCY = 3

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Series:
    """One statistic: where it comes from and which of its fields are which columns."""

    dataset: Dataset
    path: str
    fields: dict[str, str]
    """The answer's names to ours."""
    file_fields: dict[str, str]
    """The archive's names to ours."""
    kind: str | None = None


def _ratio(path: str, column: str, kind: str) -> Series:
    fields = {"longShortRatio": "ratio", "longAccount": "long_account", "shortAccount": "short_account"}
    return Series(LONG_SHORT_RATIOS, path, fields, {column: "ratio"}, kind)


SERIES: Final = (
    Series(
        OPEN_INTEREST,
        "/openInterestHist",
        {"sumOpenInterest": "value", "sumOpenInterestValue": "value_quote"},
        {"sum_open_interest": "value", "sum_open_interest_value": "value_quote"},
    ),
    _ratio("/globalLongShortAccountRatio", "count_long_short_ratio", "global_accounts"),
    _ratio("/topLongShortAccountRatio", "count_toptrader_long_short_ratio", "top_accounts"),
    _ratio("/topLongShortPositionRatio", "sum_toptrader_long_short_ratio", "top_positions"),
)
METRICS_FIELDS: Final[dict[str, Field]] = {
    "create_time": Written(),
    "symbol": pl.String(),
    "sum_open_interest": pl.String(),
    "sum_open_interest_value": pl.String(),
    "count_toptrader_long_short_ratio": pl.String(),
    "sum_toptrader_long_short_ratio": pl.String(),
    "count_long_short_ratio": pl.String(),
}


async def statistics(
    client: Client, dataset: Dataset, listing: Listing, span: TimeRange, now: datetime
) -> AsyncIterator[Page]:
    """Five-minute values of open interest or long/short ratios whose five minutes end in `span`.

    The last 30 days come from REST, older ones from the archive's metrics. A five minutes without trades has no value.
    Asked for up to the present, open interest ends with what it is now.
    """
    asked_until, newest = span.end, None
    wanted = [series for series in SERIES if series.dataset is dataset]
    since = max(FIRST_METRICS_DAY, listing.valid_from or FIRST_METRICS_DAY)
    span = TimeRange(max(span.start, since), min(span.end, now))
    seam = max(span.start, now - REST_REACH)
    unread = archive.Unread()
    if span.start < seam and client.settings.use_archive:
        older = TimeRange(span.start, min(seam, span.end))
        async for page in _from_archive(client, wanted, listing, older, now, unread):
            yield page
    if seam < span.end:
        for series in wanted:
            async for page in _from_rest(client, series, listing, TimeRange(seam, span.end), now):
                newest = page.frame["timestamp"][-1] if page.frame.height else newest
                yield page
    if dataset is OPEN_INTEREST and asked_until >= now:
        response = await client.get(USD_M, "/openInterest", symbol=listing.raw_symbol)
        refuse_others(response.body, listing.raw_symbol)
        # Between two trades it says when the last one was: then there is nothing new.
        fresh = pl.col("timestamp").is_between(span.start, now) & (pl.col("timestamp") > pl.lit(newest or EPOCH))
        present = parse_present(response.body).with_frame(lambda frame: frame.filter(fresh))
        yield client.page(present, USD_M.source, response)
    unread.tell()


async def funding(client: Client, listing: Listing, span: TimeRange, now: datetime) -> AsyncIterator[Page]:
    """Funding rates published in `span`; the time is the source's, a few milliseconds off the hour."""
    begin, end = max(span.start, listing.valid_from or span.start), min(span.end, now)
    while begin < end:
        times = {"startTime": millis(begin), "endTime": millis(end) - 1}
        response = await client.get_funding("/fundingRate", symbol=listing.raw_symbol, limit=FUNDING_ROWS, **times)
        refuse_others(response.body, listing.raw_symbol)
        rows = parse_funding(response.body)
        inside = rows.frame.filter(_within(TimeRange(begin, end))).sort("timestamp", maintain_order=True)
        yield client.page(Rows(inside, rows.rejected), USD_M.source, response)
        # However short a page is: only one without anything new says that there is no more.
        if not inside.height:
            return
        begin = inside["timestamp"].max() + timedelta(milliseconds=1)  # type: ignore[operator,assignment]


async def taker_volumes(
    client: Client, market: Market, listing: Listing, span: TimeRange, now: datetime
) -> AsyncIterator[Page]:
    """Base volume bought and sold by takers over five minutes that end in `span`, from the candles of five minutes.

    Not from `/takerlongshortRatio`: that holds the same figures for 30 days only, under labels that changed meaning.
    """
    sold = pl.col("volume") - pl.col("taker_buy_volume")
    async for page in _candles(client, market, listing, span, now):
        yield _flow(page, TAKER_VOLUMES, buy_volume=pl.col("taker_buy_volume"), sell_volume=sold)


async def premium_index(client: Client, listing: Listing, span: TimeRange, now: datetime) -> AsyncIterator[Page]:
    """The premium index at the end of every five minutes that end in `span`, from its candles.

    Not from `/premiumIndex`: that tells the present only, and of it the last rate and the next time are FUNDING_RATES'.
    """
    async for page in _candles(client, USD_M, listing, span, now, PREMIUM):
        yield _flow(page, PREMIUM_INDEX, value=pl.col("close"))


async def spot_flow(
    client: Client, market: Market, listing: Listing, span: TimeRange, now: datetime
) -> AsyncIterator[Page]:
    """Quote volume bought and sold by takers over five minutes that end in `span`, from the spot market's candles."""
    sold = pl.col("quote_volume") - pl.col("taker_buy_quote_volume")
    async for page in _candles(client, market, listing, span, now):
        yield _flow(page, SPOT_FLOW, buy_quote=pl.col("taker_buy_quote_volume"), sell_quote=sold)


def parse_series(body: bytes, series: Series) -> Rows:
    """Rows of one of the statistics with their label as `timestamp`, in the order sent.

    Raises:
        MalformedPayload: when it is no list of rows at all.
    """
    fields: dict[str, Field] = {"timestamp": Count("ms"), **dict.fromkeys(series.fields, EXACT)}
    rows = read_objects(load_json(body), fields, ("timestamp", next(iter(series.fields))), time="timestamp")
    return rows.with_frame(lambda frame: frame.rename(series.fields))


def parse_present(body: bytes) -> Rows:
    """Open interest as it is now: one row in its schema.

    Raises:
        MalformedPayload: when it is no row at all.
    """
    fields: dict[str, Field] = {"time": Count("ms"), "openInterest": EXACT}
    rows = read_objects([load_json(body)], fields, tuple(fields), time="time")
    return rows.with_frame(
        lambda frame: OPEN_INTEREST.conform(frame.select(timestamp="time", known_at="time", value="openInterest"))
    )


def parse_funding(body: bytes) -> Rows:
    """Funding rates in their schema, in the order sent.

    Raises:
        MalformedPayload: when it is no list of rows at all.
    """

    def shape(row: dict[str, Any]) -> dict[str, Any]:
        time = row.get("fundingTime") and moment(row["fundingTime"], "ms")
        return {
            "timestamp": time,
            "known_at": time,
            "rate": row.get("fundingRate"),
            "rate_type": row.get("rateType") or "Regular",
            # Rates of the first years have an empty mark price.
            "mark_price": row.get("markPrice") or None,
        }

    return read_rows(load_json(body), FUNDING_RATES, shape, rounded=("rate",))


def parse_metrics(csv: bytes, series: Series, day: datetime) -> Rows:
    """One statistic of a day's metrics file, in its dataset's schema, labelled with the end of each five minutes.

    Raises:
        MalformedPayload: when not one line of many is a row.
    """
    fields = METRICS_FIELDS | dict.fromkeys(series.file_fields, EXACT)
    rows = archive.read_lines(csv, fields, "create_time", optional=list(METRICS_FIELDS)[1:])
    # A row may be stamped a second late. The file's day decides, not the label: the last file of the old kind ends
    # with the first label of the new.
    label = pl.col("create_time").dt.truncate(PERIOD.value)
    ends = label + PERIOD.duration if day >= LABELS_ARE_STARTS_SINCE else label
    named = rows.with_frame(lambda frame: frame.rename(series.file_fields).with_columns(timestamp=ends))
    return named.with_frame(lambda frame: _observations(frame, series))


def ends_of_labels(rows: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """REST rows stamped with the end of their five minutes.

    A label less than five minutes old cannot be a start, since the five minutes are not over: then all are ends.
    Otherwise they are taken for starts, which at worst tells a value five minutes late and never early.
    """
    newest = rows["timestamp"].max()
    are_ends = newest is not None and newest + PERIOD.duration > now  # type: ignore[operator]
    return rows if are_ends else rows.with_columns(pl.col("timestamp") + PERIOD.duration)


async def _from_rest(
    client: Client, series: Series, listing: Listing, span: TimeRange, now: datetime
) -> AsyncIterator[Page]:
    async def page(window: TimeRange) -> tuple[Rows, Response]:
        response = await client.get_statistics(
            series.path,
            symbol=listing.raw_symbol,
            period=PERIOD.value,
            limit=ROWS,
            startTime=millis(window.start),
            endTime=millis(window.end) - 1,
        )
        refuse_others(response.body, listing.raw_symbol)
        return parse_series(response.body, series), response

    async def ask(window: TimeRange) -> tuple[Rows, Response]:
        """All of a window: what a page lacks behind its last row and before its first is asked for, until none is."""
        rows, response = await page(window)
        first, answers = rows, [rows]
        while rows.frame.height and (later := rows.frame["timestamp"].max() + PERIOD.duration) < window.end:  # type: ignore[operator]
            rows, response = await page(TimeRange(later, window.end))  # type: ignore[arg-type]
            answers.append(rows)
        while first.frame.height and (begun := first.frame["timestamp"].min()) >= window.start + PERIOD.duration:  # type: ignore[operator]
            first, _ = await page(TimeRange(window.start, begun))  # type: ignore[arg-type]
            answers.append(first)
        return joined(answers, rows.frame.clear()), response

    # A label may be the start or the end: the newest decides for all, so it is asked for first.
    windows = list(TimeRange(span.start - PERIOD.duration, span.end).split(ROWS * PERIOD.duration))
    latest, answer = await ask(windows[-1])
    are_ends = ends_of_labels(latest.frame, answer.server_time or now) is latest.frame
    ends = pl.col("timestamp") if are_ends else pl.col("timestamp") + PERIOD.duration
    async for rows, response in fetch_ordered(windows, ask, concurrency=CONCURRENCY):
        frame = _observations(rows.frame.with_columns(ends).filter(_within(span)), series)
        frame = frame.unique(maintain_order=True).sort("timestamp", maintain_order=True)
        yield client.page(Rows(frame, rows.rejected), USD_M.source, response)


async def _from_archive(
    client: Client, wanted: list[Series], listing: Listing, span: TimeRange, now: datetime, unread: archive.Unread
) -> AsyncIterator[Page]:
    async def ask(piece: archive.Piece) -> tuple[Rows, Response] | None:
        name = f"{listing.raw_symbol}-metrics-{piece.label}.zip"
        try:
            found = await archive.download(client, f"{USD_M.archive}/daily/metrics/{listing.raw_symbol}/{name}")
            if found is not None:
                csv, response = found
                read = (parse_metrics(csv, series, piece.day) for series in wanted)
                return joined(read, wanted[0].dataset.empty()), response
            log.warning("no metrics in the archive", symbol=listing.raw_symbol, day=piece.label)
        except MarketDataError as error:
            unread.note(piece, error)
        return None

    # The end of a day's last five minutes is the next day's midnight.
    days = archive.pieces(TimeRange(span.start - PERIOD.duration, span.end), now, monthly=False)
    async for found in fetch_ordered(days, ask, concurrency=CONCURRENCY):
        if found is None:
            continue
        rows, response = found
        frame = rows.frame.filter(_within(span)).sort("timestamp", maintain_order=True)
        yield client.page(Rows(frame, rows.rejected), f"{listing.provider}:archive", response)


def _within(span: TimeRange) -> pl.Expr:
    return pl.col("timestamp").is_between(span.start, span.end, closed="left")


def _observations(rows: pl.DataFrame, series: Series) -> pl.DataFrame:
    named = rows.with_columns(known_at=pl.col("timestamp"), kind=pl.lit(series.kind, pl.String()))
    value = next(iter(series.fields.values()))
    return series.dataset.conform(named).drop_nulls(value)


async def _candles(
    client: Client, market: Market, listing: Listing, span: TimeRange, now: datetime, kind: str = TRADED
) -> AsyncIterator[Page]:
    shifted = TimeRange(span.start - PERIOD.duration, span.end - PERIOD.duration)
    async for page in candles(client, market, listing, PERIOD, shifted, now, kind):
        yield page


def _flow(page: Page, dataset: Dataset, **values: pl.Expr) -> Page:
    end = pl.col("timestamp") + PERIOD.duration
    frame = page.frame.select(timestamp=end, known_at=end, period=pl.lit(PERIOD.value), **values)
    return replace(page, frame=dataset.conform(frame))
