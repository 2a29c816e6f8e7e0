"""Settings of the provider `polygon`."""

from __future__ import annotations

from pydantic import Field, SecretStr

from market_data.model.provider import ProviderSettings


class PolygonSettings(ProviderSettings):
    """Settings of the provider `polygon`."""

    requests_per_minute: float = Field(default=5, gt=0)
    """What the plan allows: 5 on the free one."""
    rest_url: str = "https://api.massive.com"
    """REST."""
    ws_url: str = "wss://socket.massive.com"
    """Streams; the delayed ones are at wss://delayed.massive.com."""
    api_key: SecretStr | None = None
    """The key of the account."""
