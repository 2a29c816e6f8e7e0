"""Logs: to stderr, for people or as JSON lines, from structlog and the standard library alike."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor

from market_data.cli.output import as_json_lines
from market_data.cli.streams import printable

# Below WARNING these tell every request with its address, and addresses may carry keys.
CHATTY = ("httpx", "httpcore", "urllib3", "asyncio", "apprise", "oauthlib", "requests_oauthlib")


class _StandardError(logging.StreamHandler[TextIO]):
    """Standard error as it is when a line is written: progress bars put one of their own in its place."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # an attribute there
        return sys.stderr


def _without_controls(_: object, __: str, event: EventDict) -> EventDict:
    """What others sent, written out so that it does nothing to a terminal."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}


def configure_logs(level: str, form: str, command: str | None = None) -> None:
    """Sends every log record of the process to stderr.

    Args:
        level: Least severe one shown.
        form: ``console`` or ``json``.
        command: What the process does, from now on in every line that is about no request; None leaves that as it is.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    # With rich installed the default shows every local variable: whole frames, for minutes, and secrets.
    plain = structlog.dev.plain_traceback
    shared.append(_without_controls)
    renderer: Processor = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    as_json_lines(wanted=form == "json")
    # Warnings of libraries are lines like all the others.
    logging.captureWarnings(form == "json")
    if form == "json":
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer()
    handler = _StandardError()
    handler.setFormatter(
        ProcessorFormatter(foreign_pre_chain=shared, processors=[ProcessorFormatter.remove_processors_meta, renderer])
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    if command:
        structlog.contextvars.bind_contextvars(command=command)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
