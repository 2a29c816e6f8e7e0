"""Reading the settings once: defaults, then a YAML file, then the environment, then the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError

from market_data.config.explain import explain, nearest, origin_of
from market_data.config.settings import Settings
from market_data.config.yaml_text import parse_yaml
from market_data.model.errors import ConfigError

PREFIX: Final = "MARKET_DATA__"
PLAIN_NAMES: Final[Mapping[str, str]] = {
    "DATABASE_URL": "database.url",
    "POLYGON_API_KEY": "providers.polygon.api_key",
    "MASSIVE_API_KEY": "providers.polygon.api_key",
    "BINANCE_API_KEY": "providers.binance.api_key",
    "BINANCE_API_SECRET": "providers.binance.api_secret",
    "LOG_LEVEL": "monitoring.log_level",
    "PROMETHEUS_PORT": "monitoring.prometheus_port",
    "DATA_ENRICHMENT_ENABLED": "enrichment.enable_daily_enrichment",
    "ENRICHMENT_SCHEDULE_HOUR": "enrichment.enrichment_hour",
    "ENRICHMENT_SCHEDULE_MINUTE": "enrichment.enrichment_minute",
    "BACKFILL_SCHEDULE_HOUR": "pipelines.backfill_hour",
    "BACKFILL_SCHEDULE_MINUTE": "pipelines.backfill_minute",
    "FEATURE_COMPUTATION_WORKERS": "pipelines.feature_workers",
    "BATCH_SIZE_MARKET_DATA": "pipelines.batch_size",
    "MIN_QUALITY_SCORE": "quality.min_quality_score",
    "MIN_DATA_COMPLETENESS": "quality.min_data_completeness",
    "VALIDATE_ON_INSERT": "quality.validate_on_insert",
}
"""Environment names without prefix, and the setting each stands for."""
# What Kubernetes sets in every pod for a Service: NAME_PORT=tcp://10.0.0.1:9090, whatever NAME may mean to others.
_SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://[\[\]0-9a-fA-F.:]+:\d+")
SECRET_ENDINGS: Final = ("key", "secret", "token", "password")

P = TypeVar("P", bound=BaseModel)


def load_settings(
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, tuple[Any, str]] | None = None,
) -> Settings:
    """The settings in force; each layer goes over the ones before it.

    Args:
        config: A YAML file with some of the keys of ``default.yaml``.
        environ: The environment; empty values count as absent.
        overrides: Values by dotted key, each with where it came from, e.g. the option of the command line.

    Raises:
        ConfigError: naming the key, where it was written and the nearest known one.
    """
    remarks: list[str] = []
    layers = _Layers(values=_read_yaml(default_yaml(), "the packaged default.yaml"))
    if config is not None:
        layers.add_tree(_read_file(config), str(config))
    for key, value, origin in _environment(environ or {}, remarks):
        layers.add(key, value, origin)
    for key, (value, origin) in (overrides or {}).items():
        layers.add(key, value, origin)
    try:
        settings = Settings.model_validate(_hide_secrets(layers.values))
    except ValidationError as error:
        raise ConfigError(explain(error, Settings, layers.origins)) from None
    settings.origins.update(layers.origins)
    settings.remarks.extend(remarks)
    return settings


def provider_settings(raw: Mapping[str, Any], cls: type[P], name: str, origins: Mapping[str, str] | None = None) -> P:
    """The settings of one provider, checked by its own class.

    Args:
        raw: ``Settings.providers[name]``, empty when absent.
        cls: The provider's `Settings` class.
        name: The provider's name, for the message.
        origins: ``Settings.origins``.

    Raises:
        ConfigError: naming the key, where it was written and the nearest known one.
    """
    try:
        return cls.model_validate(dict(raw))
    except ValidationError as error:
        raise ConfigError(explain(error, cls, origins or {}, f"providers.{name}.")) from None


def reject_unknown_providers(settings: Settings, known: Iterable[str]) -> None:
    """Refuses settings that name a provider nobody declares.

    Args:
        settings: The settings in force.
        known: Names of all providers found; ``name:part`` is known when ``name`` is.

    Raises:
        ConfigError: naming the provider, where it was written and the nearest known one.
    """
    names = sorted(known)
    used = [(f"providers.{name}", name) for name in settings.providers]
    for asset_class, priority in settings.instruments.priority.items():
        used += [(f"instruments.priority.{asset_class}", name) for name in priority]
    for key, name in used:
        if name.partition(":")[0] not in names:
            where = origin_of(key, settings.origins)
            raise ConfigError(f"Unknown provider {name!r} at {key!r}{where}: {nearest(name, names)}")


def default_yaml() -> str:
    """Text of the packaged settings file."""
    return files("market_data.config").joinpath("default.yaml").read_text(encoding="utf-8")


@dataclass(slots=True)
class _Layers:
    """Values so far as a tree, and where each came from by dotted key."""

    values: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict)

    def add_tree(self, tree: Mapping[str, Any], origin: str, prefix: str = "") -> None:
        for name, value in tree.items():
            key = f"{prefix}{name}"
            if isinstance(value, Mapping) and value:
                self.add_tree(value, origin, f"{key}.")
            else:
                self.add(key, value, origin)

    def add(self, key: str, value: Any, origin: str) -> None:
        *groups, last = key.split(".")
        node = self.values
        for depth, group in enumerate(groups):
            child = node.setdefault(group, {})
            if not isinstance(child, dict):
                above = ".".join(groups[: depth + 1])
                raise ConfigError(f"Unknown setting {key!r} in {origin}: {above!r} is a value, it has no keys below it")
            node = child
        if isinstance(node.get(last), dict) and not isinstance(value, Mapping):
            raise ConfigError(
                f"Invalid setting {key!r} in {origin}: it is a group of settings, write its keys below it"
            )
        node[last] = value
        self.origins[key] = origin


def _environment(environ: Mapping[str, str], remarks: list[str]) -> Iterator[tuple[str, Any, str]]:
    """(dotted key, value, origin) of every setting in the environment; prefixed names last, because they win."""
    seen: dict[str, tuple[str, str]] = {}
    for name, key in PLAIN_NAMES.items():
        value = environ.get(name, "").strip()
        if not value:
            continue
        if _SERVICE_LINK.fullmatch(value):
            remarks.append(
                f"{name}={value} is left alone: Kubernetes sets it for a Service of that name; "
                f"enableServiceLinks: false keeps it away, {PREFIX}{key.upper().replace('.', '__')} sets what it is not"
            )
            continue
        if key in seen and seen[key][1] != value:
            raise ConfigError(f"{seen[key][0]} and {name} are the same setting and differ: keep one of them")
        seen[key] = (name, value)
        yield key, _upper_level(key, value), f"environment variable {name}"
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and environ[name].strip():
            key = ".".join(part.lower() for part in name[len(PREFIX) :].split("__"))
            yield key, _upper_level(key, _from_text(environ[name].strip(), name)), f"environment variable {name}"


def _upper_level(key: str, value: Any) -> Any:
    # Everybody writes LOG_LEVEL=info as often as INFO.
    return value.upper() if key == "monitoring.log_level" and isinstance(value, str) else value


def _from_text(text: str, name: str) -> Any:
    """Text as it is, so that a key of digits stays text; lists and groups in brackets as YAML."""
    if text[0] not in "[{":
        return None if text.lower() == "null" else text
    return parse_yaml(text, f"environment variable {name}")


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"Cannot read the settings file {path}: {reason}") from error
    return _read_yaml(text, str(path))


def _read_yaml(text: str, origin: str) -> dict[str, Any]:
    tree = parse_yaml(text, origin)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{origin} must hold sections ({', '.join(Settings.model_fields)}), not {type(tree).__name__}"
        )
    return tree


def _hide_secrets(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with every provider's keys and passwords wrapped, so that they are never printed."""
    providers = tree.get("providers")
    if not isinstance(providers, Mapping):
        return dict(tree)
    return {**tree, "providers": {name: _wrap(values) for name, values in providers.items()}}


def _wrap(values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    return {
        key: SecretStr(str(value)) if value is not None and str(key).endswith(SECRET_ENDINGS) else value
        for key, value in values.items()
    }
