"""Schema revision 0006: the statements are in the SQL file beside."""

from market_data.storage.server.migration_files import apply_sql

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    apply_sql(__file__)
