"""Features of the user's own from end to end: stored with the candles, read at every door, renewed when changed."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import polars as pl
import pytest
from typer.testing import CliRunner

from market_data.bootstrap import App
from market_data.cli.app import app as program
from market_data.client import MarketData
from market_data.model.dataset import FUNDING_RATES
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.proof import bits
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.read.history import enriched
from market_data.pipeline.write.amend import Amender
from market_data.pipeline.write.ripple import COLUMNS, computed
from market_data.storage.facts.append import Provenance, append, lock_facts
from market_data.storage.series.own_features import stored

Opening = Callable[..., AbstractContextManager]
HOURS = Series(Instrument("BTC", AssetClass.CRYPTO), Timeframe.H1)
MINE = '''
import numpy as np
from market_data.model.feature import feature


@feature(lookback=5, inputs=("close",), unit="%")
def momentum_5(window):
    """Change of the close over five candles.

    Formula: (close - close 5 candles earlier) / that * 100.
    Null: for the first 5 candles; when the earlier close is 0.
    Source: momentum.
    """
    before = window.earlier(window.close, 5)
    return (window.close - before) / before * {factor}


@feature(lookback=1, inputs=("volume",), unit="text", labels=("falling", "rising"))
def volume_side(window):
    """Whether the volume is larger than the one before.

    Formula: rising if volume > previous volume, else falling.
    Null: for the first candle.
    Source: comparison.
    """
    before = window.earlier(window.volume, 1)
    return np.where(np.isnan(before), -1, (window.volume > before).astype(np.int8)).astype(np.int8)
'''
NAMES = ["momentum_5", "volume_side"]
# Renews in small steps and says after each how many stretches are left; ends when nobody reads any more.
RENEW = """
import sys
from datetime import datetime, UTC
from market_data.bootstrap import open_app
from market_data.config import load_settings
from market_data.pipeline.write import recompute
recompute.CHUNK_CANDLES = 20
settings = {"database.url": (sys.argv[1], "test"), "features.paths": (sys.argv[2], "test")}
with open_app(load_settings(environ={}, overrides=settings), clock=lambda: datetime(2026, 3, 2, tzinfo=UTC)) as app:
    app.recomputation.note_stale()
    for renewed in app.recomputation.run():
        print(renewed.changed, flush=True)
        sys.stdin.readline()
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE.replace("{factor}", "100.0"))
    return path


@pytest.fixture
def opened_with(opening: Opening, database_url: str, clock: Callable[[], datetime], mine: Path) -> Iterator[tuple]:
    with opening(database_url, clock, features__paths=str(mine)) as (served, asking):
        yield served, asking


def right(found: list[float | None], closes: list[Decimal]) -> bool:
    """Whether they are (c - c5) / c5 * 100, worked out exactly."""
    exact = [float((now - before) / before * 100) for now, before in zip(closes[5:], closes, strict=False)]
    return found[:5] == [None] * 5 and found[5:] == pytest.approx(exact, rel=1e-12)


def test_every_door_gives_them(opened_with, filling, database_url, mine) -> None:
    served, asking = opened_with
    filling(served.app)
    page = asking.get("/api/v1/market/features/BTC/1h", params={"limit": 240}).json()
    closes = [Decimal(str(row["close"])) for row in page["candles"]]
    assert right([row["momentum_5"] for row in page["candles"]], closes)
    assert [row["volume_side"] for row in page["candles"]] == [None, *["rising"] * 239]
    for accept, read in (
        ("application/vnd.apache.arrow.stream", pl.read_ipc_stream),
        ("application/vnd.apache.parquet", pl.read_parquet),
        ("text/csv", pl.read_csv),
    ):
        answer = asking.get("/api/v1/market/features/BTC/1h", headers={"Accept": accept})
        frame = read(io.BytesIO(answer.content))
        assert frame.columns[-2:] == NAMES
        assert frame["momentum_5"].to_list() == [row["momentum_5"] for row in page["candles"]]
    # Stocks have them too; plain candles do not.
    assert asking.get("/api/v1/market/features/AAPL/1d").json()["candles"][-1]["volume_side"] == "rising"
    assert not set(NAMES) & set(asking.get("/api/v1/market/candles/BTC/1h").json()["candles"][0])
    schema = asking.get("/api/v1/openapi.json").json()["components"]["schemas"]["EnrichedRow"]
    assert schema["additionalProperties"] == {"type": ["number", "string", "null"]}
    assert "files of their own" in schema["description"]
    # What was known then is computed by them as well.
    then = {"as_of": served.now().isoformat(), "limit": 240}
    assert [
        row["momentum_5"] for row in asking.get("/api/v1/market/features/BTC/1h", params=then).json()["candles"]
    ] == [row["momentum_5"] for row in page["candles"]]


