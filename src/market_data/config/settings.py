"""Settings: every setting with its meaning and limits; the defaults are in default.yaml beside this file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, SecretStr

from market_data.model.errors import ConfigError
from market_data.model.instrument import AssetClass


def _split_names(value: Any) -> Any:
    """Lets the environment write a list as ``polygon,yahoo``."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return value


def _split_addresses(value: Any) -> Any:
    """Lets the environment write addresses one after the other; a comma inside one does not part it."""
    return re.split(r"[,\s]+(?=\w+://)", value.strip(" ,")) if isinstance(value, str) and value.strip(" ,") else value


Addresses = Annotated[tuple[SecretStr, ...], BeforeValidator(_split_addresses)]
Names = Annotated[tuple[str, ...], BeforeValidator(_split_names)]
Hour = Annotated[int, Field(ge=0, le=23)]
Minute = Annotated[int, Field(ge=0, le=59)]
Port = Annotated[int, Field(ge=1, le=65535)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A group of settings; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RetentionSettings(Section):
    """How long what grows fast is kept, in days; null keeps it for ever. Candles and corrections are always kept."""

    trades: Annotated[int, Field(ge=1)] | None
    """Trades as reported one by one."""
    quotes: Annotated[int, Field(ge=1)] | None
    """Best bids and asks."""
    trades_raw: Annotated[int, Field(ge=1)] | None
    """Payloads as received, for finding out what a source really said."""
    options_iv: Annotated[int, Field(ge=1)] | None
    """Options chains: after that, whole quarters are packed within the database; they stay readable for ever."""

    @property
    def ages(self) -> dict[str, timedelta]:
        """The retention of every table that has one."""
        return {table: timedelta(days=days) for table, days in self if days is not None}


class DatabaseSettings(Section):
    """Where the data is kept."""

    url: SecretStr | None
    """A PostgreSQL server, ``postgresql://user:password@host:port/name``; null: a private one in data_dir."""
    data_dir: Path | None
    """Folder of the private PostgreSQL; null: the user's data folder. The sandbox adds ``-sandbox`` to its name."""
    pool_size: Annotated[int, Field(ge=1, le=100)]
    """Most connections that one process writes by at once; it reads by as many others, four at least."""
    retention: RetentionSettings
    """How long trades, quotes, raw payloads and options are kept."""
    sandbox: bool
    """Whether this database holds sandbox data. A database opened once as one kind is never opened as the other."""

    @property
    def folder(self) -> Path:
        """The data folder in use, which for the sandbox is never the live one."""
        try:
            folder = self.data_dir or Path(platformdirs.user_data_dir("market-data", appauthor=False))
            folder = folder.expanduser().absolute()
        except RuntimeError:
            raise ConfigError(
                "Where this user keeps data is not known (there is neither HOME nor an entry in /etc/passwd): name the "
                "folder with --data-dir, or a server with --database-url"
            ) from None
        if self.sandbox and not folder.name.endswith("-sandbox"):
            folder = folder.with_name(folder.name + "-sandbox")
        return folder


class PreferenceSettings(Section):
    """Which contract a bare coin (BTC) means where several are listed; decided once per coin, and kept."""

    kinds: Annotated[tuple[Literal["perpetual", "spot"], ...], BeforeValidator(_split_names)]
    """Kinds of contract, first preferred."""
    quotes: Names
    """What it is quoted in, first preferred; others are reached by the exact notation only."""


class InstrumentSettings(Section):
    """Which instruments are followed and who is asked for them."""

    priority: Mapping[AssetClass, Names]
    """Providers per asset class, first asked first."""
    preference: PreferenceSettings
    """Which contract a bare coin means."""
    tracked: Mapping[AssetClass, Names]
    """Symbols per asset class that scheduled work covers, and whose asset class need not be given."""
    timeframes: Mapping[str, Names]
    """Timeframes of tracked symbols: by asset class, or by symbol where one differs."""


class PipelineSettings(Section):
    """How fetching, computing and storing run."""

    batch_size: Count
    """Rows stored in one transaction."""
    feature_workers: Count
    """Threads that compute features at the same time."""
    max_concurrent_symbols: Count
    """Symbols worked on at the same time."""
    backfill_hour: Hour
    """Hour (UTC) of the scheduled backfill."""
    backfill_minute: Minute
    """Minute of the scheduled backfill."""
    backfill_requests_per_minute: Annotated[float, Field(gt=0)]
    """Requests per minute and provider that backfills may use."""
    interest_rate: Annotated[float, Field(ge=-0.1, le=1)] | None
    """Riskless rate per year as a fraction, assumed for volatilities and greeks of options that the source does not
    give; null computes none."""


class FeatureSettings(Section):
    """Features beside the built-in ones."""

    paths: Annotated[tuple[Path, ...], BeforeValidator(_split_names)]
    """Python files with features of your own; the same in every process that uses the database."""


class EnrichmentSettings(Section):
    """What an enrichment covers and when it runs by itself."""

    enable_daily_enrichment: bool
    """Whether the scheduler enriches tracked symbols."""
    enrichment_hour: Hour
    """Hour (UTC) of the daily enrichment of stocks and ETFs."""
    enrichment_minute: Minute
    """Minute of the daily enrichment of stocks and ETFs."""
    max_retries: Annotated[int, Field(ge=0)]
    """How often a scheduled enrichment that failed is tried again."""
    crypto_minute: Minute
    """Minute of every hour at which crypto is enriched."""


class JobSettings(Section):
    """How workers work and when chores run."""

    drain_seconds: Annotated[float, Field(ge=0)]
    """How long work under way may take to stop at its next commit when the program is told to stop."""
    retry_seconds: Annotated[float, Field(ge=0)]
    """Wait before the first new try of a job whose source failed; every further one is twice as long."""
    heartbeat_seconds: Annotated[float, Field(gt=0)]
    """How often a worker says that it lives."""
    stalled_seconds: Annotated[float, Field(gt=0)]
    """Silence after which a worker counts as dead even though its connection stands."""
    keep_days: Count
    """Days for which jobs that are over are remembered."""
    after_close_minutes: Annotated[int, Field(ge=0, le=720)]
    """How long after an exchange's close its candles are fetched."""
    heal_minute: Minute
    """Minute of every hour at which gaps are asked for again."""
    recompute_minute: Minute
    """Minute of every hour at which features are renewed whose input or definition changed."""
    reconcile_hour: Hour
    """Hour (UTC) on Sundays at which the past week is compared with a second source."""
    events_hour: Hour
    """Hour (UTC) on Saturdays at which the lists of splits and dividends are read again, whole."""
    retention_hour: Hour
    """Hour (UTC) of the daily retention."""
    lists_hour: Hour
    """Hour (UTC) at which what the sources list is fetched, daily."""


class Freshness(Section):
    """Ages of the newest candle, in seconds."""

    target: Annotated[float, Field(gt=0)]
    """Age up to which data counts as fresh."""
    alert: Annotated[float, Field(gt=0)]
    """Age from which an alert of severity warning is raised, where it is not critical yet."""
    critical: Annotated[float, Field(gt=0)]
    """Age at which the alert is critical."""
    stale: Annotated[float, Field(gt=0)]
    """Age from which data counts as stale and freshness scores 0."""


class QualitySettings(Section):
    """What counts as good."""

    min_quality_score: Share
    """An instrument whose mean quality is below this is stale, and a mean of all below it raises an alert."""
    min_data_completeness: Share
    """An instrument whose candles hold a smaller share of their expected fields is not healthy."""
    validate_on_insert: bool
    """Whether rows are checked by the rules before they are stored; without, none counts as validated."""
    freshness: Mapping[AssetClass, Freshness]
    """Freshness limits per asset class."""


class ApiSettings(Section):
    """The HTTP interface."""

    host: str
    """Address to listen on."""
    port: Port
    """Port to listen on."""
    keys: Literal["auto", "required", "off"]
    """Whether requests need an API key. auto: from the first one made on, and always beyond loopback."""
    allow_remote_without_keys: bool
    """Whether to listen beyond loopback although requests need no key."""
    hosts: Names
    """Further host names by which the API is reached; while no key is needed, requests to others are refused."""
    requests_per_minute: Annotated[float, Field(gt=0)]
    """Requests per minute one key may make; short bursts may take them all at once."""
    max_body_bytes: Annotated[int, Field(ge=0)]
    """Longest request body."""
    query_seconds: Annotated[float, Field(gt=0)]
    """Longest time one query of the API may take in the database."""
    cors_origins: Names
    """Origins of web pages that may use the API from a browser; none by default."""


class NotificationSettings(Section):
    """Who is told of alerts."""

    urls: Addresses
    """Webhooks (``https://…``, which get JSON by POST) and addresses of any service Apprise knows (``mailto://…``,
    ``slack://…``; needs the extra ``notify``); none: nobody. They are secrets: never logged, never shown."""
    min_severity: Literal["warning", "critical"]
    """Least severe alert that is told."""
    resolved: bool
    """Whether it is told too when an alert is over."""


class MonitoringSettings(Section):
    """Logs, metrics and alerts."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
    """Least severe message that is logged. Commands that end by themselves log errors only, unless this is set."""
    log_format: Literal["console", "json"]
    """Logs for people or for machines; they go to stderr."""
    prometheus_port: Port | None
    """Port of a metrics endpoint of its own, for processes without the HTTP interface; null: none."""
    prometheus_host: str
    """Address that endpoint listens on. It asks for no key: beyond loopback, let only Prometheus reach it."""
    watch_seconds: Annotated[float, Field(ge=1)]
    """How often the scheduler evaluates the alert rules."""
    notifications: NotificationSettings
    """Who is told of alerts."""


class Settings(Section):
    """All settings, read once."""

    database: DatabaseSettings
    providers: Mapping[str, Mapping[str, Any]] = Field(repr=False)
    """Settings per provider as written; each provider declares its own and `provider_settings` checks them."""
    instruments: InstrumentSettings
    pipelines: PipelineSettings
    features: FeatureSettings
    enrichment: EnrichmentSettings
    jobs: JobSettings
    quality: QualitySettings
    api: ApiSettings
    monitoring: MonitoringSettings

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _remarks: list[str] = PrivateAttr(default_factory=list)

    @property
    def origins(self) -> dict[str, str]:
        """Where each value that is not a default was written, by dotted key."""
        return self._origins

    @property
    def remarks(self) -> list[str]:
        """What was found while reading that somebody should know."""
        return self._remarks

    @property
    def tracked(self) -> Iterable[tuple[AssetClass, str]]:
        """Every tracked symbol with its asset class."""
        for asset_class, symbols in self.instruments.tracked.items():
            for symbol in symbols:
                yield asset_class, symbol
