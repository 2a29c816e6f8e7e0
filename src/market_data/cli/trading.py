"""What is said on the command line of contracts that do not trade."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from market_data.cli.invocation import now

if TYPE_CHECKING:
    from market_data.bootstrap import App
    from market_data.model.instrument import Instrument


def trading_notes(app: App, instruments: Iterable[Instrument]) -> list[str]:
    """A line for each instrument whose own contract is halted, ended or not listed yet."""
    from market_data.storage.facts.expectations import trading

    found = trading(app.database, list(dict.fromkeys(instruments)))
    words = [(instrument, stands.words(now())) for instrument, stands in found.items()]
    return [f"{instrument.symbol}: {said}" for instrument, said in words if said]
