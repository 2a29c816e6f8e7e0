-- A part of a job may ask anew for what was asked for before.
ALTER TABLE job_parts ADD COLUMN again boolean NOT NULL DEFAULT false;
