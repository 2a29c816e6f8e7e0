"""Errors as RFC 9457 problem documents: one mapping from our exceptions to a status and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from market_data.model import errors

MEDIA_TYPE: Final = "application/problem+json"
log = structlog.get_logger()


class ProblemDocument(BaseModel):
    """What went wrong and what to do about it."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:market-data:problem:unknown-instrument"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["XYZ (stock) is not tracked and was never enriched"])
    action: str | None = Field(default=None, examples=["Track or enrich it first: POST /api/v1/enrichment/trigger"])


class Problem(Exception):
    """A refusal that a route decides on itself."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        action: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.action = action
        self.headers = dict(headers or {})
        self.more = more

    def response(self) -> Response:
        """The problem document as a response."""
        title = _TITLES.get(self.status) or HTTPStatus(self.status).phrase
        document = {"type": f"urn:market-data:problem:{self.kind}", "title": title, "status": self.status}
        body = {**document, "detail": self.detail, "action": self.action, **self.more}
        return Response(to_json(body), self.status, self.headers, media_type=MEDIA_TYPE)


_RETRY: Final = {"Retry-After": "5"}
# The first class an error is an instance of decides. Without a text of its own the error's words are told, which are
# written for the user; those of the database and of settings stay in the log.
_MAPPING: Final[tuple[tuple[type[Exception], int, str, str | None, str], ...]] = (
    (errors.UsageError, 422, "wrong-argument", None, "Correct the request; /api/v1/openapi.json describes it."),
    (errors.UnknownInstrument, 404, "unknown-instrument", None,
     "Enrich it first: POST /api/v1/enrichment/trigger?symbol=…&asset_class=…"),
    (errors.UnsupportedRequest, 422, "unsupported", None, "GET /api/v1/providers lists what each source serves."),
    (errors.DatabaseUnavailable, 503, "database-unavailable", "The database cannot be reached.", "Try again shortly."),
    (errors.DiskFull, 507, "disk-full", "No space is left for the database.", "Free some space on its disk."),
    (errors.DatabaseReadOnly, 503, "database-read-only", "The database accepts no writes.",
     "Connect to the primary server."),
    (errors.StorageError, 500, "database-refused", "The database refused the request.", "The server's log says why."),
    (errors.RateLimited, 503, "source-limited", "A source allows no more requests for now.", "Try again later."),
    (errors.TransientError, 503, "busy", "The request could not be served in time.",
     "Try again, with a shorter range if it was a long one."),
    (errors.PermanentError, 502, "source-refused", "A source refused.", "The server's log says why."),
    (errors.MarketDataError, 500, "failed", "The request failed.", "The server's log says why."),
)  # fmt: skip


def problem_of(error: Exception) -> Problem:
    """The problem an exception means."""
    for kind, status, name, detail, action in _MAPPING:
        if isinstance(error, kind):
            headers = _RETRY if status == HTTPStatus.SERVICE_UNAVAILABLE else None
            return Problem(status, name, detail or str(error), action=action, headers=headers)
    return Problem(
        500, "unexpected", "The server met an error it did not expect.", action="The server's log says more."
    )


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem document."""

    async def ours(request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("request_failed", path=request.url.path, error=f"{type(error).__name__}: {error}")
        return problem.response()

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _invalid(error).response()

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        return Problem(
            error.status_code,
            kind,
            str(error.detail),
            action=_HTTP_ACTIONS.get(error.status_code),
            headers=error.headers,
        ).response()

    app.add_exception_handler(errors.MarketDataError, ours)
    app.add_exception_handler(Problem, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, ours)


# As RFC 9110 has them; the names in older versions of Python differ.
_TITLES: Final = {413: "Content Too Large", 422: "Unprocessable Content"}
_HTTP_ACTIONS: Final = {
    404: "GET /api/v1/openapi.json lists every path.",
    405: "Use the method the path is for; state is changed by POST only.",
}


def _invalid(error: RequestValidationError) -> Problem:
    faults = [
        {"where": ".".join(str(part) for part in fault["loc"]), "message": fault["msg"].removeprefix("Value error, ")}
        for fault in error.errors()
    ]
    detail = "; ".join(f"{fault['where'].partition('.')[2] or fault['where']}: {fault['message']}" for fault in faults)
    return Problem(
        422, "wrong-argument", detail, action="Correct the request; /api/v1/openapi.json describes it.", errors=faults
    )


def described(*statuses: int, alone: bool = False) -> dict[int | str, dict[str, Any]]:
    """What a route's `responses` say of its errors.

    Args:
        statuses: those of this route.
        alone: leave out those that every route may answer which asks the database.
    """
    return {
        status: {
            "description": _TITLES.get(status) or HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        for status in sorted({*statuses, *(() if alone else (401, 403, 413, 422, 429, 500, 503, 507))})
    }
