"""One run of the program: the options of the whole program, and what opens from them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from market_data.cli.output import say, waiting

if TYPE_CHECKING:
    from market_data.bootstrap import App
    from market_data.bootstrap.sources import Sources
    from market_data.config import Settings
    from market_data.storage.server.database import Database


@cache
def _say_once(remark: str) -> None:
    say(remark)


def now() -> datetime:
    """The present moment, UTC: the clock handed to everything below."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """The options of the whole program."""

    config: Path | None = None
    data_dir: Path | None = None
    database_url: str | None = None
    log_level: str | None = None
    sandbox: bool = False
    debug: bool = False
    command: str | None = None

    def settings(self, more: Mapping[str, tuple[Any, str]] | None = None) -> Settings:
        """The settings in force, and logs set up by them.

        Args:
            more: Further values by dotted key, each with where it came from.

        Raises:
            ConfigError: naming the key, where it was written and the nearest known one.
        """
        from market_data.cli.logs import configure_logs
        from market_data.config import load_settings

        settings = load_settings(self.config, os.environ, {**self._options(), **(more or {})})
        # A command that ends by itself prints what went wrong in its own words; the logs would say it twice.
        asked_for = "monitoring.log_level" in settings.origins
        level = settings.monitoring.log_level if asked_for else "ERROR"
        configure_logs(level, settings.monitoring.log_format, self.command)
        for remark in settings.remarks:
            _say_once(f"warning: {remark}")
        return settings

    @contextmanager
    def app(self, *, asks_providers: bool = False, more: Mapping[str, tuple[Any, str]] | None = None) -> Iterator[App]:
        """The program over its database.

        Args:
            asks_providers: Whether providers will be asked; in the sandbox their stand-in is then started.
            more: Further settings by dotted key, each with where it came from.
        """
        from market_data.bootstrap import open_app
        from market_data.storage.server.clock import SystemClock

        with ExitStack() as stack:
            settings = stack.enter_context(self._served(more)) if asks_providers else self.settings(more)
            with waiting("opening the database"):
                app = stack.enter_context(open_app(settings, clock=SystemClock(now)))
            yield app

    @contextmanager
    def sources(self) -> Iterator[tuple[Settings, Sources]]:
        """The settings and every enabled provider; no database is made for them."""
        from market_data.bootstrap.sources import open_sources

        with self._served() as settings, open_sources(settings) as sources:
            yield settings, sources

    @contextmanager
    def database(self) -> Iterator[Database]:
        """The database as it is, not migrated."""
        from market_data.bootstrap import open_database

        with ExitStack() as stack:
            with waiting("opening the database"):
                database = stack.enter_context(open_database(self.settings()))
            yield database

    @contextmanager
    def _served(self, more: Mapping[str, tuple[Any, str]] | None = None) -> Iterator[Settings]:
        """The settings, and while they are in use the sandbox they point to, if they do."""
        if not self.sandbox:
            yield self.settings(more)
            return
        from market_data.cli.sandboxing import served

        with served() as addresses:
            yield self.settings({key: (value, "--sandbox") for key, value in addresses.items()} | dict(more or {}))

    def _options(self) -> dict[str, tuple[Any, str]]:
        given: dict[str, tuple[Any, str]] = {}
        if self.data_dir is not None:
            given["database.data_dir"] = (self.data_dir, "--data-dir")
        if self.log_level is not None:
            given["monitoring.log_level"] = (self.log_level.upper(), "--log-level")
        if self.sandbox:
            given["database.sandbox"] = (True, "--sandbox")
            if self.database_url is None and os.environ.get("DATABASE_URL"):
                say("--sandbox: leaving DATABASE_URL alone, using the sandbox's own database")
            # A database named elsewhere is the live one: the sandbox uses it only when told so on the command line.
            given["database.url"] = (None, "--sandbox")
        if self.database_url is not None:
            given["database.url"] = (self.database_url, "--database-url")
        return given
