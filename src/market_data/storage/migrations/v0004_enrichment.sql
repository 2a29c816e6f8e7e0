-- How the present came to be: corrections, fetches, computations, backfills, and how good the data is.

CREATE TABLE data_corrections (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset text NOT NULL DEFAULT 'candles',
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    timeframe text CHECK (timeframe IN ('1m', '5m', '15m', '30m', '1h', '4h', '1d', '1w')),
    timestamp timestamptz NOT NULL,
    revision integer,
    field_corrected text NOT NULL,
    old_value text,
    new_value text,
    reason text NOT NULL CHECK (
        reason IN ('source_updated', 'better_source', 'bug_fix', 'manual_correction', 'validation_failure')
    ),
    source text,
    corrected_by text,
    run_id uuid,
    correction_timestamp timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX data_corrections_by_key ON data_corrections (symbol, asset_class, timeframe, timestamp);
CREATE INDEX data_corrections_by_time ON data_corrections (correction_timestamp);

CREATE TABLE backfill_state (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    dataset text NOT NULL DEFAULT 'candles',
    timeframe text CHECK (timeframe IN ('1m', '5m', '15m', '30m', '1h', '4h', '1d', '1w')),
    backfill_job_id uuid NOT NULL,
    start_date timestamptz NOT NULL,
    end_date timestamptz NOT NULL,
    last_successful_date timestamptz,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'in_progress', 'completed', 'failed')),
    error_message text,
    retry_count integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (backfill_job_id, symbol, asset_class, dataset, timeframe)
);
CREATE INDEX backfill_state_by_symbol ON backfill_state (symbol, asset_class, dataset, timeframe, updated_at);
CREATE INDEX backfill_state_unfinished ON backfill_state (status) WHERE status <> 'completed';

CREATE TABLE enrichment_fetch_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    source text NOT NULL,
    dataset text NOT NULL DEFAULT 'candles',
    timeframe text,
    fetch_date_start timestamptz,
    fetch_date_end timestamptz,
    records_fetched integer NOT NULL DEFAULT 0,
    records_inserted integer NOT NULL DEFAULT 0,
    records_updated integer NOT NULL DEFAULT 0,
    records_unchanged integer NOT NULL DEFAULT 0,
    records_kept integer NOT NULL DEFAULT 0,
    records_rejected integer NOT NULL DEFAULT 0,
    source_response_time_ms double precision,
    success boolean NOT NULL,
    error_details text,
    api_quota_remaining integer,
    run_id uuid,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX enrichment_fetch_log_by_symbol ON enrichment_fetch_log (symbol, asset_class, created_at DESC);
CREATE INDEX enrichment_fetch_log_by_time ON enrichment_fetch_log (created_at);
CREATE INDEX enrichment_fetch_log_by_run ON enrichment_fetch_log (run_id);

CREATE TABLE enrichment_compute_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    timeframe text NOT NULL,
    features_computed text[] NOT NULL DEFAULT '{}',
    missing_fields text[] NOT NULL DEFAULT '{}',
    computation_time_ms double precision,
    candles_processed integer NOT NULL DEFAULT 0,
    success boolean NOT NULL,
    error_details text,
    run_id uuid,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX enrichment_compute_log_by_symbol ON enrichment_compute_log (symbol, asset_class, created_at DESC);
CREATE INDEX enrichment_compute_log_by_time ON enrichment_compute_log (created_at);

-- validation_rate in percent, scores from 0 to 1.
CREATE TABLE data_quality_metrics (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    date date NOT NULL,
    total_records integer NOT NULL DEFAULT 0,
    validated_records integer NOT NULL DEFAULT 0,
    validation_rate double precision CHECK (validation_rate BETWEEN 0 AND 100),
    gaps_detected integer NOT NULL DEFAULT 0,
    anomalies_detected integer NOT NULL DEFAULT 0,
    avg_quality_score double precision CHECK (avg_quality_score BETWEEN 0 AND 1),
    data_completeness double precision CHECK (data_completeness BETWEEN 0 AND 1),
    sources_used text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (symbol, asset_class, date)
);
CREATE INDEX data_quality_metrics_by_date ON data_quality_metrics (date);

CREATE TABLE enrichment_status (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    status text NOT NULL CHECK (status IN ('healthy', 'warning', 'stale', 'error', 'not_enriched')),
    last_enrichment_time timestamptz,
    last_fetch_source text,
    data_age_seconds double precision,
    records_available bigint NOT NULL DEFAULT 0,
    quality_score double precision CHECK (quality_score BETWEEN 0 AND 1),
    validation_rate double precision CHECK (validation_rate BETWEEN 0 AND 100),
    error_message text,
    next_enrichment timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (symbol, asset_class)
);
