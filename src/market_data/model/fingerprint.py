"""A hash of what a function does: its code and the constants and functions it uses, not its comments."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from datetime import timedelta
from types import CodeType, FunctionType
from typing import Any

_CONSTANTS = (bool, int, float, str, bytes, tuple, frozenset, timedelta, type(None))


def fingerprint(function: Callable[..., Any], *parameters: object) -> str:
    """12 hex digits of the function's code, its module's constants and functions that it uses, and the parameters."""
    parts = [repr(parameter) for parameter in parameters]
    _collect(function, parts, set())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def docstring(function: Callable[..., Any]) -> str:
    """The function's docstring; from its source where Python was told to leave docstrings out (-OO)."""
    if function.__doc__:
        return function.__doc__
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return ""
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return next((ast.get_docstring(node, clean=False) or "" for node in nodes), "")


def _collect(function: Callable[..., Any], parts: list[str], seen: set[int]) -> None:
    if id(function) in seen:
        return
    seen.add(id(function))
    parts.append(_code(function))
    if not isinstance(function, FunctionType):
        return
    parts.append(repr(function.__defaults__))
    for name, value in sorted(_referred(function).items()):
        if isinstance(value, FunctionType) and value.__module__ == function.__module__:
            _collect(value, parts, seen)
        elif isinstance(value, _CONSTANTS):
            parts.append(f"{name}={value!r}")


def _referred(function: FunctionType) -> dict[str, Any]:
    names = set(_names(function.__code__))
    found = {name: value for name, value in function.__globals__.items() if name in names}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return found | {name: cell.cell_contents for name, cell in cells}


def _names(code: CodeType) -> list[str]:
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return [*code.co_names, *(name for each in inner for name in _names(each))]


def _code(function: Callable[..., Any]) -> str:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        # No file to read (a console), or a lambda within an expression: the compiled code stands in.
        return _compiled(function)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _compiled(function: Callable[..., Any]) -> str:
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return repr(function)
    consts = [const for const in code.co_consts if not isinstance(const, CodeType)]
    return f"{code.co_code.hex()} {consts!r} {code.co_names!r}"
