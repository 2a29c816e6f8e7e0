"""What a failure is, whatever was raised: an error of ours, or a defect: logged, and failing only what raised it."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Sequence
from copy import copy
from typing import Final

import structlog

from market_data.model.errors import MarketDataError, attributed, unexpected
from market_data.model.text import LONGEST_MESSAGE, kept

log = structlog.get_logger()

# Of the innermost calls, where a defect lies; more of a recursion than this tells nothing.
FRAMES: Final = 12


def as_ours(error: BaseException, **about: object) -> MarketDataError:
    """The error as one of ours; one that nobody expected is logged with where it was raised, never with values.

    Classes of any kind count: a library written in Rust panics beside `Exception`, another raises that it was cancelled
    though nobody cancelled it.

    Args:
        about: what was being done: series, source, range.

    Raises:
        BaseException: the same, when it is no failure: we were cancelled, interrupted, or are to exit.
    """
    if isinstance(error, MarketDataError):
        return error
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit) or _were_cancelled(error):
        raise error
    found = unexpected(error)
    log.error(
        "unexpected_failure",
        kind=f"{type(error).__module__}.{type(error).__qualname__}",
        error=str(found),
        trace=trace(error),
        **{name: kept(str(value), LONGEST_MESSAGE) for name, value in about.items()},
    )
    return found


def trace(error: BaseException) -> list[str]:
    """Where an error was raised, innermost last: file, line and function of each call, without any value."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def together(failures: Sequence[tuple[str, MarketDataError]], skipped: Sequence[str] = ()) -> MarketDataError:
    """Several sources' failures as one that names them all; the most hopeful one says what it is.

    Args:
        failures: at least one, each with its source.
        skipped: sources that were not asked, and why.
    """
    errors = [error for _, error in failures]
    chosen = next((error for error in errors if error.again), None)
    chosen = chosen or next((error for error in reversed(errors) if not error.answered), errors[-1])
    # What several of them say in the same words is said once.
    first = {str(error): source for source, error in reversed(failures)}
    told = [attributed(source, error) for source, error in failures if first[str(error)] == source]
    said = list(dict.fromkeys([*told, *skipped]))
    if len(said) == 1:
        return chosen
    found = copy(chosen)
    found.args = (kept("; ".join(said), LONGEST_MESSAGE),)
    found.__cause__ = chosen
    return found


def _were_cancelled(error: BaseException) -> bool:
    task = asyncio.current_task() if isinstance(error, asyncio.CancelledError) else None
    return task is not None and task.cancelling() > 0
