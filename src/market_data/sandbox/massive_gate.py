"""Massive's door: keys, plans, errors and pages, the same for every endpoint (PROVIDERS §2.1–2.2)."""

from __future__ import annotations

import base64
import operator
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

# Pages lead to the real host; clients keep the path and the query and use the host they were told.
NEXT_HOST = "https://api.massive.com"
REFUSED_KEY = "bad"
# The key of a free plan: no trades, quotes, snapshots or partners' data.
BASIC_KEY = "basic"
NOT_ENTITLED = "You are not entitled to this data. Please upgrade your plan at https://massive.com/pricing"
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "": operator.eq,
    ".gt": operator.gt,
    ".gte": operator.ge,
    ".lt": operator.lt,
    ".lte": operator.le,
}
Answer = Callable[[Request], Awaitable[Response]]


class BadRequest(Exception):
    """A 400 of Massive; the text is its ``error``."""


def guarded(answer: Answer, *, paid: bool = False) -> Answer:
    """The route behind a key: any but an empty or the word ``bad``, and not ``basic`` where ``paid``.

    A BadRequest becomes a 400.
    """

    async def checked(request: Request) -> Response:
        """Check the key, then answer."""
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        key = bearer if scheme == "Bearer" and bearer else request.query_params.get("apiKey", "")
        problem = {"status": "ERROR", "request_id": request_id(request)}
        if not key:
            return JSONResponse(problem | {"error": "API Key was not provided"}, 401)
        if key == REFUSED_KEY:
            return JSONResponse(problem | {"error": "Unknown API Key"}, 401)
        if paid and key == BASIC_KEY:
            body = {"status": "NOT_AUTHORIZED", "request_id": request_id(request), "message": NOT_ENTITLED}
            return JSONResponse(body, 403)
        try:
            return await answer(request)
        except BadRequest as wrong:
            return JSONResponse(problem | {"error": str(wrong)}, 400)

    return checked


def request_id(request: Request) -> str:
    """A name for the request, the same for the same request."""
    return blake2b(request.url.path.encode() + request.url.query.encode(), digest_size=16).hexdigest()


def cursor_at(position: int) -> str:
    """An opaque cursor for a position."""
    return base64.urlsafe_b64encode(f"at={position}".encode()).decode().rstrip("=")


def resumed(cursor: str) -> int:
    """The position of a cursor.

    Raises:
        BadRequest: when it is none of ours.
    """
    try:
        return int(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().removeprefix("at="))
    except ValueError:
        raise BadRequest("The parameter 'cursor' is not valid") from None


def limit_of(request: Request, default: int, most: int) -> int:
    """The page size asked for.

    Raises:
        BadRequest: outside 1 to ``most``.
    """
    text = request.query_params.get("limit", str(default))
    if not text.isdigit() or not 1 <= int(text) <= most:
        raise BadRequest(f"The parameter 'limit' must be between 1 and {most}")
    return int(text)


def following(request: Request, position: int) -> str:
    """The next page's address: the same query without the key, and a cursor."""
    kept = [f"&{quote(n)}={quote(v)}" for n, v in request.query_params.items() if n not in ("cursor", "apiKey")]
    return f"{NEXT_HOST}{request.url.path}?cursor={cursor_at(position)}{''.join(kept)}"


def paged(request: Request, found: list[dict[str, Any]], default: int, most: int) -> Response:
    """One page of a list, with the address of the next; ``results`` is there even when empty."""
    limit, cursor = limit_of(request, default, most), request.query_params.get("cursor")
    offset = resumed(cursor) if cursor else 0
    page = found[offset : offset + limit]
    body: dict[str, Any] = {"results": page, "status": "OK", "request_id": request_id(request), "count": len(page)}
    if offset + limit < len(found):
        body["next_url"] = following(request, offset + limit)
    return JSONResponse(body)


def within(request: Request, name: str, value: str) -> bool:
    """Whether a text passes the filters ``name``, ``name.gt/.gte/.lt/.lte/.any_of`` of the query."""
    query = request.query_params
    listed = query.get(f"{name}.any_of")
    if listed is not None and value not in listed.split(","):
        return False
    return all(passes(value, query[name + end]) for end, passes in COMPARISONS.items() if name + end in query)


def within_number(request: Request, name: str, value: float) -> bool:
    """Whether a number passes the filters ``name``, ``name.gt/.gte/.lt/.lte`` of the query.

    Raises:
        BadRequest: when a bound is not a number.
    """
    query = request.query_params
    try:
        bounds = {end: float(query[name + end]) for end in COMPARISONS if name + end in query}
    except ValueError:
        raise BadRequest(f"The parameter '{name}' must be a number") from None
    return all(COMPARISONS[end](value, bound) for end, bound in bounds.items())
