"""Schema revision 0021: the statements are in the SQL file beside."""

from market_data.storage.server.migration_files import apply_sql

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    apply_sql(__file__)
