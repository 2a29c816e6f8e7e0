"""What is wrong with a setting, in one sentence: which key, where it was written, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


def explain(error: ValidationError, model: type[BaseModel], origins: Mapping[str, str], prefix: str = "") -> str:
    """Sentences on every fault of a validation, joined by semicolons; values are never repeated, they may be secret.

    Args:
        error: What pydantic found.
        model: The settings class that was validated; its keys are the known ones.
        origins: Where each dotted key was written.
        prefix: Dotted key of the model itself, with a dot at its end.
    """
    faults = error.errors(include_url=False)
    # A misspelt group also lacks its keys: the misspelling is what to mend.
    told = [fault for fault in faults if fault["type"] != "missing"] or faults
    return "; ".join(_sentence(fault, model, origins, prefix) for fault in told)


def nearest(name: str, known: Sequence[str]) -> str:
    """``did you mean X?`` for a near miss, else all the known names."""
    match = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    return f"did you mean {match[0]!r}?" if match else f"known: {', '.join(sorted(known)) or 'none'}"


def origin_of(key: str, origins: Mapping[str, str]) -> str:
    """`` in …`` where `key`, or the nearest thing above or below it, was written; empty when it is a default."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        if found := origins.get(".".join(parts[:length])):
            return f" in {found}"
    below = [origin for written, origin in origins.items() if written.startswith(f"{key}.")]
    return f" in {below[0]}" if below else ""


def _sentence(fault: ErrorDetails, model: type[BaseModel], origins: Mapping[str, str], prefix: str) -> str:
    path = [str(part) for part in fault["loc"] if part != "[key]"]
    key = prefix + ".".join(path)
    where = origin_of(key, origins)
    if fault["type"] == "extra_forbidden":
        return f"Unknown setting {key!r}{where}: {nearest(path[-1], known_keys(model, path[:-1]))}"
    if fault["type"] == "missing":
        return f"Missing setting {key!r}{where}"
    if fault["type"] == "string_type" and isinstance(fault["input"], bool | int | float | date):
        return f"Invalid setting {key!r}{where}: to YAML that is no text (as ON, no and 7 are not): quote it"
    return f"Invalid setting {key!r}{where}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


def known_keys(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Names of the settings under `path`, followed from `model`; empty when it does not lead to a group."""
    current: Any = model
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(part)
            current = field.annotation if field else None
        else:
            arguments = get_args(current)
            current = arguments[-1] if arguments else None
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []
