-- Jobs that fetch what the sources list.
ALTER TABLE jobs DROP CONSTRAINT jobs_kind_check;
ALTER TABLE jobs ADD CONSTRAINT jobs_kind_check
    CHECK (kind IN ('enrich', 'backfill', 'heal', 'recompute', 'reconcile', 'retention', 'lists'));
