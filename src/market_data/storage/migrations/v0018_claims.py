"""Schema revision 0018: the statements are in the SQL file beside."""

from market_data.storage.server.migration_files import apply_sql

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    apply_sql(__file__)
