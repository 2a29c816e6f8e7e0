"""The story of one batch; read ingest.py first."""
