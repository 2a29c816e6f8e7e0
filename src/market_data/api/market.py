"""Market data routes: candles and features, and every other dataset that has a door."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from market_data.api.arguments import (
    AsOf,
    AssetClassQuery,
    Cursor,
    End,
    Limit,
    Start,
    Symbol,
    TimeframePath,
    one_timeframe,
    time_range,
)
from market_data.api.bodies import Form, accepted
from market_data.api.fact_documents import FACT_PAGES
from market_data.api.problems import described
from market_data.api.rows import CANDLE_COLUMNS, CandlesPage, FeaturesPage, enriched_columns
from market_data.api.selections import Candles, Facts, adjustment_of
from market_data.api.served import Backing
from market_data.model.dataset import SERVED, Dataset
from market_data.model.instrument import Series
from market_data.storage.facts.reads import FactQuery

router = APIRouter(prefix="/market", tags=["market"])
Accept = Annotated[str | None, Header(include_in_schema=False)]
IfNoneMatch = Annotated[str | None, Header(include_in_schema=False)]
Adjusted = Annotated[
    Literal["none", "splits", "total", "total_ex_date", "false", "true"],
    Query(
        description="For which actions known by then: splits (or true); total: splits and payments, reinvested at the "
        "last close before the ex-date; total_ex_date: at the close of the ex-date; none (or false)."
    ),
]
Source = Annotated[
    str | None,
    Query(max_length=64, pattern=r"^[a-z0-9_:.\-]+$", description="Only of this source.", examples=["binance"]),
]


def forms(model: type[Any]) -> dict[int | str, dict[str, Any]]:
    """What `responses` say of a route that answers in every form."""
    others: dict[str, Any] = {
        form.value: {"schema": {"type": "string", "format": "binary"}} for form in Form if form is not Form.JSON
    }
    ok = {"model": model, "content": others, "description": "JSON, or by Accept: Arrow IPC stream, Parquet or CSV."}
    return {200: ok, **described(404, 406)}


_CLOSED: Final[dict[int | str, dict[str, Any]]] = {304: {"description": "Not modified since the ETag of If-None-Match"}}


@router.get("/features/{symbol}/{timeframe}", responses={**forms(FeaturesPage), **_CLOSED})
def features(
    served: Backing,
    request: Request,
    symbol: Symbol,
    timeframe: TimeframePath,
    asset_class: AssetClassQuery = None,
    start: Start = None,
    end: End = None,
    limit: Limit = None,
    as_of: AsOf = None,
    adjusted: Adjusted = "none",
    accept: Accept = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Enriched candles of [start, end): features, quality and provenance; the newest `limit` without a start."""
    wanted = Candles(
        served=served,
        series=Series(served.known_instrument(symbol, asset_class), one_timeframe(timeframe)),
        columns=enriched_columns(served.app.shelves.features),
        span=time_range(start, end),
        oldest_first=start is not None,
        limit=limit,
        as_of=as_of,
        adjustment=adjustment_of(adjusted),
    )
    return wanted.answer(accepted(accept), if_none_match, request.url.query)


@router.get("/candles/{symbol}/{timeframe}", responses={**forms(CandlesPage), **_CLOSED})
def candles(
    served: Backing,
    request: Request,
    symbol: Symbol,
    timeframe: TimeframePath,
    asset_class: AssetClassQuery = None,
    start: Start = None,
    end: End = None,
    limit: Limit = None,
    as_of: AsOf = None,
    adjusted: Adjusted = "none",
    accept: Accept = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Candles of [start, end) without features; the newest `limit` without a start."""
    wanted = Candles(
        served=served,
        series=Series(served.known_instrument(symbol, asset_class), one_timeframe(timeframe)),
        columns=CANDLE_COLUMNS,
        span=time_range(start, end),
        oldest_first=start is not None,
        limit=limit,
        as_of=as_of,
        adjustment=adjustment_of(adjusted),
    )
    return wanted.answer(accepted(accept), if_none_match, request.url.query)


def _serve_facts(dataset: Dataset) -> None:
    """Add the route of one dataset besides candles; all of them have the same arguments."""

    def facts(
        served: Backing,
        symbol: Symbol,
        asset_class: AssetClassQuery = None,
        start: Start = None,
        end: End = None,
        limit: Limit = None,
        cursor: Cursor = None,
        source: Source = None,
        as_of: AsOf = None,
        accept: Accept = None,
        if_none_match: IfNoneMatch = None,
    ) -> Response:
        query = FactQuery(
            dataset=dataset,
            instrument=served.stored_instrument(symbol, asset_class),
            span=time_range(start, end),
            as_of=as_of,
            source=source,
        )
        return Facts(served=served, query=query, limit=limit, cursor=cursor).answer(accepted(accept), if_none_match)

    router.add_api_route(
        f"/{dataset.path}/{{symbol}}",
        facts,
        name=dataset.name,
        description=dataset.about,
        responses={**forms(FACT_PAGES[dataset.name]), **_CLOSED},
    )


for _dataset in SERVED:
    _serve_facts(_dataset)
