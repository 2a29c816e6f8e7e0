"""A pytest plugin: the run fails when a secret of its tests stands in anything that was logged or printed.

It reads what pytest captured of every test, standard error of every program that a test ran to its end included.
"""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from market_data.cli.logs import CHATTY

# Whatever looks like an API key, and what the tests give as passwords and keys of sources.
SECRETS = re.compile(
    r"mdk_[0-9a-f]{32}_[A-Za-z0-9_-]{43}|planted-[a-z]+-secret|hush-secret|right-7hx|pa55-word-9|a-key-for-tests|sesame"
)
PROGRAMS: list[str] = []


def secrets_in(text: str) -> Iterator[str]:
    """The secrets in a text, mostly hidden."""
    yield from (f"{found[0][:8]}…" for found in SECRETS.finditer(text))


class Watch:
    """Collects where secrets were seen; the run fails when there are any."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Search what was captured of one phase of a test."""
        for name, text in report.sections:
            self.seen |= {f"{report.nodeid}: {name}: {secret}" for secret in secrets_in(text)}

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run."""
        if self.seen:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say where."""
        if self.seen:
            terminalreporter.section("secrets in the logs", red=True)
            for line in sorted(self.seen):
                terminalreporter.line(line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Add what programs said on standard error to the test's report."""
    report = yield
    report.sections += [("standard error of a program", text) for text in PROGRAMS]
    PROGRAMS.clear()
    return report


def pytest_configure(config: pytest.Config) -> None:
    """Watch the run, and the programs it runs; what the program itself silences is not looked at."""
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    config.pluginmanager.register(Watch(), "secrets-in-logs")
    run = subprocess.run

    def watched(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[Any]:
        done = run(*arguments, **options)
        if done.stderr:
            PROGRAMS.append(done.stderr if isinstance(done.stderr, str) else done.stderr.decode(errors="replace"))
        return done

    subprocess.run = watched
    config.add_cleanup(lambda: setattr(subprocess, "run", run))
