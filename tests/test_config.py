"""Settings: layers and their order, plain names, refusals that say where and what instead, secrets unprinted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, SecretStr

from market_data.config import (
    PLAIN_NAMES,
    Settings,
    default_yaml,
    load_settings,
    provider_settings,
    reject_unknown_providers,
)
from market_data.model.errors import ConfigError
from market_data.model.instrument import AssetClass
from market_data.model.provider import ProviderSettings


class VenueSettings(ProviderSettings):
    rest_url: str = "https://example.org"
    api_key: SecretStr | None = None


def refusal(config: Path | None = None, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as raised:
        load_settings(config, environ)
    message = str(raised.value)
    assert "\n" not in message
    return message


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_those_the_users_documents_name() -> None:
    settings = load_settings()
    assert settings.instruments.priority[AssetClass.STOCK] == ("polygon", "yahoo")
    assert settings.instruments.priority[AssetClass.ETF] == ("polygon", "yahoo")
    assert settings.instruments.priority[AssetClass.CRYPTO] == ("binance", "polygon", "yahoo")
    assert (settings.quality.min_quality_score, settings.quality.min_data_completeness) == (0.85, 0.95)
    assert settings.quality.validate_on_insert is True
    assert settings.pipelines.max_concurrent_symbols == 5
    assert (settings.enrichment.enrichment_hour, settings.enrichment.enrichment_minute) == (1, 30)
    crypto = settings.quality.freshness[AssetClass.CRYPTO]
    assert (crypto.target, crypto.alert, crypto.critical, crypto.stale) == (30, 60, 120, 600)


def test_file_over_defaults_environment_over_file_command_line_over_all(tmp_path: Path) -> None:
    config = written(tmp_path, "api: {port: 1001, host: 10.0.0.1}\npipelines: {batch_size: 11}\n")
    environ = {"MARKET_DATA__API__PORT": "1002", "BATCH_SIZE_MARKET_DATA": "12"}
    settings = load_settings(config, environ, {"pipelines.batch_size": (13, "--batch-size")})
    assert (settings.api.host, settings.api.port, settings.pipelines.batch_size) == ("10.0.0.1", 1002, 13)
    assert settings.enrichment.max_retries == 3
    assert settings.origins["api.port"] == "environment variable MARKET_DATA__API__PORT"
    assert settings.origins["api.host"] == str(config)


def test_prefixed_name_goes_over_plain_name() -> None:
    environ = {"MARKET_DATA__MONITORING__LOG_LEVEL": "error", "LOG_LEVEL": "debug"}
    assert load_settings(environ=environ).monitoring.log_level == "ERROR"


@pytest.mark.parametrize(
    ("name", "value", "section", "key", "expected"),
    [
        ("LOG_LEVEL", "info", "monitoring", "log_level", "INFO"),
        ("PROMETHEUS_PORT", "9100", "monitoring", "prometheus_port", 9100),
        ("DATA_ENRICHMENT_ENABLED", "false", "enrichment", "enable_daily_enrichment", False),
        ("ENRICHMENT_SCHEDULE_HOUR", "3", "enrichment", "enrichment_hour", 3),
        ("ENRICHMENT_SCHEDULE_MINUTE", "4", "enrichment", "enrichment_minute", 4),
        ("BACKFILL_SCHEDULE_HOUR", "5", "pipelines", "backfill_hour", 5),
        ("BACKFILL_SCHEDULE_MINUTE", "6", "pipelines", "backfill_minute", 6),
        ("FEATURE_COMPUTATION_WORKERS", "7", "pipelines", "feature_workers", 7),
        ("BATCH_SIZE_MARKET_DATA", "8", "pipelines", "batch_size", 8),
        ("MIN_QUALITY_SCORE", "0.9", "quality", "min_quality_score", 0.9),
        ("MIN_DATA_COMPLETENESS", "0.91", "quality", "min_data_completeness", 0.91),
        ("VALIDATE_ON_INSERT", "no", "quality", "validate_on_insert", False),
    ],
)
def test_plain_names(name: str, value: str, section: str, key: str, expected: Any) -> None:
    assert getattr(getattr(load_settings(environ={name: value}), section), key) == expected


def test_every_plain_name_leads_to_a_setting() -> None:
    settings = load_settings()
    for key in PLAIN_NAMES.values():
        section, name = key.split(".", 1)
        assert section == "providers" or name in type(getattr(settings, section)).model_fields


@pytest.mark.parametrize("name", ["POLYGON_API_KEY", "MASSIVE_API_KEY"])
def test_provider_key_by_either_name(name: str) -> None:
    settings = load_settings(environ={name: "sesame"})
    polygon = provider_settings(settings.providers["polygon"], VenueSettings, "polygon", settings.origins)
    assert polygon.api_key is not None
    assert polygon.api_key.get_secret_value() == "sesame"


def test_two_names_of_one_setting_must_agree() -> None:
    message = refusal(environ={"POLYGON_API_KEY": "one", "MASSIVE_API_KEY": "two"})
    assert message == "POLYGON_API_KEY and MASSIVE_API_KEY are the same setting and differ: keep one of them"
    load_settings(environ={"POLYGON_API_KEY": "one", "MASSIVE_API_KEY": "one"})


def test_empty_environment_value_counts_as_absent() -> None:
    settings = load_settings(environ={"DATABASE_URL": "", "MARKET_DATA__API__PORT": " "})
    assert settings.database.url is None
    assert settings.api.port == 8000


def test_lists_by_comma_or_bracket() -> None:
    environ = {
        "MARKET_DATA__INSTRUMENTS__PRIORITY__STOCK": "yahoo, polygon",
        "MARKET_DATA__INSTRUMENTS__TRACKED__CRYPTO": "[BTC, SOL]",
    }
    settings = load_settings(environ=environ)
    assert settings.instruments.priority[AssetClass.STOCK] == ("yahoo", "polygon")
    assert settings.instruments.tracked[AssetClass.CRYPTO] == ("BTC", "SOL")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "MARKET_DATA__DATABASE__POOLSIZE",
            "3",
            "Unknown setting 'database.poolsize' in {}: did you mean 'pool_size'?",
        ),
        ("MARKET_DATA__DATABSE__URL", "x", "Unknown setting 'databse' in {}: did you mean 'database'?"),
        (
            "MARKET_DATA__DATABASE",
            "x",
            "Invalid setting 'database' in {}: it is a group of settings, write its keys below it",
        ),
        (
            "MARKET_DATA__API__PORT__X",
            "1",
            "Unknown setting 'api.port.x' in {}: 'api.port' is a value, it has no keys below it",
        ),
        (
            "MARKET_DATA__QUALITY__FRESHNESS__STOCK__TRAGET",
            "1",
            "Unknown setting 'quality.freshness.stock.traget' in {}: did you mean 'target'?",
        ),
        (
            "MARKET_DATA__INSTRUMENTS__ZZZZ",
            "1",
            "Unknown setting 'instruments.zzzz' in {}: known: preference, priority, timeframes, tracked",
        ),
    ],
)
def test_unknown_key_in_environment(name: str, value: str, expected: str) -> None:
    assert refusal(environ={name: value}) == expected.format(f"environment variable {name}")


def test_unknown_key_in_file(tmp_path: Path) -> None:
    config = written(tmp_path, "enrichment:\n  enrichment_huor: 3\n")
    expected = f"Unknown setting 'enrichment.enrichment_huor' in {config}: did you mean 'enrichment_hour'?"
    assert refusal(config) == expected


def test_misspelt_asset_class_names_the_valid_ones(tmp_path: Path) -> None:
    message = refusal(written(tmp_path, "quality: {freshness: {stok: {target: 1}}}"))
    assert "'quality.freshness.stok'" in message
    assert "'stock', 'etf' or 'crypto'" in message
    assert "Missing" not in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("api: {port: [}", "is not valid YAML at line 1"),
        ("api: {port: 1}\napi: {port: 2}", "is not valid YAML at line 2: 'api' twice"),
        ("- api", "must hold sections (database, providers, instruments"),
        ("api: {port: 99999}", "Invalid setting 'api.port' in"),
        ("api: 5", "it is a group of settings"),
    ],
)
def test_unusable_file(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refusal(written(tmp_path, text))


def test_absent_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent.yaml"
    assert refusal(path) == f"Cannot read the settings file {path}: No such file or directory"


def test_provider_settings_of_its_own_class() -> None:
    name = "MARKET_DATA__PROVIDERS__VENUE__REST_URL"
    settings = load_settings(environ={name: "http://127.0.0.1:9", "MARKET_DATA__PROVIDERS__VENUE__ENABLED": "false"})
    venue = provider_settings(settings.providers["venue"], VenueSettings, "venue")
    assert (venue.rest_url, venue.enabled) == ("http://127.0.0.1:9", False)


def test_unknown_provider_key() -> None:
    name = "MARKET_DATA__PROVIDERS__VENUE__REST_ULR"
    settings = load_settings(environ={name: "x"})
    with pytest.raises(ConfigError) as raised:
        provider_settings(settings.providers["venue"], VenueSettings, "venue", settings.origins)
    expected = "Unknown setting 'providers.venue.rest_ulr' in environment variable {}: did you mean 'rest_url'?"
    assert str(raised.value) == expected.format(name)


def test_unknown_provider_name() -> None:
    name = "MARKET_DATA__PROVIDERS__BINANC__ENABLED"
    settings = load_settings(environ={name: "false"})
    with pytest.raises(ConfigError) as raised:
        reject_unknown_providers(settings, ["binance", "polygon", "yahoo"])
    expected = "Unknown provider 'binanc' at 'providers.binanc' in environment variable {}: did you mean 'binance'?"
    assert str(raised.value) == expected.format(name)


def test_unknown_provider_in_priority() -> None:
    settings = load_settings(environ={"MARKET_DATA__INSTRUMENTS__PRIORITY__ETF": "polygon,yahho"})
    with pytest.raises(ConfigError, match=r"'yahho' at 'instruments.priority.etf' in environment .* mean 'yahoo'"):
        reject_unknown_providers(settings, ["binance", "polygon", "yahoo"])


def test_a_part_of_a_provider_is_known_by_its_name() -> None:
    settings = load_settings(environ={"MARKET_DATA__INSTRUMENTS__PRIORITY__CRYPTO": "ccxt:kraken"})
    reject_unknown_providers(settings, ["binance", "ccxt", "polygon", "yahoo"])


@pytest.mark.parametrize("config", ["", "providers: {polygon: {api_key: hush-secret}}"])
def test_secrets_are_never_printed(tmp_path: Path, config: str) -> None:
    environ = {"DATABASE_URL": "postgresql://u:hush-secret@h/n", "BINANCE_API_SECRET": "hush-secret"}
    settings = load_settings(written(tmp_path, config), environ)
    assert "hush-secret" not in repr(settings) + str(settings) + repr(settings.providers)
    assert "hush-secret" not in settings.model_dump_json()
    assert "hush-secret" not in refusal(environ={"MARKET_DATA__PROVIDERS": "hush-secret"})
    assert settings.database.url is not None
    assert settings.database.url.get_secret_value() == "postgresql://u:hush-secret@h/n"


def test_sandbox_folder_is_never_the_live_one(tmp_path: Path) -> None:
    environ = {"MARKET_DATA__DATABASE__DATA_DIR": str(tmp_path / "data")}
    live = load_settings(environ=environ).database.folder
    sandbox = load_settings(environ=environ, overrides={"database.sandbox": (True, "--sandbox")}).database.folder
    assert (live, sandbox) == (tmp_path / "data", tmp_path / "data-sandbox")


def test_default_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert load_settings().database.folder == tmp_path / "market-data"


def test_settings_are_frozen() -> None:
    name = "port"
    with pytest.raises(ValueError, match="frozen"):
        setattr(load_settings().api, name, 1)


def groups(model: type[BaseModel]) -> list[type[BaseModel]]:
    below = [f.annotation for f in model.model_fields.values() if isinstance(f.annotation, type)]
    return [model, *(g for b in below if issubclass(b, BaseModel) for g in groups(b))]


def test_every_setting_says_what_it_is_for() -> None:
    bare = [
        f"{group.__name__}.{name}"
        for group in groups(Settings)
        for name, field in group.model_fields.items()
        if not (field.description or (isinstance(field.annotation, type) and field.annotation.__doc__))
    ]
    assert bare == []


def test_default_file_holds_every_section_and_nothing_else() -> None:
    assert list(yaml.safe_load(default_yaml())) == [
        "database", "providers", "instruments", "pipelines", "features", "enrichment", "jobs", "quality", "api",
        "monitoring",
    ]  # fmt: skip


def test_env_example_names_every_variable() -> None:
    text = (Path(__file__).parent.parent / ".env.example").read_text(encoding="utf-8")
    names = {
        line.lstrip("# ").partition("=")[0]
        for line in text.splitlines()
        if "=" in line and " " not in line.lstrip("# ")
    }
    assert names >= set(PLAIN_NAMES)
    load_settings(environ=dict.fromkeys(names, ""))


@pytest.mark.parametrize("name", sorted(PLAIN_NAMES))
@pytest.mark.parametrize("link", ["tcp://10.96.0.1:9090", "udp://[fd00::1]:53"])
def test_what_kubernetes_sets_for_a_service_is_left_alone_and_told(name: str, link: str) -> None:
    settings = load_settings(environ={name: link})
    assert not settings.origins
    (remark,) = settings.remarks
    assert remark.startswith(f"{name}={link} is left alone: Kubernetes")
    assert "enableServiceLinks: false" in remark


def test_an_alias_bomb_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert "once its aliases (*name) are written out" in refusal(written(tmp_path, "\n".join(lines)))
    merged = ["a0: &a0 {x: 1}"]
    merged += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 10)]
    assert "once its aliases" in refusal(written(tmp_path, "\n".join(merged)))
    assert "once its aliases" in refusal(written(tmp_path, "api: &a {port: *a}"))


def test_aliases_that_spare_writing_are_well(tmp_path: Path) -> None:
    config = written(tmp_path, "instruments: {timeframes: {KO: &few [1h, 1d], AAPL: *few}}")
    assert load_settings(config).instruments.timeframes["AAPL"] == ("1h", "1d")


def test_what_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    assert "nested too deep" in refusal(written(tmp_path, "api: " + "[" * 5_000))


@pytest.mark.parametrize("name", ["ON", "no", "Yes", "NULL", "1299", "0x10", "2024-01-01"])
def test_a_symbol_that_is_no_text_to_yaml_is_to_be_quoted(tmp_path: Path, name: str) -> None:
    key = refusal(written(tmp_path, f"instruments:\n  timeframes:\n    {name}: [1h]"))
    assert key.endswith(f"is not valid YAML at line 3: '{name}' is no text to YAML: quote it")
    if name != "NULL":
        value = refusal(written(tmp_path, f"instruments: {{tracked: {{stock: [KO, {name}]}}}}"))
        assert value.endswith("quote it")
    quoted = load_settings(
        written(tmp_path, f"instruments: {{timeframes: {{'{name}': [1h]}}, tracked: {{stock: ['{name}']}}}}")
    )
    assert quoted.instruments.timeframes[name] == ("1h",)
    assert quoted.instruments.tracked[AssetClass.STOCK] == (name,)


def test_without_a_home_the_folder_must_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nowhere(*_: Any, **__: Any) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.setattr(Path, "expanduser", nowhere)
    monkeypatch.setattr("platformdirs.user_data_dir", nowhere)
    with pytest.raises(ConfigError, match="name the folder with --data-dir, or a server with --database-url"):
        _ = load_settings().database.folder
