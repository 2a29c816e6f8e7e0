-- Old quarters of option chains, packed: the same rows, a line per chain and moment, compressed. Reads look through both.
CREATE TABLE options_iv_packed (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    source text NOT NULL,
    timestamp timestamptz NOT NULL,
    known_from timestamptz NOT NULL,
    packed_at timestamptz NOT NULL,
    row_count integer NOT NULL,
    content jsonb NOT NULL,
    PRIMARY KEY (symbol, asset_class, timestamp, source, known_from, packed_at)
);
