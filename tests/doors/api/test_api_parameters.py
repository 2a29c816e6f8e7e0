"""Unknown and repeated query parameters are refused on every route."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(
    "query, said",
    [
        ("asof=2026-01-01", "unknown parameter 'asof': did you mean 'as_of'?"),
        ("strat=2026-02-20", "unknown parameter 'strat': did you mean 'start'?"),
        ("format=csv", "unknown parameter 'format'"),
        ("AS_OF=2026-01-01", "unknown parameter 'AS_OF': did you mean 'as_of'?"),
        ("limit=2&limit=3", "limit is given more than once"),
        ("%F0%9F%92%A5=1&x%1b[2J=1", r"unknown parameter '\U0001f4a5'"),
    ],
)
def test_a_parameter_that_the_route_does_not_have_is_refused_with_the_nearest(
    asking: Any, query: str, said: str
) -> None:
    answer = asking.get(f"/api/v1/market/features/BTC/1h?{query}")
    assert answer.status_code == 422, answer.text
    assert said in answer.json()["detail"]
    assert "as_of" in answer.json()["valid"]
    assert "\x1b" not in answer.json()["detail"]


def test_every_route_refuses_what_it_does_not_know(asking: Any) -> None:
    document = asking.get("/api/v1/openapi.json").json()
    asked = 0
    for path, methods in document["paths"].items():
        if not path.startswith("/api/v1/"):
            continue
        values = {"{symbol}": "BTC", "{timeframe}": "1h", "{job_id}": "00000000-0000-0000-0000-000000000000"}
        for name, value in values.items():
            path = path.replace(name, value)  # noqa: PLW2901  # the template becomes an address
        for method in methods:
            answer = asking.request(method.upper(), path, params={"nobody_declares_this": "1"})
            assert answer.status_code == 422, (method, path, answer.text)
            assert "nobody_declares_this" in answer.json()["detail"]
            asked += 1
    assert asked >= 20


def test_a_list_may_be_repeated(asking: Any) -> None:
    answer = asking.post("/api/v1/enrichment/trigger?symbol=BTC&asset_class=crypto&timeframes=1d&timeframes=1h")
    assert answer.status_code == 202, answer.text
