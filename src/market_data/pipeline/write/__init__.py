"""From a page to a commit: normalise, validate, judge, derive, ripple; read ingest.py first."""
