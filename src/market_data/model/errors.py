"""The exception tree; the type decides whether a request is tried again.

MarketDataError
├── UsageError               wrong argument; the message names what is valid (exit 2, HTTP 422)
├── ConfigError              wrong setting; the message names the nearest known one (exit 2)
├── Stopped                  told to stop; what was committed is kept
├── TransientError           trying again may help
│   ├── RateLimited          told to wait; carries ``retry_after`` seconds when the source said so
│   ├── ProviderUnavailable  the source failed (5xx, outage page, open circuit)
│   ├── ConnectionLost       no answer, or the answer stopped (DNS, refused, timeout, reset)
│   └── DatabaseUnavailable  the database cannot be reached or went away
└── PermanentError           trying again will not help
    ├── UnknownInstrument    the source does not list it
    ├── UnsupportedRequest   the source does not serve this dataset, timeframe or period
    ├── NotEntitled          the plan or key does not include it
    ├── GeoBlocked           refused for this location
    ├── BadCredentials       key missing, wrong or expired
    ├── MalformedPayload     the answer is not what the protocol promises; never an empty success
    └── StorageError         the database refused
        ├── DiskFull         no space left for the database
        ├── DatabaseReadOnly the server accepts no writes
        ├── MissingPrivilege the message says what to grant
        └── SchemaMismatch   the schema is older or newer than the program
"""

from market_data.model.text import LONGEST_MESSAGE, kept


class MarketDataError(Exception):
    """Any failure this program names; what it says is fit for a terminal and a log, whoever is quoted in it."""

    def __init__(self, message: object = "", *rest: object) -> None:
        super().__init__(kept(str(message), LONGEST_MESSAGE), *rest)


def attributed(source: str, error: Exception) -> str:
    """What an error says, and whose it is where it does not say that itself."""
    return str(error) if str(error).startswith(source) else f"{source}: {error}"


class UsageError(MarketDataError):
    """A wrong argument."""


class ConfigError(MarketDataError):
    """A wrong setting."""


class Stopped(MarketDataError):
    """Told to stop; what was committed is kept."""


class TransientError(MarketDataError):
    """Trying again may help."""


class RateLimited(TransientError):
    """Told to wait.

    ``retry_after`` is in seconds, None when the source did not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ProviderUnavailable(TransientError):
    """The source failed."""


class ConnectionLost(TransientError):
    """No answer, or the answer stopped."""


class DatabaseUnavailable(TransientError):
    """The database cannot be reached or went away."""


class PermanentError(MarketDataError):
    """Trying again will not help."""


class UnknownInstrument(PermanentError):
    """The source does not list it."""


class UnsupportedRequest(PermanentError):
    """The source does not serve this dataset, timeframe or period."""


class NotEntitled(PermanentError):
    """The plan or key does not include it."""


class GeoBlocked(PermanentError):
    """Refused for this location."""


class BadCredentials(PermanentError):
    """Key missing, wrong or expired."""


class MalformedPayload(PermanentError):
    """The answer is not what the protocol promises."""


class StorageError(PermanentError):
    """The database refused."""


class DiskFull(StorageError):
    """No space left for the database."""


class DatabaseReadOnly(StorageError):
    """The server accepts no writes."""


class MissingPrivilege(StorageError):
    """The database user lacks a privilege; the message says what to grant."""


class SchemaMismatch(StorageError):
    """The schema is older or newer than the program."""
