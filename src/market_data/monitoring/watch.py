"""The platform watches itself: evaluates the alert rules now and then, remembers what fires, and tells whom it may."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import structlog

from market_data.model.errors import MarketDataError
from market_data.monitoring.delivery import Message, Target
from market_data.monitoring.readings import Observer, Readings
from market_data.monitoring.rules import RULES, AlertRule, Finding, findings
from market_data.storage.work.alerts import AlertState, note_told, replace_alerts, stored_alerts
from market_data.storage.work.state import read_state, write_state

log = structlog.get_logger()

STATE: Final = "watch"
# Whoever watched last goes on; another takes over once that one was silent for so many looks.
SILENT_LOOKS: Final = 3
# A resolved alert whose target cannot be told is forgotten then.
KEPT: Final = timedelta(days=7)
_RULES: Final = {rule.name: rule for rule in RULES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Whom to tell of what.

    Attributes:
        critical_only: leave warnings out.
        resolved: tell too when an alert is over.
    """

    targets: Sequence[Target] = ()
    critical_only: bool = False
    resolved: bool = True


class Watch:
    """Looks when told to; any number may watch one database, and one of them does.

    Args:
        seconds: how often it will be told to look.
    """

    def __init__(self, observer: Observer, policy: Policy, seconds: float) -> None:
        self._observer = observer
        self._database = observer.database
        self._policy = policy
        self._seconds = seconds
        self._own = uuid4().hex
        self._failures: dict[str, str] = {}

    def look(self) -> None:
        """Evaluate every rule, note and log what changed, tell the targets; what fails is tried at the next look."""
        now = self._observer.clock()
        try:
            if not self._is_ours(now):
                return
            alerts = self._note(self._observer.read(), now)
            for target in self._policy.targets:
                self._tell(target, alerts, now)
        except MarketDataError as error:
            log.warning("watch_failed", error=str(error))

    def _is_ours(self, now: datetime) -> bool:
        with self._database.transaction() as connection:
            state = read_state(connection, STATE, lock=True)
            if state.get("by") not in (None, self._own) and datetime.fromisoformat(state["until"]) > now:
                return False
            until = now + timedelta(seconds=SILENT_LOOKS * self._seconds)
            write_state(connection, STATE, {"by": self._own, "until": until.isoformat()}, now)
            return True

    def _note(self, readings: Readings, now: datetime) -> list[AlertState]:
        keys = {target.key for target in self._policy.targets}
        with self._database.transaction() as connection:
            before = stored_alerts(connection)
            alerts = advanced(before, readings, now, keys)
            replace_alerts(connection, alerts)
        states = {(one.rule, one.subject): one.state for one in before}
        for one in alerts:
            if one.state != "pending" and states.get((one.rule, one.subject)) != one.state:
                log.warning("alert", state=one.state, rule=one.rule, subject=one.subject, detail=one.detail)
        return alerts

    def _tell(self, target: Target, alerts: Sequence[AlertState], now: datetime) -> None:
        news = [one for one in alerts if self._is_news(one, target.key)]
        spoken = [one for one in news if self._policy.resolved or one.state == "firing"]
        if spoken and (reason := target.send(message_of(spoken, now))):
            if self._failures.get(target.key) != reason:
                log.warning("notification_failed", target=target.name, reason=reason, alerts=len(spoken))
            self._failures[target.key] = reason
            return
        self._failures.pop(target.key, None)
        note_told(self._database, news, target.key)

    def _is_news(self, one: AlertState, key: str) -> bool:
        if one.state == "pending" or (self._policy.critical_only and one.severity != "critical"):
            return False
        return one.told.get(key, "resolved") != one.state


def advanced(stored: Sequence[AlertState], readings: Readings, now: datetime, targets: set[str]) -> list[AlertState]:
    """The alerts after a look.

    A condition is pending until it has held for as long as its rule says; what fired and is over is resolved, and kept
    until all targets know. One that comes back before they do goes on as if it had never been away.

    Args:
        targets: keys of those who are told at present.
    """
    known = {(one.rule, one.subject): one for one in stored}
    alerts = [
        _holding(rule, known.pop((rule.name, found.subject), None), found, now)
        for rule in RULES
        for found in findings(rule, readings)
    ]
    for one in known.values():
        waits_for_news = any(one.told.get(key) == "firing" for key in targets)
        if one.state == "firing" or (one.state == "pending" and waits_for_news):
            alerts.append(replace(one, state="resolved", changed_at=now))
        elif one.state == "resolved" and waits_for_news and now - one.changed_at < KEPT:
            alerts.append(one)
    return alerts


def _holding(rule: AlertRule, one: AlertState | None, found: Finding, now: datetime) -> AlertState:
    if one is None or one.state == "resolved":
        one = AlertState(
            rule=rule.name, subject=found.subject, severity=rule.severity, state="pending", detail=found.detail,
            since=now, changed_at=now, told={} if one is None else one.told,
        )  # fmt: skip
    if one.state == "pending" and now - one.since >= rule.hold:
        return replace(one, state="firing", detail=found.detail, changed_at=now)
    return one


def message_of(alerts: Sequence[AlertState], now: datetime) -> Message:
    """One message on several alerts: what fires first."""
    firing = [one for one in alerts if one.state == "firing"]
    over = [one for one in alerts if one.state == "resolved"]
    counts = [f"{len(group)} {word}" for group, word in ((firing, "firing"), (over, "resolved")) if group]
    documents = [_document(one) for one in (*firing, *over)]
    return Message(
        title=f"Market data: {', '.join(counts)}",
        body="\n".join(_line(document) for document in documents),
        urgent=any(one.severity == "critical" for one in firing),
        at=now,
        alerts=documents,
    )


def _document(one: AlertState) -> dict[str, Any]:
    rule = _RULES[one.rule]
    return {
        "rule": one.rule,
        "subject": one.subject,
        "severity": one.severity,
        "state": one.state,
        "detail": one.detail,
        "summary": rule.title,
        "action": rule.action,
        "since": one.since,
    }


def _line(document: dict[str, Any]) -> str:
    subject = f" {document['subject']}" if document["subject"] else ""
    if document["state"] == "resolved":
        return f"resolved: {document['rule']}{subject}"
    return f"{document['severity']}: {document['rule']}{subject}: {document['detail']}. {document['action']}"
