"""The platform's own alerts: pending, firing, resolved; told once per change to who is named, never leaking."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from pydantic import SecretStr

from market_data.bootstrap import open_app
from market_data.cli.logs import CHATTY
from market_data.config import load_settings
from market_data.model.errors import ConfigError
from market_data.monitoring.delivery import targets_of
from market_data.monitoring.readings import Observer, Readings
from market_data.monitoring.watch import Policy, Watch
from market_data.storage.server.database import Database
from market_data.storage.work.alerts import stored_alerts

SECRET = "sesame-4711"
# Apprise imports what Python 3.13 leaves out, and makes up for it there.
pytestmark = pytest.mark.filterwarnings("ignore:'(imghdr|cgi)' is deprecated:DeprecationWarning")


class Receiver:
    """Somebody on loopback who is told; answers with `status`."""

    def __init__(self) -> None:
        self.documents: list[dict[str, Any]] = []
        self.status = 204
        receiver = self

        class Taking(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if receiver.status < 300:
                    receiver.documents.append(json.loads(body))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Taking)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.address = f"127.0.0.1:{self._server.server_port}/{SECRET}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def told(self) -> list[tuple[str, str, str]]:
        return [(a["state"], a["rule"], a["subject"]) for document in self.documents for a in document["alerts"]]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


class Scene:
    """A watch over readings that the test makes, a minute later at every look."""

    def __init__(self, database: Database, well: Readings, *urls: str, **policy: Any) -> None:
        self.database = database
        self.readings = well
        self.now = well.at
        self.policy = Policy(targets=targets_of([SecretStr(url) for url in urls]), **policy)
        self.watch = self.another()

    def another(self) -> Watch:
        """One more, as after a restart."""
        scene = self

        class Seeing(Observer):
            def read(self) -> Readings:
                return scene.readings

        nothing: Any = None
        observer = Seeing(
            database=self.database, standings=nothing, tracked=list, timetable=nothing, limits=self.readings.limits,
            breakers=dict, clock=lambda: self.now,
        )  # fmt: skip
        return Watch(observer, self.policy, 60)

    def look(self, readings: Readings | None = None, minutes: int = 1) -> None:
        self.readings = readings or self.readings
        for _ in range(minutes):
            self.now += timedelta(minutes=1)
            self.watch.look()

    @property
    def states(self) -> list[tuple[str, str]]:
        return [(one.rule, one.state) for one in stored_alerts(self.database)]


FIRING = ("firing", "MarketDataNoWorker", "")
OVER = ("resolved", "MarketDataNoWorker", "")


def test_told_once_when_it_fires_and_once_when_it_is_over(
    database: Database, well: Readings, receiver: Receiver
) -> None:
    scene = Scene(database, well, f"http://{receiver.address}")
    scene.look(minutes=3)
    assert (receiver.told, scene.states) == ([], [])
    idle = replace(well, workers=0)
    scene.look(idle, minutes=5)
    assert (receiver.told, scene.states) == ([], [("MarketDataNoWorker", "pending")])
    scene.look(minutes=10)
    assert (receiver.told, scene.states) == ([FIRING], [("MarketDataNoWorker", "firing")])
    (document,) = receiver.documents
    assert (document["title"], document["urgent"]) == ("Market data: 1 firing", True)
    assert "market-data worker" in document["alerts"][0]["action"]
    scene.look(well, minutes=3)
    assert (receiver.told, scene.states) == ([FIRING, OVER], [])


def test_what_ends_before_its_time_is_not_told(database: Database, well: Readings, receiver: Receiver) -> None:
    scene = Scene(database, well, f"http://{receiver.address}")
    for _ in range(3):
        scene.look(replace(well, workers=0), minutes=4)
        scene.look(well)
    assert (receiver.told, scene.states) == ([], [])


def test_a_restart_tells_nothing_twice(database: Database, well: Readings, receiver: Receiver) -> None:
    scene = Scene(database, well, f"http://{receiver.address}")
    scene.look(replace(well, workers=0), minutes=7)
    scene.watch = scene.another()
    scene.look(minutes=20)
    assert receiver.told == [FIRING]


def test_of_two_watches_one_tells(database: Database, well: Readings, receiver: Receiver) -> None:
    scene = Scene(database, well, f"http://{receiver.address}")
    other = scene.another()
    scene.readings = replace(well, workers=0)
    for _ in range(10):
        scene.look()
        other.look()
    assert receiver.told == [FIRING]
    # The one that told is gone: the other takes over, and tells what comes then.
    scene.readings = well
    for _ in range(5):
        scene.now += timedelta(minutes=1)
        other.look()
    assert receiver.told == [FIRING, OVER]


def test_who_could_not_be_told_is_told_later_and_the_others_are_not_told_again(
    database: Database, well: Readings, receiver: Receiver
) -> None:
    deaf = Receiver()
    try:
        scene = Scene(database, well, f"http://{receiver.address}", f"json://{deaf.address}")
        deaf.status = 500
        scene.look(replace(well, workers=0), minutes=8)
        assert (receiver.told, deaf.documents) == ([FIRING], [])
        deaf.status = 200
        scene.look()
        assert receiver.told == [FIRING]
        (document,) = deaf.documents
        assert document["title"] == "Market data: 1 firing"
        assert "MarketDataNoWorker" in document["message"]
        deaf.status = 500
        scene.look(well)
        scene.look(replace(well, workers=0))  # back before the second one knew
        deaf.status = 200
        scene.look(minutes=6)
        # The first one knows of the pause, the second never knew.
        assert receiver.told == [FIRING, OVER, FIRING]
        assert len(deaf.documents) == 1
    finally:
        deaf.close()


@pytest.mark.parametrize(("policy", "told"), [({"critical_only": True}, []), ({"resolved": False}, ["firing"])])
def test_only_what_is_wanted_is_told(
    policy: dict[str, bool], told: list[str], database: Database, well: Readings, receiver: Receiver
) -> None:
    scene = Scene(database, well, f"http://{receiver.address}", **policy)
    scene.look(replace(well, fetch_success=0.5), minutes=16)
    scene.look(well, minutes=2)
    assert [state for state, *_ in receiver.told] == told
    assert scene.states == []


def test_many_alerts_are_one_message(
    database: Database, broken: dict[str, tuple[Readings, dict[str, str]]], well: Readings, receiver: Receiver
) -> None:
    scene = Scene(database, well, f"http://{receiver.address}")
    stale = broken["MarketDataStale"][0]
    scene.look(replace(stale, instruments=[stale.instruments[1]] * 1 + [stale.instruments[0]], workers=0), minutes=6)
    (document,) = receiver.documents
    assert {alert["rule"] for alert in document["alerts"]} == {"MarketDataStale", "MarketDataNoWorker"}


@pytest.mark.parametrize("scheme", ["http", "json"])
def test_no_address_gets_into_a_log_or_the_database(
    scheme: str,
    database: Database,
    well: Readings,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in CHATTY:  # as configure_logs does
        monkeypatch.setattr(logging.getLogger(name), "level", logging.WARNING)
    scene = Scene(database, well, f"{scheme}://{receiver.address}")
    receiver.status = 500
    scene.look(replace(well, workers=0), minutes=7)
    receiver.close()  # nobody is there any more
    scene.watch.look()
    out = capsys.readouterr()
    assert "notification_failed" in out.out + out.err + caplog.text
    assert SECRET not in out.out + out.err + caplog.text + repr(scene.policy)
    assert SECRET not in json.dumps(database.rows("SELECT * FROM alerts"), default=str)
    receiver.__init__()  # type: ignore[misc]  # for the fixture to close


@pytest.mark.parametrize("url", [SECRET, f"://{SECRET}", f"nosuch://{SECRET}"])
def test_an_address_that_makes_no_sense_is_refused_unseen(url: str, database_url: str, well: Readings) -> None:
    overrides = {
        "database.url": (database_url, "the test"), "monitoring.notifications.urls": ([url], "the test"),
    }  # fmt: skip
    settings = load_settings(environ={}, overrides=overrides)
    assert SECRET not in repr(settings)
    match = r"monitoring\.notifications\.urls"
    with open_app(settings, clock=lambda: well.at) as app, pytest.raises(ConfigError, match=match) as refused:
        app.scheduler()
    assert SECRET not in str(refused.value)


def test_addresses_from_the_environment() -> None:
    def urls(text: str) -> list[str]:
        environ = {"MARKET_DATA__MONITORING__NOTIFICATIONS__URLS": text}
        return [url.get_secret_value() for url in load_settings(environ=environ).monitoring.notifications.urls]

    assert urls("https://a/?x=1,2, json://b  slack://c") == ["https://a/?x=1,2", "json://b", "slack://c"]
    assert urls("[https://a, json://b]") == ["https://a", "json://b"]


async def test_the_scheduler_watches(database_url: str, well: Readings, receiver: Receiver) -> None:
    """End to end: settings, scheduler, rules, database, receiver; nobody works, so that is what is told."""
    overrides = {
        "database.url": database_url,
        "monitoring.watch_seconds": 1,
        "monitoring.notifications.urls": [f"http://{receiver.address}"],
    }
    times = iter(range(10_000))
    settings = load_settings(environ={}, overrides={key: (value, "the test") for key, value in overrides.items()})
    with open_app(settings, clock=lambda: well.at + timedelta(minutes=next(times))) as app:
        scheduler = app.scheduler()
        scheduler.start()
        try:
            await seen(lambda: FIRING in receiver.told)
        finally:
            scheduler.stop()


async def seen(condition: Callable[[], object]) -> None:
    import asyncio

    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # another thread would see no event either
            await asyncio.sleep(0.05)
