"""Finds every Provider, Rule and Feature declared in a package or a file, and third-party ones by entry point."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from market_data.model.errors import ConfigError

Item = TypeVar("Item")


def collect(package: ModuleType, kind: type[Item]) -> dict[str, Item]:
    """Module-level values of type `kind` in `package`, its subpackages and the entry points of its group, by name.

    The entry point group is the package's dotted name: a distribution adds providers by naming a module under
    ``market_data.providers``.

    Raises:
        ConfigError: when two items have the same name.
    """
    return _by_name((item for module in _modules(package) for item in _declared(module, kind)), kind.__name__)


def collect_classes(package: ModuleType, kind: type[Item]) -> dict[str, type[Item]]:
    """Concrete subclasses of `kind` defined in `package` and the entry points of its group, by their `name`.

    Raises:
        ConfigError: when two classes have the same name.
    """
    classes = (
        value
        for module in _modules(package)
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, kind)
        and not inspect.isabstract(value)
        and value.__module__ == module.__name__
    )
    return _by_name(classes, kind.__name__)


def collect_file(path: Path, kind: type[Item]) -> dict[str, Item]:
    """Module-level values of type `kind` in a Python file of the user's own, by name.

    Raises:
        ConfigError: when the file cannot be read or imported.
    """
    spec = importlib.util.spec_from_file_location(f"market_data_user_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ConfigError(f"{path} cannot be imported: line {error.lineno}: {error.msg}") from error
    except Exception as error:
        raise ConfigError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return _by_name(_declared(module, kind), kind.__name__)


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    yield package
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(found.name)
    for entry in entry_points(group=package.__name__):
        yield entry.load()


def _declared(module: ModuleType, kind: type[Item]) -> Iterator[Item]:
    seen: set[int] = set()
    for value in vars(module).values():
        if isinstance(value, kind) and id(value) not in seen:
            seen.add(id(value))
            yield value


def _by_name(items: Iterator[Item], kind: str) -> dict[str, Item]:
    found: dict[str, Item] = {}
    for item in items:
        name: str = item.name  # type: ignore[attr-defined]  # every kind of shelf item has one
        if found.setdefault(name, item) is not item:
            raise ConfigError(f"two {kind}s are named {name!r}")
    return found
