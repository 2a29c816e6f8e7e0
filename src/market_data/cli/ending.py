"""How good what was done is, as an exit code: 0 all of it, 3 partly, 1 nothing."""

from __future__ import annotations

from typing import Final

import typer

from market_data.cli.output import say
from market_data.cli.program import DONE, FAILED, PARTLY_DONE
from market_data.model.job import Outcome

_CODES: Final = {Outcome.SUCCESS: DONE, Outcome.PARTIAL: PARTLY_DONE, Outcome.FAILED: FAILED}


def end_as(outcome: Outcome) -> None:
    """End the command.

    Raises:
        typer.Exit: unless all was done.
    """
    if code := _CODES[outcome]:
        raise typer.Exit(code)


def say_incomplete(rejected: int, gaps: int) -> None:
    """What is not as asked for though nothing failed, and where to look."""
    if rejected:
        say(f"{rejected:,} {'row was' if rejected == 1 else 'rows were'} refused: market-data quarantine list")
    if gaps:
        say(f"{gaps:,} {'candle is' if gaps == 1 else 'candles are'} missing: market-data gaps")
