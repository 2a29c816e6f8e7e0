"""Settings, read once from defaults, a file, the environment and the command line; typos are refused."""

from market_data.config.loading import (
    PLAIN_NAMES,
    default_yaml,
    load_settings,
    provider_settings,
    reject_unknown_providers,
)
from market_data.config.settings import Settings

__all__ = ["PLAIN_NAMES", "Settings", "default_yaml", "load_settings", "provider_settings", "reject_unknown_providers"]
