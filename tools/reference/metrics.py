"""The page of metrics: what /metrics offers, read from a registry of a server that has answered one request."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx

from market_data.api.app import create_api
from market_data.api.served import serving
from market_data.bootstrap import open_app
from market_data.config import load_settings
from market_data.storage.server.database import Database
from reference.markdown import code, codes, one_line, page, table

INTRODUCTION = """
`GET /metrics` of the HTTP interface. What comes from the database is the same in every process and survives restarts;
what is counted by the process itself is of that process: its requests, its streams. Those that begin with `process_`
and `python_` come from the Prometheus client. How to read them: [read Prometheus](../howto/read-prometheus.md).
"""


def metrics_page(database: Database) -> str:
    """Every metric: its name as Prometheus sees it, its kind, its labels and its meaning."""
    families = sorted(_families(database), key=lambda family: family.name)
    rows = [
        (code(_name(family)), family.type, codes(sorted(_labels(family))), one_line(family.documentation))
        for family in families
        if family.name.startswith("market_data_")
    ]
    return page("Metrics", INTRODUCTION, table(("metric", "kind", "labels", "meaning"), rows))


def _families(database: Database) -> list[Any]:
    url = {"database.url": (database.conninfo(), "the reference")}
    with open_app(load_settings(None, {}, url), clock=lambda: datetime.now(UTC)) as app, serving(app) as served:
        api = create_api(served)
        asyncio.run(_one_request(api))
        return list(api.state.metrics.registry.collect())


async def _one_request(api: Any) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://localhost") as client:
        (await client.get("/healthz")).raise_for_status()


def _name(family: Any) -> str:
    ending = "_total" if family.type == "counter" and not family.name.endswith("_total") else ""
    return f"{family.name}{ending}"


def _labels(family: Any) -> set[str]:
    declared = set(getattr(family, "_labelnames", ()))
    # A counter of the process tells its labels by its samples only; `le` is the buckets'.
    return declared | {name for sample in family.samples for name in sample.labels} - {"le"}
