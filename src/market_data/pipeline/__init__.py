"""The story of one batch; read write/ingest.py first."""
