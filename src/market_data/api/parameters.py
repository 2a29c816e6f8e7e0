"""Unknown query parameters are refused: a misspelt one would be answered with something else than was asked for."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_origin

from fastapi import Request

from market_data.api.problems import Problem


async def only_known_parameters(request: Request) -> None:
    """Let a request pass whose query parameters the route declares, each at most as often as it may be given.

    Raises:
        Problem: 422, naming the unknown ones, the nearest known one of each, and all that are valid.
    """
    known = {parameter.alias: parameter for parameter in _declared(request.scope["route"].dependant)}
    given = request.query_params
    faults = [_unknown(name, known) for name in given if name not in known]
    faults += [f"{name} is given more than once" for name in known if _repeated(name, known, request)]
    if faults:
        raise Problem(
            422,
            "unknown-parameter",
            "; ".join(faults),
            action=f"Use any of: {', '.join(sorted(known))}." if known else "This route takes no parameters.",
            valid=sorted(known),
        )


def _unknown(name: str, known: dict[str, Any]) -> str:
    match = difflib.get_close_matches(name.lower()[:64], known, n=1, cutoff=0.5)
    return f"unknown parameter {name[:64]!a}" + (f": did you mean {match[0]!r}?" if match else "")


def _repeated(name: str, known: dict[str, Any], request: Request) -> bool:
    # Of a single value FastAPI takes the last: which one was meant is not ours to guess.
    return len(request.query_params.getlist(name)) > 1 and get_origin(known[name].field_info.annotation) is not list


def _declared(dependant: Any) -> Iterator[Any]:
    yield from dependant.query_params
    for inner in dependant.dependencies:
        yield from _declared(inner)