def test_commands_and_the_client_give_them(opened_with, filling, database_url, mine, tmp_path) -> None:
    served, _ = opened_with
    filling(served.app)
    config = tmp_path / "settings.yaml"
    url = f"database: {{url: {json.dumps(database_url)}}}"
    config.write_text(f"features: {{paths: ['{mine}']}}\n{url}\n")
    base = ["--config", str(config)]
    run = CliRunner()
    csv = run.invoke(
        program, [*base, "features", "BTC", "1h", "--format", "csv", "-c", "momentum_5", "-c", "volume_side"]
    )
    assert csv.exit_code == 0, csv.output
    assert csv.stdout.splitlines()[0] == "timestamp,momentum_5,volume_side"
    assert csv.stdout.splitlines()[-1].endswith(",rising")
    last = csv.stdout.splitlines()[-1].split(",")[0]
    told = run.invoke(program, [*base, "features", "BTC", "1h", "--explain", last, "--json"])
    found = {each["feature"]: each for each in json.loads(told.stdout)}
    closes = [row["close"] for row in found["momentum_5"]["rows"]]
    assert len(closes) == 6
    assert found["momentum_5"]["value"] == pytest.approx((closes[5] - closes[0]) / closes[0] * 100, rel=1e-15)
    assert found["volume_side"]["value"] == "rising"
    # The first candle has neither, and says of how many candles it had only one.
    first = csv.stdout.splitlines()[1].split(",")[0]
    told = run.invoke(program, [*base, "features", "BTC", "1h", "--explain", first, "--json"])
    found = {each["feature"]: each for each in json.loads(told.stdout)}
    assert [(found[name]["value"], found[name]["complete"], len(found[name]["rows"])) for name in NAMES] == [
        (None, False, 1), (None, False, 1),
    ]  # fmt: skip
    status = run.invoke(program, [*base, "db", "status", "--json"])
    assert [each["name"] for each in json.loads(status.stdout)["user_features"]] == NAMES
    with MarketData.local(config=config) as data:
        frame = data.features("BTC", "1h")
    assert frame["volume_side"][-1] == "rising"


