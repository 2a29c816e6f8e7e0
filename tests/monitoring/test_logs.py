"""Logs: JSON or for people, by level, with the ids of requests and jobs in every line that is about one."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import structlog

from market_data.bootstrap import open_app
from market_data.cli.logs import configure_logs
from market_data.config import load_settings
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import Timeframe

BTC = Instrument("BTC", AssetClass.CRYPTO)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The logs as they were before the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]


async def test_a_request_is_in_all_its_lines_and_in_the_job_it_queued(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from market_data.api.app import create_api
    from market_data.api.served import serving

    settings = load_settings(environ={}, overrides={"database.url": (database_url, "the test")})
    with open_app(settings, clock=_now) as app, serving(app) as served:
        configure_logs("INFO", "json")
        path = "/api/v1/enrichment/trigger?symbol=BTC&asset_class=crypto"
        transport = httpx.ASGITransport(create_api(served))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            named = await client.post(path, headers={"X-Request-ID": "abc-1"})
            forged = await client.get("/healthz?token=sesame", headers={"X-Request-ID": "a b\tc"})
            plain = await client.get("/healthz")
    told = lines(capsys)
    (queued,) = (line for line in told if line["event"] == "job_queued")
    assert (queued["request"], queued["job"]) == ("abc-1", named.json()["job_id"])
    requests = {line["request"]: line for line in told if line["event"] == "request"}
    assert list(requests) == [answer.headers["x-request-id"] for answer in (named, forged, plain)]
    assert requests["abc-1"]["route"].endswith("/enrichment/trigger")
    assert (requests["abc-1"]["method"], requests["abc-1"]["status"]) == ("POST", 202)
    assert len(forged.headers["x-request-id"]) == 32
    assert len(requests) == 3
    assert "sesame" not in json.dumps(told)


async def test_a_job_is_in_all_lines_of_its_parts(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = {
        f"providers.binance.{name}": "http://127.0.0.1:9" for name in ("rest_url", "spot_rest_url", "archive_url")
    }
    overrides = nowhere | {"database.url": database_url, "providers.binance.max_retries": 0,
                           "instruments.priority.crypto": ["binance"], "enrichment.max_retries": 0}  # fmt: skip
    settings = load_settings(environ={}, overrides={key: (value, "the test") for key, value in overrides.items()})
    with open_app(settings, clock=_now) as app:
        configure_logs("INFO", "json")
        job = app.jobs.trigger([BTC], [Timeframe.H1, Timeframe.D1]).job_id
        await asyncio.wait_for(app.worker().run(wait=False), 30)
        await app.disconnect()
    about_parts = [line for line in lines(capsys) if line["event"] in {"part_begun", "part_failed"}]
    assert {line["event"] for line in about_parts} == {"part_begun", "part_failed"}
    assert {line["job"] for line in about_parts} == {str(job)}
    assert {line["number"] for line in about_parts} == {0, 1}


def test_level_and_form(capsys: pytest.CaptureFixture[str]) -> None:
    for form, shown in (("json", '"event": "three"'), ("console", "three")):
        configure_logs("WARNING", form)
        structlog.get_logger().info("one")
        logging.getLogger("other").info("two")
        structlog.get_logger("ours").warning("three", number=3)
        logging.getLogger("other").error("four")
        told = capsys.readouterr().err
        assert shown in told
        assert "four" in told
        assert "one" not in told
        assert "two" not in told
    configure_logs("DEBUG", "json")
    logging.getLogger("httpx").info("GET https://host/?apiKey=sesame")
    logging.getLogger("urllib3.connectionpool").debug("POST /sesame")
    assert "sesame" not in capsys.readouterr().err


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_values(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Not those of local variables: they are whole frames, and keys."""
    configure_logs("WARNING", form)
    held = ["known", "here", "alone"]
    try:
        held.remove("nothing")
    except ValueError:
        logging.getLogger("uvicorn.error").exception("broken")
        structlog.get_logger().exception("broken too")
    told = capsys.readouterr().err
    assert told.count("ValueError") == 2
    assert "alone" not in told.replace('"known", "here", "alone"', "")


def test_a_process_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("INFO", "json", "worker")
    structlog.get_logger().info("one")
    configure_logs("DEBUG", "json")  # as the settings say, once they are read
    structlog.get_logger().debug("two")
    assert [line["command"] for line in lines(capsys)] == ["worker", "worker"]


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)
