"""YAML of a settings file, strictly: no key twice or silently another type, and no text that grows when it is read."""

from __future__ import annotations

from typing import Any, Final

import yaml

from market_data.model.errors import ConfigError

# With all its aliases written out. Settings of a thousand symbols are a few thousand.
MOST_NODES: Final = 100_000
_TEXT: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"


def parse_yaml(text: str, origin: str) -> Any:
    """What the text says.

    Raises:
        ConfigError: when it is not YAML, or not as we want it, naming the line.
    """
    loader = _StrictLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MOST_NODES:
            raise ConfigError(f"{origin} has more than {MOST_NODES:,} values once its aliases (*name) are written out")
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{origin} is not valid YAML{line}: {error.problem}") from None
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"{origin} is not valid YAML") from None
    except RecursionError:
        raise ConfigError(f"{origin} is nested too deep") from None
    finally:
        loader.dispose()


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key written twice, of which YAML would keep the last, and one that is no text, as ON and 7 are not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag not in (_TEXT, _MERGE):
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key_node.value!r} is no text to YAML: quote it", key_node.start_mark
                )
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key_node.value!r} twice", key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node has with its aliases written out; one that holds itself has more than any bound."""
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1
        inner = node.value if isinstance(node, yaml.SequenceNode) else ()
        if isinstance(node, yaml.MappingNode):
            inner = [each for pair in node.value for each in pair]
        known[id(node)] = min(1 + sum(_size(each, known) for each in inner), MOST_NODES + 1)
    return known[id(node)]
