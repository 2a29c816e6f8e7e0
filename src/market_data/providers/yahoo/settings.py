"""Settings of the provider `yahoo`."""

from __future__ import annotations

from pydantic import Field

from market_data.model.provider import ProviderSettings


class YahooSettings(ProviderSettings):
    """Settings of the provider `yahoo`."""

    requests_per_minute: float = Field(default=60, gt=0)
    """There is no published quota; more than one or two a second gets an address refused."""
    rate_window_seconds: float = Field(default=5, gt=0)
    """The window the limit is counted in: a short one spreads requests evenly, a long one allows bursts."""
    rest_url: str = "https://query2.finance.yahoo.com"
    """Chart, search and the rest."""
    cookie_url: str = "https://fc.yahoo.com"
    """Where the cookie comes from that everything but the chart asks for."""
    ws_url: str = "wss://streamer.finance.yahoo.com"
    """Streams."""
