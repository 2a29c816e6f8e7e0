"""The schema in order: one SQL file per theme beside the revision Alembic reads."""