def test_every_kind_is_explained_in_words(opened_with, filling, database_url, mine) -> None:
    served, asking = opened_with
    filling(served.app)
    # 40 rates of 0.0001 and then one of 0.0003: 40 of 41 are below it.
    times = [served.now() - timedelta(hours=8 * place, minutes=40) for place in reversed(range(41))]
    rates = [
        {"timestamp": at, "known_at": at, "rate": "0.0003" if at == times[-1] else "0.0001", "rate_type": "Regular"}
        for at in times
    ]
    frame = pl.DataFrame(
        [FUNDING_RATES.record.model_validate(rate).model_dump() for rate in rates], FUNDING_RATES.schema
    )
    with served.app.database.transaction() as connection:
        lock_facts(connection, FUNDING_RATES, HOURS.instrument)
        told = Provenance(source="binance", now=served.now(), run_id=UUID(int=9))
        append(connection, served.app.database, FUNDING_RATES, HOURS.instrument, frame, told)
    (row,) = asking.get("/api/v1/market/candles/BTC/1h", params={"limit": 1}).json()["candles"]
    command = ["--database-url", database_url, "features", "BTC", "1h", "--explain", row["timestamp"]]
    said = CliRunner(env={"MARKET_DATA__FEATURES__PATHS": str(mine), "COLUMNS": "400"}).invoke(program, command)
    assert said.exit_code == 0, said.output
    parts = {part.splitlines()[0]: dict(lines(part)) for part in re.split(r"\n(?=[a-z_0-9]+\n)", said.stdout.strip())}
    assert set(parts) == {each.name for each in served.app.shelves.features}
    funding = parts["funding_rate_percentile"]
    assert float(funding["value"]) == pytest.approx(40 / 41 * 100, rel=1e-5)
    assert funding["observations of funding rates"] == "41"
    assert funding["funding rates.rate, newest last"].endswith(" 0.0001 0.0003")
    # Closes rise by a quarter: 155.5 … 159.75 are the last; (159.75 - 158.5) / 158.5.
    assert float(parts["momentum_5"]["value"]) == pytest.approx(1.25 / 158.5 * 100, rel=1e-5)
    assert parts["momentum_5"]["close, newest last"] == "158.5 158.75 159 159.25 159.5 159.75"
    assert parts["momentum_5"]["candles"] == "6 of the 6 it looks at"
    assert (parts["volume_side"]["value"], parts["market_structure"]["value"]) == ("rising", "bullish")
    # Nobody told of liquidations: null, with the rule that makes it so.
    assert parts["liquidation_intensity"]["value"] == "–"
    assert "when one of them is absent" in parts["liquidation_intensity"]["Null"]


def lines(part: str) -> Iterator[list[str]]:
    yield from (re.split(r"  +", line.strip(), maxsplit=1) for line in part.splitlines()[1:] if "  " in line)


def test_a_correction_reaches_them_in_the_same_transaction(opened_with, filling, clock) -> None:
    served, _ = opened_with
    app: App = served.app
    filling(app)
    before = enriched(app.reader, app.shelves, HOURS)
    at = before["timestamp"][100]
    clock.now += timedelta(hours=1)
    Amender(app.database, app.shelves, app.clock, "tester").correct(HOURS, at, {"close": "125.5"}, "test")
    after = enriched(app.reader, app.shelves, HOURS)
    differs = [row for row in range(240) if before["momentum_5"][row] != after["momentum_5"][row]]
    assert differs == [100, 105]
    assert right(after["momentum_5"].to_list(), after["close"].to_list())
    # What was known before the correction is what was stored then.
    then = enriched(app.reader, app.shelves, HOURS, as_of=clock.now - timedelta(minutes=1))
    assert (bits(then["momentum_5"]) == bits(before["momentum_5"])).all()


def test_one_that_fails_is_named_and_nothing_is_written(
    opened_with, filling, mine, opening, database_url, clock
) -> None:
    # It keeps the laws, and breaks on a price that no made-up series has.
    served, _ = opened_with
    filling(served.app)
    bad = MINE.replace("{factor}", "100.0").replace(
        "    before = window.earlier(window.close, 5)\n",
        "    before = window.earlier(window.close, 5)\n    if (window.close == 123456.75).any():\n"
        "        raise ValueError('too dear')\n",
    )
    mine.write_text(bad)
    with opening(database_url, clock, features__paths=str(mine)) as (again, _):
        app: App = again.app
        at = app.reader.last_timestamps(HOURS, 1)[0]
        amender = Amender(app.database, app.shelves, app.clock, "tester")
        with pytest.raises(ValueError, match="too dear") as raised:
            amender.correct(HOURS, at, {"close": "123456.75", "high": "123457"}, "test")
        assert raised.value.__notes__ == ["in feature momentum_5"]
        assert enriched(app.reader, app.shelves, HOURS)["close"][-1] == Decimal("159.75")


