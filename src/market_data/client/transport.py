"""How the client asks: retries where trying again may help, Arrow decoded as it arrives, problems as exceptions."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Mapping
from typing import Any, Final

import httpx
import polars as pl

from market_data.model.errors import (
    BadCredentials,
    ConnectionLost,
    MarketDataError,
    NotEntitled,
    ProviderUnavailable,
    RateLimited,
    UnknownInstrument,
    UsageError,
)
from market_data.transport.surroundings import Surroundings

ARROW: Final = "application/vnd.apache.arrow.stream"
ATTEMPTS: Final = 4
PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 30.0
TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)
RETRIED: Final = frozenset({429, 502, 503, 504})


class ApiError(MarketDataError):
    """The server refused; `status` is HTTP's, `problem` the document that says why and what to do."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        detail, action = problem.get("detail", f"HTTP {status}"), problem.get("action")
        super().__init__(f"{detail} {action}" if action else str(detail))
        self.status = status
        self.problem = dict(problem)


class Transport:
    """Asks one server; a context manager."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        # On this machine packing costs more than it saves.
        local = client.base_url.host in ("127.0.0.1", "localhost", "::1", "local")
        self._packing = "identity" if local else "zstd, identity"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def json(self, method: str, path: str, **parameters: Any) -> Any:
        """What a route answers, as plain values.

        Raises:
            MarketDataError: the kind that says whether trying again may help.
        """
        return self._ask(method, path, parameters, {"Accept": "application/json"}).json()

    def frame(self, path: str, **parameters: Any) -> pl.DataFrame:
        """The rows of a market route, streamed by Arrow.

        Raises:
            MarketDataError: the kind that says whether trying again may help.
        """
        headers = {"Accept": ARROW, "Accept-Encoding": self._packing}
        answer = self._ask("GET", path, parameters, headers)
        found = pl.read_ipc_stream(io.BytesIO(_unpacked(answer)))
        assert isinstance(found, pl.DataFrame)
        return found

    def _where(self) -> str:
        url = self._client.base_url
        proxy = Surroundings.read().proxy_for(str(url))
        return f"{url.host}:{url.port}" + ("" if proxy is None else f" by way of the proxy of {proxy.name}")

    def _ask(self, method: str, path: str, parameters: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
        given = {name: value for name, value in parameters.items() if value is not None}
        for attempt in range(1, ATTEMPTS + 1):
            # What changes state is sent once: nobody knows whether a lost answer means a lost request.
            last = attempt == ATTEMPTS or method != "GET"
            try:
                answer = self._client.request(method, path, params=given, headers=headers)
            except httpx.TransportError as error:
                if last:
                    raise ConnectionLost(
                        f"No answer from {self._where()} ({type(error).__name__}): does it run?"
                    ) from error
                time.sleep(_pause(attempt, None))
                continue
            if answer.is_success:
                return answer
            if last or answer.status_code not in RETRIED:
                raise _error(answer)
            time.sleep(_pause(attempt, answer.headers.get("retry-after")))
        raise AssertionError("unreachable: the last attempt returns or raises")


def _unpacked(answer: httpx.Response) -> bytes:
    if answer.headers.get("content-encoding") != "zstd" or answer.content[:4] != b"\x28\xb5\x2f\xfd":
        return answer.content
    import pyarrow as pa

    unpacked: bytes = pa.input_stream(pa.BufferReader(answer.content), compression="zstd").read()
    return unpacked


def _pause(attempt: int, retry_after: str | None) -> float:
    told = retry_after is not None and retry_after.isascii() and retry_after.isdigit()
    asked = float(retry_after[:9]) if retry_after is not None and told else 0.0
    wait: float = max(asked, PAUSE_SECONDS * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
    return min(wait, LONGEST_PAUSE_SECONDS)


def _error(answer: httpx.Response) -> MarketDataError:
    """The exception of our tree that a refusal means, with the server's words."""
    try:
        problem = answer.json()
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    refusal = ApiError(answer.status_code, problem)
    text = str(refusal)
    if problem.get("type") == "urn:market-data:problem:unknown-instrument":
        return _caused(UnknownInstrument(text), refusal)
    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        return _caused(RateLimited(text), refusal)
    if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
        return _caused(UsageError(text), refusal)
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        return _caused(BadCredentials(text), refusal)
    if answer.status_code == httpx.codes.FORBIDDEN:
        return _caused(NotEntitled(text), refusal)
    if answer.status_code in RETRIED:
        return _caused(ProviderUnavailable(text), refusal)
    return refusal


def _caused(error: MarketDataError, cause: ApiError) -> MarketDataError:
    error.__cause__ = cause
    return error
