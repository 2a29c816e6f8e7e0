"""No bytes of a source raise anything but our errors, reach a terminal unescaped, or leave rows that are none.

Every source, dataset and table that the contract suite knows is asked with one of its answers changed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import random
import re
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from market_data import rules as rule_shelf
from market_data.model.dataset import CANDLES, FX_RATES, TRADES, Dataset
from market_data.model.errors import MarketDataError
from market_data.model.instrument import Instrument, Series
from market_data.model.provider import Page, Provider
from market_data.model.rows import REJECTED, Rows
from market_data.model.rule import Rule
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.write.normalise import normalise
from market_data.pipeline.write.validate import validate, validate_facts
from market_data.providers.binance.klines import parse_file
from market_data.providers.binance.statistics import SERIES, parse_metrics
from market_data.providers.binance.trades import file_rows
from market_data.shelf import collect
from market_data.transport.http import Http
from market_data.transport.payload import load_json
from market_data.transport.senders import Request, Response

HERE = Path(__file__).parent


def _beside(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"hostile_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hostile, contract = _beside("hostile"), _beside("test_provider_laws")
RULES = list(collect(rule_shelf, Rule).values())
SEED = int(os.environ.get("HOSTILE_SEED", "20260731"))
FEW = 5_000
MANY = int(os.environ.get("HOSTILE_ANSWERS", "200000"))
# What the fakes answered, since they take their time to make it up.
HONEST: dict[Any, Response] = {}
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass
class Wire:
    """A sender that asks the fake, and changes one of its answers."""

    name: str
    source: Any
    dice: random.Random
    change: int = -1
    asked: int = 0

    async def send(self, request: Request) -> Response:
        key = (self.name, request.url, tuple(request.params.items()))
        if key not in HONEST:
            HONEST[key] = self.honest(request)
        self.asked += 1
        plain = HONEST[key]
        return self.altered(plain) if self.asked - 1 == self.change else plain

    def honest(self, request: Request) -> Response:
        sent = {**request.headers, "Cookie": "A3=d=x"}
        answer = self.source()(httpx.Request("GET", request.url, params=dict(request.params) or None, headers=sent))
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Response(
            url=request.url, status=answer.status_code, headers=headers, body=answer.content, elapsed_ms=1.0,
            fetched_at=datetime.now(UTC),
        )  # fmt: skip

    def altered(self, answer: Response) -> Response:
        which = self.dice.random()
        if which < 0.08:
            name, value = self.dice.choice(hostile.HEADERS)
            status = self.dice.choice((answer.status, 429, 418, 302))
            return replace(answer, headers={**answer.headers, name.lower(): value}, status=status)
        if which < 0.14:
            return replace(
                answer, status=self.dice.choice(hostile.STATUSES), body=hostile.changed(answer.body, self.dice)
            )
        return replace(answer, body=hostile.changed(answer.body, self.dice))

    async def aclose(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class Question:
    """One dataset of one instrument of one source."""

    name: str
    dataset: Dataset
    instrument: Instrument
    timeframe: Timeframe | None

    def pages(self, provider: Provider) -> AsyncIterator[Page]:
        now = contract.LOADED[self.name].NOW
        if self.timeframe is not None:
            start = now - max(self.timeframe.duration * 6, timedelta(days=3 if not self.timeframe.intraday else 0))
            return provider.fetch_candles(self.instrument, self.timeframe, start, now, now=now)
        if self.dataset is FX_RATES:
            return provider.fetch_rates(self.instrument, "CAD", now - timedelta(days=30), now, now=now)
        if self.dataset is TRADES:
            return provider.fetch_trades(self.instrument, now - timedelta(minutes=6), now, now=now)
        back = timedelta(hours=9) if self.name == "binance" else timedelta(days=100)
        return provider.fetch(self.dataset, self.instrument, now - back, now + timedelta(seconds=1), now=now)


def _provider(question: Question, dice: random.Random, change: int = -1) -> tuple[Provider, Wire]:
    fake = contract.LOADED[question.name]
    wire = Wire(question.name, getattr(fake, "filled", fake.Source), dice, change)
    changes = {"max_retries": 0, "requests_per_minute": 1e9}
    settings = contract.PROVIDERS[question.name].Settings(**{**fake.SETTINGS, **changes})
    clock = contract.Clock()
    http = Http(question.name, settings, sender=wire, clock=clock, sleep=clock.sleep, jitter=lambda: 1.0)
    return contract.PROVIDERS[question.name](settings, http), wire


async def _questions() -> list[tuple[Question, int]]:
    """Every question a fake has an answer to, and how many answers it takes."""
    found: list[tuple[Question, int]] = []
    for name in sorted(set(contract.PROVIDERS) - {"files"}):
        fake = contract.LOADED[name]
        instruments = dict.fromkeys((fake.KNOWN, *(case[0] for case in fake.CASES)))
        asked = [
            Question(name, capability.dataset, instrument, timeframe)
            for capability in contract.PROVIDERS[name].capabilities
            for instrument in instruments
            if instrument.asset_class in capability.asset_classes
            for timeframe in sorted(capability.timeframes, key=lambda each: each.duration) or [None]
        ]
        for question in asked:
            provider, wire = _provider(question, random.Random(0))
            try:
                rows = [page.frame.height async for page in question.pages(provider)]
            except MarketDataError:
                continue
            if sum(rows):
                found.append((question, wire.asked))
    return found


@dataclass(frozen=True)
class Reading:
    """A call of a provider's parser, as an honest answer makes it."""

    parse: Callable[..., Any]
    sent: bytes
    decoded: bool
    rest: tuple[Any, ...]
    named: dict[str, Any]

    def changed(self, dice: random.Random) -> bool:
        """Read the answer changed: whether it was refused."""
        body = hostile.changed(self.sent, dice)
        try:
            found = self.parse(load_json(body) if self.decoded else body, *self.rest, **self.named)
        except MarketDataError as error:
            _is_fit_to_be_read(error)
            return True
        for rows in found if isinstance(found, tuple) else (found,):
            if isinstance(rows, Rows):
                _look_at(rows, None)
        return False


