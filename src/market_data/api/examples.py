"""Examples of whole answers for the OpenAPI document, put together from the examples of their fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

JSON: Final = "application/json"


def add_examples(document: dict[str, Any]) -> None:
    """Give every successful JSON answer of the document an example.

    Raises:
        LookupError: naming a field of text of which nothing says how it looks.
    """
    schemas = document["components"]["schemas"]
    for methods in document["paths"].values():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                content = response.get("content", {}).get(JSON)
                if status.startswith("2") and content is not None:
                    content["example"] = example_of(content["schema"], schemas)


def example_of(schema: Mapping[str, Any], schemas: Mapping[str, Any], name: str = "answer") -> Any:
    """A value of a schema: its first example, or what its parts make; whatever can be null without one is null.

    Raises:
        LookupError: naming a text without an example.
    """
    if "examples" in schema:
        return schema["examples"][0]
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rpartition("/")[2]], schemas, name)
    if "anyOf" in schema:
        return _of_alternatives(schema["anyOf"], schemas, name)
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    match schema.get("type"):
        case "object":
            fields = schema.get("properties", {}).items()
            return {field: example_of(part, schemas, f"{name}.{field}") for field, part in fields}
        case "array":
            return [example_of(schema["items"], schemas, name)]
        case "boolean":
            return False
        case "integer" | "number" as kind:
            return schema.get("minimum", 1) if kind == "integer" else 0.5
        case _:
            raise LookupError(f"{name} has no example")


def _of_alternatives(alternatives: list[dict[str, Any]], schemas: Mapping[str, Any], name: str) -> Any:
    real = [each for each in alternatives if each.get("type") != "null"]
    try:
        return example_of(real[0], schemas, name)
    except LookupError:
        if len(real) == len(alternatives):
            raise
        return None
