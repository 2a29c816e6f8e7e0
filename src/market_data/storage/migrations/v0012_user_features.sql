-- Features that users add in files of their own. The program adds a column to user_features when a feature first appears
-- (double precision, or text), and never drops one.

CREATE TABLE user_features (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    timeframe text NOT NULL CHECK (timeframe IN ('1m', '5m', '15m', '30m', '1h', '4h', '1d', '1w')),
    timestamp timestamptz NOT NULL,
    PRIMARY KEY (symbol, asset_class, timeframe, timestamp)
);

-- Which definition of each was last in use; only definitions that keep the laws of features get here.
CREATE TABLE user_feature_definitions (
    name text PRIMARY KEY,
    type text NOT NULL CHECK (type IN ('double precision', 'text')),
    unit text NOT NULL,
    version text NOT NULL,
    declared_at timestamptz NOT NULL
);
