"""A self-hosted market data platform: canonical, checked, versioned market data with features, in PostgreSQL."""
