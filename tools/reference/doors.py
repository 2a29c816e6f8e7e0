"""Pages of the doors: every command with its options, every endpoint with its parameters and answers, every metric."""

from collections.abc import Iterator
from typing import Any

import typer

from market_data.api.app import create_api
from market_data.api.security import OPEN_PATHS, scope_needed
from market_data.cli.app import app
from reference.markdown import code, codes, one_line, page, paragraphs, slug, table

PROBLEM = "application/problem+json"
TYPES = {"object": "group", "integer": "whole number", "string": "text"}
CLI_INTRODUCTION = """
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partly done. The options of the whole program may stand before or after
the command. `python -m market_data` is the same program.
"""
HTTP_INTRODUCTION = """
The document of the interface itself is at `/api/v1/openapi.json`, and printed by `market-data openapi`. How keys are
sent and what a key may do: [add keys](../howto/add-keys.md). What goes wrong is told by a problem document (RFC 9457)
with `detail` and `action`.
"""


def walk_commands() -> Iterator[tuple[str, Any, Any]]:
    """(words, command, context) of the program itself and of every command, groups before what is in them."""
    root = typer.main.get_command(app)
    context = root.make_context("market-data", [], resilient_parsing=True)
    context.max_content_width = 10_000
    yield from _walk("market-data", root, context)


def _walk(words: str, command: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
    yield words, command, context
    for name, inner in getattr(command, "commands", {}).items():
        made = inner.context_class(inner, info_name=name, parent=context, max_content_width=10_000)
        yield from _walk(f"{words} {name}", inner, made)


def cli_page() -> str:
    """Every command with its arguments and options."""
    found = list(walk_commands())
    listed = table(
        ("command", "what it does"),
        [(f"[`{words}`](#{slug(words)})", one_line(command.help or "")) for words, command, _ in found[1:]],
    )
    return page("Command line", CLI_INTRODUCTION, listed, *[_command(*one) for one in found])


def _command(words: str, command: Any, context: Any) -> str:
    usage = " ".join([words, *command.collect_usage_pieces(context)])
    records = [record for parameter in command.get_params(context) if (record := parameter.get_help_record(context))]
    rows = [(code(" ".join(left.split())), one_line(right)) for left, right in records]
    return "\n\n".join(
        [f"## {words}", paragraphs(command.help or ""), f"```text\n{usage}\n```", table(("option", "meaning"), rows)]
    )


def endpoints_page() -> str:
    """Every endpoint, then every document they answer with."""
    document = create_api().openapi()
    routes = _routes(document)
    listed = table(
        ("endpoint", "scope", "what it does"),
        [
            (f"[`{method} {path}`](#{slug(f'{method} {path}')})", _scope(method, path), one_line(route["description"]))
            for method, path, route in routes
        ],
    )
    schemas = document["components"]["schemas"]
    return page(
        "Endpoints",
        HTTP_INTRODUCTION,
        listed,
        *[_route(*route) for route in routes],
        "## Documents",
        *[_schema(name, schema) for name, schema in sorted(schemas.items())],
    )


def _routes(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), path, route)
        for path, methods in document["paths"].items()
        for method, route in methods.items()
    ]


def _scope(method: str, path: str) -> str:
    return "none" if path in OPEN_PATHS else scope_needed(method, path).value


def _route(method: str, path: str, route: dict[str, Any]) -> str:
    refused = {status for status, answer in route["responses"].items() if PROBLEM in answer.get("content", {})}
    good = [_answer(status, answer) for status, answer in route["responses"].items() if status not in refused]
    parameters = [_parameter(one) for one in route.get("parameters", [])]
    parts = [
        f"## {method} {path}",
        paragraphs(route["description"]),
        table(("parameter", "where", "type", "default", "meaning"), parameters),
        table(("status", "as", "document", "meaning"), good),
        f"Problems: {codes(sorted(refused))}." if refused else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _parameter(one: dict[str, Any]) -> tuple[str, ...]:
    where = one["in"] + (", required" if one.get("required") else "")
    default = one["schema"].get("default")
    said = "" if default is None else code(default)
    return code(one["name"]), where, _type(one["schema"]), said, one_line(one.get("description", ""))


def _answer(status: str, answer: dict[str, Any]) -> tuple[str, ...]:
    kinds = codes(answer.get("content", {}), "<br>") or "no body"
    return status, kinds, _answered(answer), one_line(answer["description"])


def _answered(answer: dict[str, Any]) -> str:
    schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
    return _type(schema) if schema else ""


def _schema(name: str, schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        (code(field), _type(inner), "yes" if field in required else "no", one_line(inner.get("description", "")))
        for field, inner in schema.get("properties", {}).items()
    ]
    said = paragraphs(schema.get("description", ""))
    values = f"One of {codes(schema['enum'])}." if "enum" in schema else ""
    fields = table(("field", "type", "always there", "meaning"), rows)
    parts = [f"### {name}", said, values, fields]
    return "\n\n".join(part for part in parts if part)


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{slug(name)})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(one) for one in schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "enum" in schema:
        return codes(schema["enum"])
    kind = str(schema.get("type", "any"))
    kind = TYPES.get(kind, kind)
    return f"{kind}, {schema['format']}" if "format" in schema else kind
