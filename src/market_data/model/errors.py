"""The exception tree. Every error says on two axes what follows from it: `where` it lies, and whether to try `again`.

MarketDataError                  ours, not again
├── UsageError                   the user's: wrong argument; the message names what is valid (exit 2, HTTP 422)
├── ConfigError                  the user's: wrong setting; the message names the nearest known one (exit 2)
├── Stopped                      the user's: told to stop; what was committed is kept
├── Unexpected                   ours: a defect, whatever raised it; see `unexpected`
├── TransientError               again
│   ├── RateLimited              the source's: told to wait; `retry_after` seconds when it said so
│   ├── ProviderUnavailable      the source's: it failed (5xx, outage page, open circuit)
│   ├── ConnectionLost           the source's: no answer, or the answer stopped (DNS, refused, timeout, reset)
│   ├── DatabaseBusy             storage's: a lock, a deadlock, a limit of time
│   ├── DatabaseUnavailable      storage's: it cannot be reached or went away
│   └── LeaseLost                storage's: others took over what this process was working on
└── PermanentError               not again
    ├── UnknownInstrument        the source's: it does not list it
    ├── UnsupportedRequest       the source's: it does not serve this dataset, timeframe or period
    ├── NotEntitled              the source's: the plan or key does not include it
    ├── GeoBlocked               the source's: refused for this location
    ├── BadCredentials           the source's: key missing, wrong or expired
    ├── MalformedPayload         the source's: not what the protocol promises; never an empty success
    └── StorageError             storage's: the database refused
        ├── DiskFull             no space left for the database
        ├── DatabaseReadOnly     the server accepts no writes
        ├── MissingPrivilege     the message says what to grant
        └── SchemaMismatch       the schema is older or newer than the program
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Final

from market_data.model.text import LONGEST_MESSAGE, kept

# Of what a library said that broke.
LONGEST_QUOTE: Final = 300


class Where(StrEnum):
    """Where an error lies."""

    SOURCE = "source"
    """Another source may do better."""
    STORAGE = "storage"
    """No other source would help."""
    OURS = "ours"
    USER = "user"


class MarketDataError(Exception):
    """Any failure this program names; what it says is fit for a terminal and a log, whoever is quoted in it.

    Attributes:
        where: whose failure it is.
        again: whether trying again may help.
        answered: whether it is the plain answer of a source that has nothing to give, and no failure of it.
        contained: whether it concerns only the rows that were asked for: others may be had.
        retry_after: seconds that the source told to wait, None when it did not say.
    """

    where: Where = Where.OURS
    again: ClassVar[bool] = False
    answered: ClassVar[bool] = False
    contained: ClassVar[bool] = False
    retry_after: float | None = None

    def __init__(self, message: object = "", *rest: object) -> None:
        super().__init__(kept(str(message), LONGEST_MESSAGE), *rest)


def attributed(source: str, error: Exception) -> str:
    """What an error says, and whose it is where it does not say that itself."""
    return str(error) if str(error).startswith(source) else f"{source}: {error}"


class UsageError(MarketDataError):
    """A wrong argument."""

    where = Where.USER


class ConfigError(MarketDataError):
    """A wrong setting."""

    where = Where.USER


class Stopped(MarketDataError):
    """Told to stop; what was committed is kept."""

    where = Where.USER


class Unexpected(MarketDataError):
    """A defect of ours, or of what we build on."""

    contained = True


def unexpected(error: BaseException) -> Unexpected:
    """The error of ours for one that nobody expected, with what to look for in the log.

    Whoever catches it must have let pass what is no failure: being cancelled, interrupted, told to exit.
    """
    found = Unexpected(f"unexpected {type(error).__name__}: {kept(_words(error), LONGEST_QUOTE)}")
    found.__cause__ = error
    return found


def _words(error: BaseException) -> str:
    try:
        return " ".join(str(error).split()) or "without a word"
    except Exception:  # its own __str__ is broken: the class must do
        return "without a readable word"


class TransientError(MarketDataError):
    """Trying again may help."""

    again = True


class RateLimited(TransientError):
    """Told to wait.

    ``retry_after`` is in seconds, None when the source did not say.
    """

    where = Where.SOURCE

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ProviderUnavailable(TransientError):
    """The source failed."""

    where = Where.SOURCE


class ConnectionLost(TransientError):
    """No answer, or the answer stopped."""

    where = Where.SOURCE


class DatabaseBusy(TransientError):
    """A lock, a deadlock or a limit of time."""

    where = Where.STORAGE


class DatabaseUnavailable(TransientError):
    """The database cannot be reached or went away."""

    where = Where.STORAGE


class LeaseLost(TransientError):
    """Others took over what this process was working on; it wrote nothing more."""

    where = Where.STORAGE


class PermanentError(MarketDataError):
    """Trying again will not help."""


class UnknownInstrument(PermanentError):
    """The source does not list it."""

    where = Where.SOURCE
    answered = True


class UnsupportedRequest(PermanentError):
    """The source does not serve this dataset, timeframe or period."""

    where = Where.SOURCE
    answered = True
    contained = True


class NotEntitled(PermanentError):
    """The plan or key does not include it."""

    where = Where.SOURCE


class GeoBlocked(PermanentError):
    """Refused for this location."""

    where = Where.SOURCE


class BadCredentials(PermanentError):
    """Key missing, wrong or expired."""

    where = Where.SOURCE


class MalformedPayload(PermanentError):
    """The answer is not what the protocol promises."""

    where = Where.SOURCE
    contained = True


class StorageError(PermanentError):
    """The database refused."""

    where = Where.STORAGE


class DiskFull(StorageError):
    """No space left for the database."""


class DatabaseReadOnly(StorageError):
    """The server accepts no writes."""


class MissingPrivilege(StorageError):
    """The database user lacks a privilege; the message says what to grant."""


class SchemaMismatch(StorageError):
    """The schema is older or newer than the program."""
