-- The premium index of perpetuals, every version of every source; times as in the other derivatives series.

CREATE TABLE premium_index (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    source text NOT NULL,
    period text NOT NULL,
    timestamp timestamptz NOT NULL,
    known_at timestamptz NOT NULL,
    known_from timestamptz NOT NULL,
    value numeric NOT NULL,
    run_id uuid,
    PRIMARY KEY (symbol, asset_class, source, period, timestamp, known_from)
);
