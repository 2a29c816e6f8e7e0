"""The sandbox: recorded market history served on loopback through the wire protocols of the real sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from market_data.sandbox.app import create_app
    from market_data.sandbox.marketplace import Marketplace
    from market_data.sandbox.server import Sandbox, serve

__all__ = ["Marketplace", "Sandbox", "create_app", "serve"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the server's packages cost start-up time that no other command should pay.
    if name in ("Sandbox", "serve"):
        from market_data.sandbox import server

        return getattr(server, name)
    if name == "create_app":
        from market_data.sandbox.app import create_app

        return create_app
    if name == "Marketplace":
        from market_data.sandbox.marketplace import Marketplace

        return Marketplace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
