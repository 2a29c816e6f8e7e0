"""The SQL files of the migrations as Alembic's revisions: each follows the one with the number before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from alembic import op
from alembic.script import Script, ScriptDirectory

from market_data.storage.server.migration_files import FOLDER, numbered_files


class Revisions(ScriptDirectory):
    """What Alembic would find in Python files that all say the same: run the SQL file of my name."""

    def __init__(self) -> None:
        super().__init__(str(FOLDER), version_locations=[str(FOLDER)])

    def _load_revisions(self) -> Iterator[Script]:
        before: str | None = None
        for number, path in numbered_files():
            yield Script(_module(number, before, path), number, str(path))
            before = number


def _module(number: str, before: str | None, path: Path) -> ModuleType:
    module = ModuleType(f"schema_{number}", f"Schema revision {number}: {path.name}")
    module.revision, module.down_revision = number, before  # type: ignore[attr-defined]

    def upgrade() -> None:
        _apply(path)

    module.upgrade = upgrade  # type: ignore[attr-defined]  # by its name in what Alembic prints
    return module


def _apply(path: Path) -> None:
    """Run a SQL file, or print it in Alembic's offline mode."""
    # SQLAlchemy would take `:name` for a parameter.
    op.execute(path.read_text(encoding="utf-8").strip().removesuffix(";").replace(":", r"\:"))