def test_new_changed_and_gone(opening: Opening, database_url: str, clock, filling, mine: Path) -> None:
    def opened(*paths: Path):
        return opening(database_url, clock, features__paths=",".join(map(str, paths)))

    with opened() as (served, _):
        filling(served.app)
        without = enriched(served.app.reader, served.app.shelves, HOURS)
        assert not set(NAMES) & set(without.columns)
    with opened(mine) as (served, _):
        app = served.app
        assert enriched(app.reader, app.shelves, HOURS)["momentum_5"].null_count() == 240
        assert app.recomputation.note_stale() == 2
        assert sum(renewed.changed for renewed in app.recomputation.run()) == 240 + before_recompute(app)
        # Exactly those: a second time there is nothing to do.
        assert app.recomputation.note_stale() == 0
        assert list(app.recomputation.run()) == []
        found = enriched(app.reader, app.shelves, HOURS)
        assert right(found["momentum_5"].to_list(), found["close"].to_list())
        # They have no part in the scores.
        assert found["quality_score"].to_list() == without["quality_score"].to_list()
    mine.write_text(MINE.replace("{factor}", "1.0"))
    with opened(mine) as (served, _):
        app = served.app
        app.recomputation.note_stale()
        list(app.recomputation.run())
        changed = enriched(app.reader, app.shelves, HOURS)
        assert changed["momentum_5"][-1] == pytest.approx(found["momentum_5"][-1] / 100, rel=1e-12)
    with opened() as (served, _):
        app = served.app
        assert not set(NAMES) & set(enriched(app.reader, app.shelves, HOURS).columns)
        app.recomputation.note_stale()
        list(app.recomputation.run())
        # Nobody declares them any more; what was stored is still there.
        assert [each.name for each in stored(app.database)] == NAMES
        kept = app.database.frame("SELECT momentum_5 FROM user_features WHERE symbol = 'BTC' ORDER BY timestamp")
        assert kept["momentum_5"].to_list() == changed["momentum_5"].to_list()[1:]


def before_recompute(app: App) -> int:
    return app.database.rows("SELECT count(*) AS rows FROM market_data_v2 WHERE symbol = 'AAPL'")[0]["rows"]


def test_a_killed_recompute_goes_on_where_it_was(
    opening: Opening, database_url: str, clock, filling, mine: Path
) -> None:
    with opening(database_url, clock) as (served, _):
        filling(served.app)
    worker = subprocess.Popen(
        [sys.executable, "-c", RENEW, database_url, str(mine)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert worker.stdout is not None
    assert worker.stdin is not None
    committed = 0
    for _ in range(4):
        committed += int(worker.stdout.readline())
        worker.stdin.write("\n")
        worker.stdin.flush()
    # It is in the middle of the fifth step, or just before or behind it.
    worker.send_signal(signal.SIGKILL)
    committed += sum(int(line) for line in worker.communicate(timeout=60)[0].split())
    with opening(database_url, clock, features__paths=str(mine)) as (served, _):
        app: App = served.app
        total = app.database.rows("SELECT count(*) AS rows FROM market_data_v2")[0]["rows"]
        fresh = app.database.rows(
            "SELECT count(*) AS rows FROM market_data_v2 WHERE feature_version = %s", [app.shelves.version]
        )[0]["rows"]
        assert committed <= fresh <= committed + 20
        assert 80 <= fresh < total
        app.recomputation.note_stale()
        assert sum(renewed.changed for renewed in app.recomputation.run()) == total - fresh
        found = enriched(app.reader, app.shelves, HOURS)
        scratch = computed(app.reader, app.shelves, HOURS, app.reader.candles(HOURS, ALL).select(COLUMNS))
        for name in scratch.columns[1:]:
            if scratch[name].dtype in (pl.Float64, pl.String):
                assert (bits(found[name]) == bits(scratch[name])).all(), name


ALL = TimeRange(datetime.fromisoformat("2020-01-01T00:00:00Z"), datetime.fromisoformat("2030-01-01T00:00:00Z"))
