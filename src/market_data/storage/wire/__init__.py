"""How rows move between PostgreSQL and frames: binary COPY both ways, and errors in our words."""
