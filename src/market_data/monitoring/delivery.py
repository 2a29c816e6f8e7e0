"""Who is told of alerts: webhooks, and any service that Apprise knows; their addresses are secret and never shown."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from importlib.util import find_spec
from typing import Any, Final, Protocol

import httpx
from pydantic import SecretStr
from pydantic_core import to_jsonable_python

from market_data.model.errors import ConfigError
from market_data.transport.surroundings import Surroundings

SEND_SECONDS: Final = 5.0
SETTING: Final = "monitoring.notifications.urls"


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody is told.

    Attributes:
        alerts: the same for programs: rule, subject, severity, state, detail, summary, action, since.
    """

    title: str
    body: str
    urgent: bool
    at: datetime
    alerts: Sequence[Mapping[str, Any]]


class Target(Protocol):
    """Somebody who is told.

    Attributes:
        key: stands for the address where it is stored.
        name: its place in the settings and its scheme, for logs.
    """

    key: str
    name: str

    def send(self, message: Message) -> str | None:
        """Tell it; None when it took the message, else why not, in words without the address."""


class Webhook:
    """Takes a JSON document by POST: title, body, urgent, at, alerts."""

    def __init__(self, key: str, name: str, url: SecretStr) -> None:
        self.key = key
        self.name = name
        self._url = url

    def send(self, message: Message) -> str | None:
        """Post the document; None when the answer was good, else its status or what went wrong."""
        document = to_jsonable_python(
            {
                "title": message.title,
                "body": message.body,
                "urgent": message.urgent,
                "at": message.at,
                "alerts": message.alerts,
            }
        )
        url = self._url.get_secret_value()
        try:
            answer = httpx.post(url, json=document, timeout=SEND_SECONDS, **Surroundings.read().arguments(url))
        except ConfigError as error:
            return str(error)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            # Its words may repeat the address.
            return type(error).__name__
        return None if answer.is_success else f"answered {answer.status_code}"


class Apprised:
    """Any service that Apprise speaks to."""

    def __init__(self, key: str, name: str, url: SecretStr) -> None:
        self.key = key
        self.name = name
        # It logs addresses; what goes wrong we tell ourselves.
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
        self._library = importlib.import_module("apprise")
        self._service = self._library.Apprise()
        if not self._service.add(url.get_secret_value()):
            raise ConfigError(f"{SETTING}: Apprise does not understand the address of target {name}")

    def send(self, message: Message) -> str | None:
        """Hand title and body to the service; None when it took them, else what went wrong."""
        kind = self._library.NotifyType.FAILURE if message.urgent else self._library.NotifyType.WARNING
        try:
            taken = self._service.notify(title=message.title, body=message.body, notify_type=kind)
        except Exception as error:  # whatever a plug-in raises; its words may repeat the address
            return type(error).__name__
        return None if taken else "the service did not take it"


def targets_of(urls: Sequence[SecretStr]) -> list[Target]:
    """Who the addresses stand for.

    Raises:
        ConfigError: when one cannot be understood, naming its place, never the address.
    """
    return [_target(number, url) for number, url in enumerate(urls, 1)]


def _target(number: int, url: SecretStr) -> Target:
    text = url.get_secret_value()
    scheme, separator, rest = text.partition("://")
    # What stands before a missing :// may be anything, a password too.
    name = f"{number} ({scheme})" if separator and scheme.isalnum() else str(number)
    key = sha256(text.encode()).hexdigest()[:16]
    if not separator or not rest:
        raise ConfigError(f"{SETTING}: target {number} is no address: write https://… or one that Apprise knows")
    if scheme in ("http", "https"):
        return Webhook(key, name, url)
    if find_spec("apprise") is None:
        raise ConfigError(
            f"{SETTING}: target {name} needs Apprise: pip install 'market-data-platform[notify]', or use a webhook"
        )
    return Apprised(key, name, url)
