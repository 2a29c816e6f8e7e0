"""Schema revision 0001: the statements are in the SQL file beside."""

from market_data.storage.server.migration_files import apply_sql

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Run the SQL file of the same name."""
    apply_sql(__file__)
