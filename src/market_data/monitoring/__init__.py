"""Monitoring: what is exported, what counts as wrong, and who is told."""
