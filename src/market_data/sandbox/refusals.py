"""Binance's way to refuse a request: a negative code and a text."""

from __future__ import annotations

from typing import NoReturn, TypeVar

from starlette.requests import Request

Default = TypeVar("Default", int, None)


class Refused(Exception):
    """A 400 of Binance; ``body`` is what it sends."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.body = {"code": code, "msg": message}


def refuse(code: int, message: str) -> NoReturn:
    """Raise the refusal with that code and text."""
    raise Refused(code, message)


def whole_number(request: Request, name: str, default: Default) -> int | Default:
    """A whole number of the query; ``default`` where it is absent.

    Raises:
        Refused: -1105 when empty, -1100 when it is not made of digits.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text:
        refuse(-1105, f"Parameter '{name}' was empty.")
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        refuse(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
    return int(text)
