"""Writes docs/reference from what the program declares; `make reference` runs it, a test compares."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # `reference` is beside this file, wherever it is run from

from market_data.bootstrap.shelves import declared_features
from market_data.storage.server import migrate
from market_data.storage.server.database import Database
from market_data.storage.server.embedded import EmbeddedServer
from reference import doors, metrics, settings, shelves, tables

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"
PAGES = {
    "cli.md": doors.cli_page,
    "endpoints.md": doors.endpoints_page,
    "features.md": shelves.features_page,
    "providers.md": shelves.providers_page,
    "rules.md": shelves.rules_page,
    "settings.md": settings.settings_page,
    "timeframes.md": shelves.timeframes_page,
}
FROM_DATABASE = {"metrics.md": metrics.metrics_page, "tables.md": tables.tables_page}
"""Pages that are read from a migrated database without rows."""


def pages(database: Database) -> dict[str, str]:
    """Text of every generated page by its file's name.

    Args:
        database: migrated, of this program's version.
    """
    return {name: make() for name, make in PAGES.items()} | {
        name: make(database) for name, make in FROM_DATABASE.items()
    }


if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory(prefix="market-data-reference-") as folder,
        EmbeddedServer(Path(folder) / "server") as server,
        Database.open(server.conninfo(), None) as opened,
    ):
        declared_features()
        migrate.upgrade(opened)
        written = pages(opened)
    for name, text in written.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print((FOLDER / name).relative_to(ROOT))
