"""Alerts as they stand: since when, in which state, and what whom was told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from psycopg.types.json import Jsonb

from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertState:
    """One alert.

    Attributes:
        subject: what it is about, such as a symbol or a source; empty for the platform as a whole.
        state: pending until its condition has held for as long as its rule says, then firing, then resolved.
        since: when the condition began.
        changed_at: when the state last changed.
        told: per target, by the hash of its address, the state it was told last.
    """

    rule: str
    subject: str
    severity: str
    state: str
    detail: str
    since: datetime
    changed_at: datetime
    told: Mapping[str, str] = field(default_factory=dict)


def stored_alerts(source: Connection | Database) -> list[AlertState]:
    """All of them, critical ones and the oldest first."""
    query = (
        "SELECT rule, subject, severity, state, detail, since, changed_at, told FROM alerts "
        "ORDER BY severity, since, rule, subject"
    )
    if isinstance(source, Database):
        return [AlertState(**row) for row in source.rows(query)]
    names = ("rule", "subject", "severity", "state", "detail", "since", "changed_at", "told")
    return [AlertState(**dict(zip(names, row, strict=True))) for row in source.execute(query).fetchall()]


def replace_alerts(connection: Connection, alerts: Sequence[AlertState]) -> None:
    """Let these be all there are; only rows that differ are written."""
    stored = {(one.rule, one.subject): one for one in stored_alerts(connection)}
    wanted = {(one.rule, one.subject): one for one in alerts}
    for rule, subject in stored.keys() - wanted.keys():
        connection.execute("DELETE FROM alerts WHERE rule = %s AND subject = %s", [rule, subject])
    for key, one in wanted.items():
        if stored.get(key) != one:
            connection.execute(
                "INSERT INTO alerts (rule, subject, severity, state, detail, since, changed_at, told) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (rule, subject) DO UPDATE SET "
                "(severity, state, detail, since, changed_at, told) = (excluded.severity, excluded.state, "
                "excluded.detail, excluded.since, excluded.changed_at, excluded.told)",
                [one.rule, one.subject, one.severity, one.state, one.detail, one.since, one.changed_at,
                 Jsonb(dict(one.told))],
            )  # fmt: skip


def note_told(database: Database, alerts: Sequence[AlertState], target: str) -> None:
    """Remember that a target, by the hash of its address, was told these alerts in the states they are in."""
    with database.transaction() as connection:
        for one in alerts:
            connection.execute(
                "UPDATE alerts SET told = told || %s WHERE rule = %s AND subject = %s",
                [Jsonb({target: one.state}), one.rule, one.subject],
            )


def firing_by_severity(database: Database) -> dict[str, int]:
    """How many alerts fire."""
    rows = database.rows("SELECT severity, count(*) AS n FROM alerts WHERE state = 'firing' GROUP BY severity")
    return {row["severity"]: row["n"] for row in rows}
