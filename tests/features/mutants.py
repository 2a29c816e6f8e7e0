"""Small faults put into a module's source, one at a time: a constant, an operator or a window off by one."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """A module's source with one fault.

    Attributes:
        line: of the original.
        fault: what was changed into what.
    """

    line: int
    fault: str
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module: each number, operator and comparison changed in turn."""
    tree = ast.parse(source)
    for index, node in enumerate(_places(tree)):
        for fault, change in _changes(node):
            changed = copy.deepcopy(tree)
            change(_places(changed)[index])
            yield Mutant(node.lineno, fault, ast.unparse(changed))


def _places(tree: ast.AST) -> list[Any]:
    kinds = (ast.BinOp, ast.AugAssign, ast.Compare, ast.Constant)
    said = {id(node) for annotation in _annotations(tree) for node in ast.walk(annotation)}
    return [node for node in ast.walk(tree) if isinstance(node, kinds) and id(node) not in said]


def _annotations(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            annotation = getattr(node, name, None)
            if annotation is not None:
                yield annotation


def _changes(node: ast.AST):
    """What may be done to a node: words for it, and a function that does it to its copy."""
    if isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in OPERATORS:
        new = OPERATORS[type(node.op)]
        yield f"{type(node.op).__name__} to {new.__name__}", lambda twin: setattr(twin, "op", new())
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
        other = OPERATORS[type(node.ops[0])]
        yield f"{type(node.ops[0]).__name__} to {other.__name__}", lambda twin: twin.ops.__setitem__(0, other())
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        more = node.value + 1 if isinstance(node.value, int) else node.value * 1.01
        yield f"{node.value} to {more}", lambda twin: setattr(twin, "value", more)
