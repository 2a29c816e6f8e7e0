"""Assembly of the HTTP interface: routes, errors, security, metrics. Importing and building it starts nothing."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware

from market_data.api import actions, bars, enrichment, instruments, market, metrics, operations, problems, quality
from market_data.api.compression import Compression
from market_data.api.examples import add_examples
from market_data.api.parameters import only_known_parameters
from market_data.api.request_ids import Identified
from market_data.api.security import Gate
from market_data.api.served import Served
from market_data.api.slashes import EncodedSlashes

PREFIX: Final = "/api/v1"
DESCRIPTION: Final = """
Canonical, checked, versioned market data with features.

Times are RFC 3339 UTC; ranges are `[start, end)`; a candle's `timestamp` is its open time. Rates are percentages from 0
to 100, scores from 0 to 1. Prices are exact: read JSON numbers as decimals, or ask for Arrow. Errors are
problem documents (RFC 9457) with `detail` and `action`. Lists are paged: hand `next` back as `cursor`, for candles as
`start`. Long reads come as an Arrow IPC stream, Parquet or CSV by `Accept`.
"""


def create_api(served: Served | None = None) -> FastAPI:
    """The application.

    Args:
        served: what the routes work with; None only for its OpenAPI document.
    """
    api = FastAPI(
        title="Market data platform",
        version=version("market-data-platform"),
        description=DESCRIPTION,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        # Nothing at a path with a slash too many: a redirect would name the host the asker claimed.
        redirect_slashes=False,
    )
    versioned = APIRouter(prefix=PREFIX, dependencies=[Depends(only_known_parameters)])
    for router in (
        market.router,
        actions.router,
        bars.router,
        enrichment.router,
        operations.dashboard,
        quality.router,
        operations.listings,
        instruments.router,
    ):
        versioned.include_router(router)
    api.include_router(versioned)
    api.include_router(operations.probes)
    api.include_router(metrics.router)
    problems.install(api)
    _describe(api)
    if served is not None:
        _serve(api, served)
    return api


def _serve(api: FastAPI, served: Served) -> None:
    api.state.served = served
    api.state.metrics = metrics.Metrics(served)
    limits = served.app.settings.api
    api.add_middleware(Compression)
    api.add_middleware(Gate, served=lambda: served, listens_beyond=served.listens_beyond)
    if limits.cors_origins:
        api.add_middleware(
            CORSMiddleware,
            allow_origins=list(limits.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-API-Key"],
        )
    api.add_middleware(metrics.Counted, metrics=api.state.metrics)
    api.add_middleware(Identified)
    api.add_middleware(EncodedSlashes)


def _describe(api: FastAPI) -> None:
    """Add to the OpenAPI document what FastAPI does not know: the problem document and the keys."""
    generated = api.openapi

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            document = generated()
            components = document.setdefault("components", {})
            components.setdefault("schemas", {})["ProblemDocument"] = problems.ProblemDocument.model_json_schema()
            components["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            # Open on loopback while no key exists, hence the empty alternative.
            document["security"] = [{"bearer": []}, {"header": []}, {}]
            add_examples(document)
        assert api.openapi_schema is not None
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]
