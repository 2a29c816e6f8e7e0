"""Settings of the provider `binance`."""

from __future__ import annotations

from pydantic import Field, SecretStr

from market_data.model.provider import ProviderSettings


class BinanceSettings(ProviderSettings):
    """Settings of the provider `binance`."""

    requests_per_minute: float = Field(default=1200, gt=0)
    """Our own limit, kept under the source's and shared by all processes of an installation, for each of the hosts."""
    rest_url: str = "https://fapi.binance.com"
    """USD-M futures."""
    spot_rest_url: str = "https://data-api.binance.vision"
    """Spot; this host serves market data only and is reachable where the others are geo-blocked."""
    archive_url: str = "https://data.binance.vision"
    """The public archive."""
    use_archive: bool = True
    """Whether long ranges come from the archive; it is the only source of older trades and open interest."""
    archive_from_candles: int = Field(default=180_000, ge=1)
    """From how many candles on a range comes from the archive: a month of minutes is one file of 2 MB there."""
    ws_url: str = "wss://fstream.binance.com"
    """USD-M streams."""
    spot_ws_url: str = "wss://data-stream.binance.vision"
    """Spot streams."""
    api_key: SecretStr | None = None
    """Sent where an endpoint may ask for it; none that is used here needs one today."""
    api_secret: SecretStr | None = None
    """Taken with the key, so that both may be set as Binance gives them; nothing here signs requests."""
