-- What the program keeps about its own work: coverage of every series, rows refused, sources that disagree, runs, keys.

-- [start_time, end_time) of a series: present, proved without trades, missing, or beyond recovery.
CREATE TABLE coverage (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    timeframe text NOT NULL CHECK (timeframe IN ('1m', '5m', '15m', '30m', '1h', '4h', '1d', '1w')),
    start_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL,
    state text NOT NULL CHECK (state IN ('present', 'no_trade', 'missing', 'unrecoverable')),
    detected_at timestamptz NOT NULL,
    filled_at timestamptz,
    filled_by text,
    tries integer NOT NULL DEFAULT 0,
    next_try_at timestamptz,
    last_error text,
    PRIMARY KEY (symbol, asset_class, timeframe, start_time),
    CHECK (start_time < end_time)
);
CREATE INDEX coverage_to_heal ON coverage (next_try_at) WHERE state = 'missing';

-- Rows that broke a rejecting rule, as they were.
CREATE TABLE quarantine (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset text NOT NULL,
    symbol text,
    asset_class text,
    timeframe text,
    timestamp timestamptz,
    source text,
    rule text NOT NULL,
    payload jsonb NOT NULL,
    run_id uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    resolution text
);
CREATE INDEX quarantine_by_symbol ON quarantine (symbol, asset_class, timeframe, timestamp);
CREATE INDEX quarantine_unresolved ON quarantine (created_at) WHERE resolved_at IS NULL;

-- Two sources, one key, different values: source_a is the one kept.
CREATE TABLE disagreements (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset text NOT NULL DEFAULT 'candles',
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    timeframe text CHECK (timeframe IN ('1m', '5m', '15m', '30m', '1h', '4h', '1d', '1w')),
    timestamp timestamptz NOT NULL,
    field text NOT NULL,
    source_a text NOT NULL,
    value_a numeric,
    source_b text NOT NULL,
    value_b numeric,
    run_id uuid,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (
        symbol, asset_class, timeframe, timestamp, dataset, field, source_a, source_b, value_a, value_b
    )
);
CREATE INDEX disagreements_by_time ON disagreements (recorded_at);

CREATE TABLE runs (
    id uuid PRIMARY KEY,
    kind text NOT NULL,
    symbol text,
    asset_class text,
    timeframe text,
    dataset text,
    actor text,
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    status text NOT NULL CHECK (status IN ('queued', 'in_progress', 'completed', 'partial', 'failed', 'cancelled')),
    counts jsonb NOT NULL DEFAULT '{}',
    error text
);
CREATE INDEX runs_by_time ON runs (started_at DESC);
CREATE INDEX runs_by_symbol ON runs (symbol, started_at DESC);

CREATE TABLE api_keys (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL UNIQUE,
    hash text NOT NULL UNIQUE,
    scopes text[] NOT NULL CHECK (scopes <@ '{read,trigger,admin}' AND cardinality(scopes) > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz
);

CREATE TABLE system_state (
    key text PRIMARY KEY,
    value jsonb NOT NULL,
    updated_by text,
    updated_at timestamptz NOT NULL DEFAULT now()
);
