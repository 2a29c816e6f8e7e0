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
        from market_data.sandbox import server as module
    elif name == "create_app":
        from market_data.sandbox import app as module
    elif name == "Marketplace":
        from market_data.sandbox import marketplace as module
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)
