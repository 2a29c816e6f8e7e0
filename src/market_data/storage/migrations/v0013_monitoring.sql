-- What workers tell of themselves, and what is wrong at present: for health, metrics and notifications.

-- One row per worker; it goes with the worker's own, whoever buries it.
CREATE TABLE worker_reports (
    worker_id bigint PRIMARY KEY REFERENCES procrastinate_workers (id) ON DELETE CASCADE,
    host text NOT NULL,
    pid integer NOT NULL,
    -- Per source the state of the worker's breaker: closed, half_open, open.
    breakers jsonb NOT NULL DEFAULT '{}',
    started_at timestamptz NOT NULL,
    reported_at timestamptz NOT NULL
);

-- One row per rule and what it is about, from when its condition began until it ended and everybody was told.
CREATE TABLE alerts (
    rule text NOT NULL,
    subject text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('warning', 'critical')),
    state text NOT NULL CHECK (state IN ('pending', 'firing', 'resolved')),
    detail text NOT NULL,
    since timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    -- Per target, by the hash of its address, the state it was told last.
    told jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (rule, subject)
);
