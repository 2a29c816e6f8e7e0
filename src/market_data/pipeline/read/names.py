"""Which instrument a name means: what is tracked or stored, else what the stored lists know."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from market_data.model.contract import Contract, Preference
from market_data.model.errors import UnknownInstrument, UsageError
from market_data.model.instrument import AssetClass, Instrument
from market_data.pipeline.read.status import Standings
from market_data.storage.facts.contracts import Stored, newest, owned_by
from market_data.storage.facts.instruments import known_symbols
from market_data.storage.server.database import Database

SUGGESTIONS: Final = 5
# A pair as Massive, Yahoo and many others write it: without anything, with a dash or after a prefix.
_NAMED: Final = (
    "%(text)s IN (c.symbol, c.raw_symbol, c.base) OR (c.quote IS NOT NULL AND c.asset_class = 'crypto' "
    "AND %(text)s IN (c.base || '-' || c.quote, 'X:' || c.base || c.quote))"
)


@dataclass(frozen=True)
class Names:
    """Finds what is meant; needs the database, what is tracked or stored, and what a bare coin means."""

    database: Database
    standings: Standings
    preference: Preference

    def meant(self, text: str, asset_class: AssetClass | None = None) -> Instrument | None:
        """The instrument a name means; None when neither anything stored nor a stored list knows it.

        Raises:
            UsageError: when it may mean several, naming them.
        """
        for spelling in dict.fromkeys((text, text.upper())):
            instrument, known = self.standings.stored(spelling, asset_class)
            if known:
                return instrument
            found = self._listed(spelling, asset_class)
            if found:
                return self._one(text, found)
        return None

    def suggestion(self, text: str) -> str:
        """What may have been meant, as a sentence; empty when nothing is near."""
        known: dict[str, str | None] = known_symbols(self.database)
        near = difflib.get_close_matches(text.upper(), known, n=SUGGESTIONS, cutoff=0.6)
        named = [each for each, name in known.items() if name and text.lower() in name.lower().split()]
        found = list(dict.fromkeys([*named, *near]))[:SUGGESTIONS]
        return f" Did you mean {', '.join(found)}?" if found else ""

    def among(self, text: str, listed: Sequence[Contract]) -> list[Instrument]:
        """The instruments that a name may mean among contracts: the coin or share itself, else those named so."""
        bare = {contract.asset_class for contract in listed if contract.base == text}
        if bare:
            return [Instrument(text, each) for each in sorted(bare)]
        return [Instrument(each, kind) for each, kind in dict.fromkeys((c.symbol, c.asset_class) for c in listed)]

    def stored_as(self, instrument: Instrument) -> Instrument:
        """The instrument whose storage an exact notation shares: the bare coin whose own contract it names.

        Reads by the exact notation show that contract's rows alone.
        """
        if "/" not in instrument.symbol:
            return instrument
        named = newest(
            self.database, "c.symbol = %s AND c.asset_class = %s", [instrument.symbol, instrument.asset_class]
        )
        for each in sorted(named, key=lambda each: each.life, reverse=True):
            bare = Instrument(each.contract.base, instrument.asset_class)
            owner = owned_by(self.database, bare)
            if owner is not None and owner == each.contract_id:
                return replace(bare, only=each.contract_id)
            if owner is None and self._would_own(each):
                return replace(bare, only=each.contract_id)
        return instrument

    def _would_own(self, stored: Stored) -> bool:
        """Whether the bare coin will mean this contract, once somebody asks for it."""
        listed = newest(
            self.database,
            "c.base = %s AND c.venue = %s AND v.source = %s",
            [stored.contract.base, stored.contract.venue, stored.source],
        )
        best = self.preference.best(each.contract for each in listed)
        return best is not None and best.key == stored.contract.key

    def _listed(self, text: str, asset_class: AssetClass | None) -> list[Instrument]:
        condition, parameters = f"({_NAMED})", {"text": text}
        found = _newest_named(self.database, condition, parameters)
        if not found and ":" in text:
            # A source before the name: binance:BTCUSDT.
            source, _, name = text.partition(":")
            found = [each for each in _newest_named(self.database, condition, {"text": name}) if each.source == source]
            text = name
        wanted = [each.contract for each in found if asset_class in (None, each.contract.asset_class)]
        return self.among(text, wanted)

    def _one(self, text: str, found: Sequence[Instrument]) -> Instrument:
        if len(found) == 1:
            return found[0]
        if len({each.asset_class for each in found}) == len(found):
            choices = " or ".join(f"--asset-class {each.asset_class}" for each in found)
            raise UsageError(f"{text} is listed as several kinds of things: say which with {choices} (asset_class).")
        raise UsageError(f"{text} may mean {', '.join(each.symbol for each in found)}: name the one you want.")


def _newest_named(database: Database, condition: str, parameters: Mapping[str, str]) -> list[Stored]:
    text = parameters["text"]
    return newest(database, condition.replace("%(text)s", "%s"), [text] * condition.count("%(text)s"))


def unknown(text: str, names: Names) -> UnknownInstrument:
    """The error for a name that nobody knows."""
    return UnknownInstrument(f"No source lists {text}.{names.suggestion(text)}")
