-- Who is at work: every process that has a run under way holds a row here and, as long as it lives, an advisory lock of
-- its number. What is under way without a living owner is closed by whoever looks next.
CREATE TABLE owners (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    heard_at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE runs ADD COLUMN owner integer;
ALTER TABLE job_parts ADD COLUMN owner integer;
ALTER TABLE backfill_state ADD COLUMN owner integer;
CREATE INDEX runs_under_way ON runs (owner) WHERE status = 'in_progress';
CREATE INDEX backfill_state_under_way ON backfill_state (owner) WHERE status = 'in_progress';
