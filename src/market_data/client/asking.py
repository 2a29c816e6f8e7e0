"""MarketData: everything the platform serves, as Polars frames and plain values."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import httpx
import polars as pl

from market_data.client.facts import Facts, Moment
from market_data.client.job import Job
from market_data.client.transport import TIMEOUT, ApiError, Transport
from market_data.model.dataset import DATASETS, SERVED
from market_data.model.errors import UsageError
from market_data.model.instrument import is_name
from market_data.model.text import fault_of_key
from market_data.transport.surroundings import Surroundings

__all__ = ["ApiError", "MarketData"]

DEFAULT_URL: Final = "http://127.0.0.1:8000"


class MarketData(Facts):
    """A connection to the platform; a context manager. Safe to use from several threads.

    Moments are UTC: datetimes with a time zone, dates (their midnight) or RFC 3339 text; ranges are [start, end).

    Args:
        url: where the server is.
        key: an API key; not needed on the server's own machine while no key exists.

    Raises:
        UsageError: when the key cannot be one.
        ConfigError: when the environment names a proxy or certificates that are none.
    """

    def __init__(self, url: str = DEFAULT_URL, key: str | None = None) -> None:
        if key and (fault := fault_of_key(key)):
            raise UsageError(fault)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._closing = ExitStack()
        self._transport = Transport(
            httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT, **Surroundings.read().arguments(url))
        )
        self._closing.callback(self._transport.close)

    @classmethod
    def local(
        cls, data_dir: str | Path | None = None, *, sandbox: bool = False, config: str | Path | None = None
    ) -> MarketData:
        """The same over a database on this machine, without a server.

        Args:
            data_dir: folder of the private PostgreSQL; None for the one the settings name.
            sandbox: whether to use the sandbox's own database.
            config: a settings file.

        Raises:
            ConfigError: when a setting is wrong.
            DatabaseUnavailable: when the database cannot be opened.
        """
        from market_data.client.local import opened

        made = cls.__new__(cls)
        made._closing = ExitStack()  # noqa: SLF001  # its own
        folder, file = Path(data_dir) if data_dir else None, Path(config) if config else None
        client = made._closing.enter_context(opened(folder, sandbox=sandbox, config=file))  # noqa: SLF001
        made._transport = Transport(client)  # noqa: SLF001
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, and the local database when it was opened."""
        self._closing.close()

    def candles(
        self,
        symbol: str,
        timeframe: str,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        asset_class: str | None = None,
        limit: int | None = None,
        as_of: Moment | None = None,
        adjusted: str = "none",
    ) -> pl.DataFrame:
        """Candles in order of time: prices as exact decimals, source, revision, quality.

        Args:
            limit: at most so many: the first after `start`, the newest without one.
            as_of: what was known at this moment.
            adjusted: none, splits, or total for splits and dividends.

        Raises:
            UnknownInstrument: when it is neither tracked nor was ever enriched.
            UsageError: when an argument is wrong.
        """
        return self._series("candles", symbol, timeframe, start, end, asset_class, limit, as_of, adjusted)

    def features(
        self,
        symbol: str,
        timeframe: str,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        asset_class: str | None = None,
        limit: int | None = None,
        as_of: Moment | None = None,
        adjusted: str = "none",
    ) -> pl.DataFrame:
        """Enriched candles in order of time; the arguments are those of `candles`."""
        return self._series("features", symbol, timeframe, start, end, asset_class, limit, as_of, adjusted)

    def facts(self, dataset: str, symbol: str, **asked: Any) -> pl.DataFrame:
        """Rows of the dataset of that name; each has a call of its own too, e.g. `dividends` or `open_interest`."""
        if dataset not in DATASETS or DATASETS[dataset] not in SERVED:
            raise UsageError(f"unknown dataset {dataset!r}; valid: {', '.join(each.name for each in SERVED)}")
        moments = {name: _text(asked.pop(name, None)) for name in ("start", "end", "as_of")}
        return self._transport.frame(f"/api/v1/market/{DATASETS[dataset].path}/{_part(symbol)}", **moments, **asked)

    def bars(
        self,
        symbol: str,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        every: str | None = None,
        volume: str | int | None = None,
        dollars: str | int | None = None,
        asset_class: str | None = None,
        limit: int | None = None,
    ) -> pl.DataFrame:
        """Bars made of the stored trades: of a length (`every="90s"`), of a volume, or of an amount of money.

        Raises:
            UnknownInstrument: when it is not tracked and nothing is stored of it.
            UsageError: when an argument is wrong, or not exactly one of the three is given.
        """
        return self._transport.frame(
            f"/api/v1/market/bars/{_part(symbol)}",
            start=_text(start),
            end=_text(end),
            every=every,
            volume=volume,
            dollars=dollars,
            asset_class=asset_class,
            limit=limit,
        )

    def actions(self, symbol: str, *, asset_class: str | None = None, as_of: Moment | None = None) -> pl.DataFrame:
        """Splits and dividends of all sources joined: state, factor, and per source what it claims since when."""
        found = self._get(f"market/actions/{_part(symbol)}", asset_class=asset_class, as_of=_text(as_of))
        return pl.DataFrame(found["actions"], infer_schema_length=None)

    def status(self, symbol: str, asset_class: str | None = None) -> dict[str, Any]:
        """Where an instrument stands: freshness, quality, what is stored."""
        return self._get(f"enrichment/status/{_part(symbol)}", asset_class=asset_class)

    def quality(self, symbol: str, days: int = 7, asset_class: str | None = None) -> dict[str, Any]:
        """Checks, gaps and scores of the last days, and recent fetches."""
        return self._get(f"data/quality/{_part(symbol)}", days=days, asset_class=asset_class)

    def metrics(self) -> dict[str, Any]:
        """How fetching, computing and backfilling went."""
        return self._get("enrichment/metrics")

    def instruments(self) -> pl.DataFrame:
        """Every instrument that is tracked or was enriched."""
        rows: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self._get("instruments", limit=1000, cursor=cursor)
            rows += page["instruments"]
            cursor = page["next"]
            if cursor is None:
                return pl.DataFrame(rows, infer_schema_length=None)

    def providers(self) -> list[dict[str, Any]]:
        """The sources and how they do."""
        found: list[dict[str, Any]] = self._get("providers")["providers"]
        return found

    def trigger(
        self, symbols: str | Sequence[str], timeframes: str | Sequence[str] = "1d", asset_class: str | None = None
    ) -> Job:
        """Queue an enrichment; `.wait()` follows it."""
        receipt = self._transport.json(
            "POST",
            "/api/v1/enrichment/trigger",
            symbol=[symbols] if isinstance(symbols, str) else list(symbols),
            timeframes=[timeframes] if isinstance(timeframes, str) else list(timeframes),
            asset_class=asset_class,
        )
        return Job(receipt, self.job)

    def job(self, job_id: str) -> dict[str, Any]:
        """A job and what became of each of its parts."""
        return self._get(f"enrichment/jobs/{_part(job_id)}")

    def _series(
        self,
        kind: str,
        symbol: str,
        timeframe: str,
        start: Moment | None,
        end: Moment | None,
        asset_class: str | None,
        limit: int | None,
        as_of: Moment | None,
        adjusted: str,
    ) -> pl.DataFrame:
        return self._transport.frame(
            f"/api/v1/market/{kind}/{_part(symbol)}/{_part(timeframe)}",
            start=_text(start),
            end=_text(end),
            asset_class=asset_class,
            limit=limit,
            as_of=_text(as_of),
            adjusted=adjusted,
        )

    def _get(self, path: str, **parameters: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._transport.json("GET", f"/api/v1/{path}", **parameters)
        return found


def _text(moment: Moment | None) -> str | None:
    if isinstance(moment, datetime):
        if moment.utcoffset() is None:
            raise UsageError(f"{moment} has no time zone: give UTC, e.g. datetime(2026, 1, 31, tzinfo=UTC)")
        return moment.isoformat()
    return moment.isoformat() if isinstance(moment, date) else moment


def _part(text: str) -> str:
    """A part of a path, encoded so that it leads nowhere else."""
    if not is_name(text) or ".." in text or set(text) & set("?#%\\"):
        raise UsageError(f"{text!r} is no symbol, timeframe or id: no blanks, e.g. BTC, BTC/USDT, BRK.B, 1h")
    return quote(text, safe="")
