"""What a source lists, folded into the stored contracts: new ones, lives, statuses, corrected dates, what is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from market_data.model.contract import Contract
from market_data.model.instrument import AssetClass, Instrument, Status
from market_data.storage.facts.contracts import Stored, newest, register, say, tie
from market_data.storage.wire.connection import Connection

# A name without dates that is gone for less than this and comes back is the same contract: lists have hiccups.
RETURNS_WITHIN: Final = timedelta(days=7)
GONE: Final = "no longer listed"
# A list that lost more than this share of its contracts is taken for cut short.
VANISHED_AT_MOST: Final = 0.5
FEW: Final = 10


@dataclass(slots=True)
class Recorded:
    """What a list changed: contracts that are new, those of which something else is said, and those kept in doubt."""

    added: int = 0
    changed: int = 0
    kept: int = 0


def record(
    connection: Connection, source: str, listed: Sequence[Contract], now: datetime, *, complete: bool = False
) -> Recorded:
    """Store what a source lists, in the caller's transaction.

    Args:
        source: the provider's name.
        listed: its contracts as they are now.
        now: the moment of the list.
        complete: whether it is all that the venues and markets in it have; else what it lacks stays as it is.
    """
    result, wanted = Recorded(), {contract.key for contract in listed}
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"contracts/{source}"])
    venues = sorted({(contract.venue, contract.market) for contract in listed})
    if complete:
        condition = "(c.venue, c.market) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"
        known = newest(connection, condition, [[v for v, _ in venues], [m for _, m in venues]])
    else:
        condition = "(c.venue, c.market, c.raw_symbol) IN (SELECT * FROM unnest(%s::text[], %s::text[], %s::text[]))"
        known = newest(connection, condition, [list(column) for column in zip(*wanted, strict=True)] or [[], [], []])
    latest: dict[tuple[str, str, str], Stored] = {}
    for stored in sorted(known, key=lambda each: (each.life, each.source == source, each.known_from)):
        latest[stored.contract.key] = stored
    for contract in _one_each(listed):
        _record_one(connection, source, contract, latest.get(contract.key), now, result)
    if complete:
        own = [each for key, each in latest.items() if each.source == source and key not in wanted]
        _close(connection, own, len(latest), now, result)
    return result


def _one_each(listed: Sequence[Contract]) -> list[Contract]:
    """The contracts, of several that share a name the one that lives last: a list may hold the dead beside the heir."""
    order = sorted(listed, key=lambda each: (not each.status.ended, each.listed_to is None, str(each.listed_to)))
    return list({each.key: each for each in order}.values())


def _record_one(
    connection: Connection,
    source: str,
    contract: Contract,
    stored: Stored | None,
    now: datetime,
    result: Recorded,
) -> None:
    if stored is None:
        number = register(connection, contract, 1, now)
        result.added += 1
    elif _is_another(contract, stored, now):
        number = register(connection, contract, stored.life + 1, now)
        _inherit(connection, source, contract, stored, number, now)
        result.added += 1
    else:
        number = stored.contract_id
        _note_correction(connection, source, contract, stored, now)
    changed = say(connection, number, source, _dated(contract, stored, now), now)
    result.changed += changed and stored is not None and number == stored.contract_id


def _is_another(contract: Contract, stored: Stored, now: datetime) -> bool:
    """Whether the name passed to another contract since."""
    before = stored.contract
    if (contract.base, contract.quote, contract.kind) != (before.base, before.quote or contract.quote, before.kind):
        return True
    if contract.listed_from is not None and contract.listed_from > stored.known_from and not contract.status.ended:
        # It was in the list before that: this one is not the same, however briefly the name was free.
        return before.status is not Status.NOT_YET_LISTED and before.listed_from != contract.listed_from
    if contract.status.ended or not before.status.ended:
        return False
    ended = before.listed_to or before.status_since
    if contract.listed_from is not None and before.listed_from is not None:
        return contract.listed_from > before.listed_from and (ended is None or contract.listed_from >= ended)
    gone = before.status_text == GONE and ended is not None and now - ended > RETURNS_WITHIN
    return gone or (before.status is Status.DELISTED and before.status_text != GONE)


def _inherit(
    connection: Connection, source: str, contract: Contract, stored: Stored, number: int, now: datetime
) -> None:
    """The name's new bearer counts from its listing on, also for the series that had the old one."""
    since = contract.listed_from or now
    connection.execute(
        "INSERT INTO contract_events (contract_id, kind, effective_at, source, known_from, other_contract_id, detail) "
        "VALUES (%s, 'name_reused', %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        [number, since, source, now, stored.contract_id, f"{contract.raw_symbol} named another contract before"],
    )
    owners = connection.execute(
        "SELECT symbol, asset_class FROM (SELECT DISTINCT ON (symbol, asset_class) * FROM contract_ties "
        "ORDER BY symbol, asset_class, decided_at DESC) t WHERE contract_id = %s",
        [stored.contract_id],
    ).fetchall()
    for symbol, asset_class in owners:
        owner = Instrument(symbol, AssetClass(asset_class))
        reason = f"{contract.raw_symbol} names this contract since then"
        tie(connection, owner, number, source=source, reason=reason, now=now, effective_from=since)


