"""Metrics on the port of the settings, while a process that runs for long does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from market_data.cli.output import say

if TYPE_CHECKING:
    from market_data.bootstrap import App


@contextmanager
def metrics_of(app: App) -> Iterator[None]:
    """Serve the program's metrics on `monitoring.prometheus_port` while the block runs, if one is set.

    Raises:
        ConfigError: when the address cannot be had.
    """
    from market_data.monitoring.exposition import exposed

    monitoring = app.settings.monitoring
    with exposed(app.observer, monitoring.prometheus_host, monitoring.prometheus_port) as port:
        if port is not None:
            say(f"metrics on http://{monitoring.prometheus_host}:{port}/metrics")
        yield
