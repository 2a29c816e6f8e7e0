-- The sources as the newest worker has them. How they fare stands elsewhere: breakers in worker_reports, answers and
-- quotas in enrichment_fetch_log.
ALTER TABLE providers DROP COLUMN breaker_state;
ALTER TABLE providers DROP COLUMN quota_remaining;
ALTER TABLE providers DROP COLUMN last_success_at;
ALTER TABLE providers DROP COLUMN last_failure_at;
ALTER TABLE providers DROP COLUMN last_error;
ALTER TABLE providers DROP COLUMN priority;
ALTER TABLE providers ADD COLUMN priorities jsonb NOT NULL DEFAULT '{}';
