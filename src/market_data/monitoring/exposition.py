"""Metrics on a port of their own, for processes that serve no API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import start_http_server

from market_data.model.errors import ConfigError
from market_data.monitoring.collector import process_registry
from market_data.monitoring.readings import Observer


@contextmanager
def exposed(observer: Observer, host: str, port: int | None) -> Iterator[int | None]:
    """Serve the metrics at http://host:port/metrics while the block runs; not at all without a port.

    Yields:
        The port in use; port 0 takes a free one.

    Raises:
        ConfigError: when the address cannot be had.
    """
    if port is None:
        yield None
        return
    try:
        server, thread = start_http_server(port, host, process_registry(observer))
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"Metrics cannot be served on {host} port {port}: {reason}; choose another monitoring.prometheus_port "
            "(PROMETHEUS_PORT), one per process of a machine"
        ) from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