def _readings() -> tuple[list[tuple[Question, int]], list[Reading]]:
    """Every question, and every call of a parser that its answer led to, by watching them."""
    readings: dict[tuple[Any, bytes], Reading] = {}
    modules = [module for name, module in sys.modules.items() if name.startswith("market_data.providers.")]
    parsers = {
        (module, name): held
        for module in modules
        for name, held in vars(module).items()
        if callable(held) and name.startswith(("parse_", "find_listing"))
    }

    def watched(parse: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            # A listing is looked for in a list, after the instrument that it is of.
            place = next((n for n, each in enumerate(given) if isinstance(each, bytes | list | dict)), None)
            if place == 0:
                decoded = not isinstance(given[0], bytes)
                sent = json.dumps(given[0]).encode() if decoded else given[0]
                readings.setdefault((parse, sent[:2000]), Reading(parse, sent, decoded, given[1:], named))
            return parse(*given, **named)

        return call

    try:
        for (module, name), parse in parsers.items():
            setattr(module, name, watched(parse))
        questions = asyncio.run(_questions())
    finally:
        for (module, name), parse in parsers.items():
            setattr(module, name, parse)
    return questions, list(readings.values())


QUESTIONS, READINGS = _readings()
# For the quick test: an answer of hundreds of rows takes ten times as long to change as to read.
SHORT = [reading for reading in READINGS if len(reading.sent) < 16_000]


def _look_at(page: Page | Rows, dataset: Dataset | None) -> None:
    assert dataset is None or dict(page.frame.schema) == dict(dataset.schema)
    assert dict(page.rejected.schema) == dict(REJECTED)
    for rule, payload in page.rejected.select("rule", "payload").iter_rows():
        json.loads(payload)
        assert not UNSAFE.search(rule)
        assert not UNSAFE.search(payload)
    for name, kind in page.frame.schema.items():
        if kind in (pl.String, pl.List):
            texts = page.frame[name].explode() if kind == pl.List else page.frame[name]
            assert not any(UNSAFE.search(text) for text in texts.drop_nulls())


async def _ask(question: Question, dice: random.Random, change: int) -> bool:
    """Whether it was refused; whatever else it does is a failure."""
    provider, _ = _provider(question, dice, change)
    try:
        async for page in question.pages(provider):
            _look_at(page, question.dataset)
            if question.timeframe is not None:
                series = Series(question.instrument, question.timeframe)
                rules = [rule for rule in RULES if rule.dataset is CANDLES]
                validate(series, normalise(series, page.frame).drop("first_of_timestamp"), rules)
            else:
                validate_facts(question.dataset, page.frame, RULES)
    except MarketDataError as error:
        _is_fit_to_be_read(error)
        return True
    return False


def _is_fit_to_be_read(error: MarketDataError) -> None:
    assert not UNSAFE.search(str(error))
    assert len(str(error)) <= 2_000


async def _tables(dice: random.Random) -> None:
    day = datetime(2025, 1, 1, tzinfo=UTC)
    millis = int(day.timestamp()) * 1000
    klines = "".join(f"{millis + n * 60000},1,2,0.5,1.5,10,{millis + n * 60000 + 59999},15,3,5,7,0\n" for n in range(6))
    metrics = (
        "create_time,symbol,a,b,c,d,e,f\n2025-01-01 00:05:00,BTCUSDT,1,2,3,4,5,6\n2025-01-01 00:10:00,BTCUSDT,,,,,,\n"
    )
    trades = f"1,100.5,0.25,1,2,{millis},true\n2,100.5,0.25,3,4,{millis + 5},False\n"
    try:
        which = dice.randrange(3)
        if which == 0:
            rows = [parse_file(hostile.changed_lines(klines.encode(), dice))]
        elif which == 1:
            rows = [parse_metrics(hostile.changed_lines(metrics.encode(), dice), dice.choice(SERIES), day)]
        else:
            rows = list(
                file_rows(hostile.changed_lines(trades.encode(), dice), TimeRange(day, day + timedelta(days=1)))
            )
        for each in rows:
            assert dict(each.rejected.schema) == dict(REJECTED)
            assert not any(UNSAFE.search(payload) for payload in each.rejected["payload"])
    except MarketDataError as error:
        _is_fit_to_be_read(error)


async def _files(dice: random.Random) -> None:
    fake = contract.LOADED["files"]
    lines = [f"2025-01-{n + 1:02}T00:00:00Z,10.10,12.00,9.05,11.00000001,{n}.5" for n in range(5)]
    for path in fake.FOLDER.iterdir():
        path.unlink()
    (fake.FOLDER / "files.yaml").write_text(fake.DESCRIPTION)
    (fake.FOLDER / "btc-1.csv").write_bytes(hostile.changed_lines((fake.HEADER + "\n".join(lines)).encode(), dice))
    provider = contract.PROVIDERS["files"](contract.PROVIDERS["files"].Settings(**fake.SETTINGS), None)
    try:
        async for page in provider.fetch_candles(fake.KNOWN, Timeframe.M5, fake.LISTED, fake.NOW, now=fake.NOW):
            _look_at(page, CANDLES)
    except MarketDataError as error:
        _is_fit_to_be_read(error)


async def _all(count: int, seed: int, conversations: float, readings: list[Reading]) -> dict[str, int]:
    tally = {"answers": 0, "refused": 0}
    for number in range(count):
        dice = random.Random(f"{seed}/{number}")
        kind = dice.random()
        try:
            if kind < 0.08:
                await _tables(dice)
            elif kind < 0.10:
                await _files(dice)
            elif kind < 0.10 + conversations:
                question, answers = dice.choice(QUESTIONS)
                tally["refused"] += await _ask(question, dice, dice.randrange(answers))
            else:
                tally["refused"] += dice.choice(readings).changed(dice)
        except BaseException as error:
            error.add_note(f"HOSTILE_SEED={seed}, answer {number}")
            raise
        tally["answers"] += 1
    return tally


def test_every_source_and_dataset_is_asked() -> None:
    asked = {(question.name, question.dataset.name) for question, _ in QUESTIONS}
    served = {
        (name, capability.dataset.name)
        for name, cls in contract.PROVIDERS.items()
        for capability in cls.capabilities
        if name != "files"
    }
    assert {reading.parse for reading in SHORT} == {reading.parse for reading in READINGS}
    assert served - asked <= {("ccxt", "funding_rates"), ("ccxt", "open_interest")}


def test_no_answer_raises_anything_but_our_errors() -> None:
    assert asyncio.run(_all(FEW, SEED, 0.03, SHORT))["answers"] == FEW


@pytest.mark.prove
def test_no_answer_of_very_many_does() -> None:
    began = time.monotonic()
    tally = asyncio.run(_all(MANY, SEED + 1, 0.3, READINGS))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{tally}, seed {SEED + 1}, {time.monotonic() - began:.0f} s, peak memory {peak:.0f} MB")
    assert tally["answers"] == MANY
