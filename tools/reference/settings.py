"""The page of settings: every key with its names in the environment, its default, its limits and its meaning."""

import types
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, SecretStr

from market_data import providers as provider_shelf
from market_data.config import PLAIN_NAMES, Settings, default_yaml
from market_data.config.settings import Names
from market_data.model.provider import Provider
from market_data.shelf import collect_classes
from reference.markdown import code, codes, one_line, page, table

HEAD = ("key", "default", "meaning", "kind", "in the environment")
INTRODUCTION = """
Later ones go over earlier ones: the defaults below, a file of your own (`--config FILE`, YAML with the same sections),
the environment, the options of the command line. An unknown key is an error that names the nearest known one. An empty
environment variable counts as absent.
"""
KINDS: dict[Any, str] = {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path"}


def settings_page() -> str:
    """All settings by section, then those of each provider."""
    defaults = yaml.safe_load(default_yaml())
    sections = []
    for name, field in Settings.model_fields.items():
        if name == "providers":
            continue
        model = field.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        rows = [_row(*found) for found in walk(model, f"{name}.", defaults[name])]
        sections.append(f"## {name}\n\n{(model.__doc__ or '').strip()}\n\n{table(HEAD, rows)}")
    for name, cls in sorted(collect_classes(provider_shelf, Provider).items()):
        rows = [_row(*found) for found in walk(cls.Settings, f"providers.{name}.", {})]
        sections.append(f"## providers.{name}\n\nOf the [provider](providers.md#{name}).\n\n{table(HEAD, rows)}")
    return page("Settings", INTRODUCTION, *sections)


def all_keys() -> list[str]:
    """Every dotted key."""
    defaults = yaml.safe_load(default_yaml())
    keys = [
        key
        for name, field in Settings.model_fields.items()
        if name != "providers"
        for key, *_ in walk(field.annotation, f"{name}.", defaults[name])  # type: ignore[arg-type]
    ]
    for name, cls in collect_classes(provider_shelf, Provider).items():
        keys += [key for key, *_ in walk(cls.Settings, f"providers.{name}.", {})]
    return keys


def walk(model: type[BaseModel], prefix: str, defaults: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any, str]]:
    """(key, annotation, default, meaning) of every leaf of a settings class."""
    for name, field in model.model_fields.items():
        key = prefix + name
        kind = field.annotation
        default = defaults.get(name) if name in defaults else field.get_default(call_default_factory=True)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from walk(kind, f"{key}.", default or {})
        elif get_origin(kind) is not None and issubclass(_origin(kind), Mapping) and default:
            inner = get_args(kind)[1]
            for member, value in default.items():
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    yield from walk(inner, f"{key}.{member}.", value)
                else:
                    yield f"{key}.{member}", inner, value, field.description or ""
        else:
            limits = tuple(field.metadata)
            yield key, Annotated[(kind, *limits)] if limits else kind, default, field.description or ""


def _origin(kind: Any) -> type:
    origin = get_origin(kind)
    return origin if isinstance(origin, type) else object


def _row(key: str, kind: Any, default: Any, meaning: str) -> tuple[str, ...]:
    plain = [name for name, target in PLAIN_NAMES.items() if target == key]
    names = codes([*plain, "MARKET_DATA__" + key.upper().replace(".", "__")], "<br>")
    return code(key), _shown(default), one_line(meaning), _kind(kind), names


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, SecretStr):
        return "hidden"
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, list | tuple):
        return code(f"[{', '.join(map(str, value))}]")
    if isinstance(value, Mapping):
        return code("{}") if not value else code(dict(value))
    return code(value.value if isinstance(value, Enum) else value)


def _kind(kind: Any) -> str:
    if kind == Names:
        return "list of names"
    if get_origin(kind) is Annotated:
        inner, *limits = get_args(kind)
        said = [text for limit in limits for text in _limits(limit)]
        if "names" in [getattr(getattr(limit, "func", None), "__name__", "")[-5:] for limit in limits]:
            return "list of names"
        return ", ".join([_kind(inner), *said])
    if get_origin(kind) is Literal:
        return "one of " + codes(get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        parts = [_kind(part) for part in get_args(kind) if part is not type(None)]
        return " or ".join([*parts, *(["null"] if type(None) in get_args(kind) else [])])
    if kind is SecretStr:
        return "secret text"
    if get_origin(kind) is not None and issubclass(_origin(kind), Mapping):
        return "group"
    if get_origin(kind) is not None:
        return "list"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + codes(member.value for member in kind)
    return KINDS.get(kind, getattr(kind, "__name__", str(kind)))


def _limits(limit: Any) -> Iterator[str]:
    parts = getattr(limit, "metadata", None) or [limit]
    for part in parts:
        for name, sign in (("ge", "≥"), ("gt", "&gt;"), ("le", "≤"), ("lt", "&lt;")):
            bound = getattr(part, name, None)
            if bound is not None:
                yield f"{sign} {bound}"