def _note_correction(connection: Connection, source: str, contract: Contract, stored: Stored, now: datetime) -> None:
    """A date of listing that the venue mends is a fact of its own; what it proved falls."""
    before, after = stored.contract.listed_from, contract.listed_from
    if before is None or after is None or before == after or stored.source != source:
        return
    connection.execute(
        "INSERT INTO contract_events (contract_id, kind, effective_at, source, known_from, detail) "
        "VALUES (%s, 'date_corrected', %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        [
            stored.contract_id,
            after,
            source,
            now,
            f"listed since {after:%Y-%m-%d %H:%M} UTC, not {before:%Y-%m-%d %H:%M}",
        ],
    )
    reopen(connection, stored.contract_id, min(before, after), now)


def reopen(connection: Connection, contract_id: int, since: datetime, now: datetime) -> None:
    """Proofs that lean on when a contract was listed count no more: what they closed is asked for again."""
    connection.execute(
        "UPDATE coverage c SET state = 'missing', filled_at = NULL, filled_by = NULL, tries = 0, "
        "next_try_at = %(now)s, last_error = 'a proof fell: ' || last_error FROM contract_ties t "
        "WHERE t.contract_id = %(contract)s AND (t.symbol, t.asset_class) = (c.symbol, c.asset_class) "
        "AND c.state = 'no_trade' "
        "AND c.last_error LIKE '%%listed since%%' AND (c.end_time > %(since)s OR c.start_time <= %(since)s)",
        {"contract": contract_id, "since": since, "now": now},
    )


def _close(connection: Connection, missing: Sequence[Stored], known: int, now: datetime, result: Recorded) -> None:
    """What a complete list lacks has ended, unless it lacks too much to be believed."""
    gone = [each for each in missing if not each.contract.status.ended]
    if len(gone) > max(FEW, VANISHED_AT_MOST * known):
        result.kept = len(gone)
        return
    for each in gone:
        ended = replace(
            each.contract,
            status=Status.DELISTED,
            status_text=GONE,
            status_since=now,
            listed_to=each.contract.listed_to or now,
        )
        result.changed += say(connection, each.contract_id, each.source, ended, now)


def _dated(contract: Contract, stored: Stored | None, now: datetime) -> Contract:
    """The contract with since when its status is so: by the venue, else when we first saw it change."""
    if contract.status_since is not None:
        return contract
    if stored is None or stored.contract.status is not contract.status:
        since = contract.listed_to if contract.status.ended else None
        return replace(contract, status_since=since or (None if stored is None else now))
    return replace(contract, status_since=stored.contract.status_since)
