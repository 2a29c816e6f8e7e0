"""Slashes in symbols: one that came encoded in a path stays so, and does not part it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class EncodedSlashes:
    """Decodes paths anew where they hold an encoded slash; `arguments.Symbol` decodes what was left."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  # ASGI
        raw = scope.get("raw_path") or b""
        if scope["type"] == "http" and b"%2f" in raw.lower():
            kept = raw.decode("ascii", "replace").replace("%2f", "%252F").replace("%2F", "%252F")
            scope = {**scope, "path": unquote(kept.partition("?")[0])}
        await self._app(scope, receive, send)
