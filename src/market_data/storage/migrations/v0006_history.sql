-- What history needs: when a fact was fetched, why a person corrected it, and the last moment each series changed at.

ALTER TABLE candles ADD COLUMN fetched_at timestamptz;
ALTER TABLE data_corrections ADD COLUMN comment text;

-- Every change of a series has a moment of its own, later than all before, even when the clock stands still or steps back:
-- so "as known at" never shows half of one.
CREATE TABLE series_moments (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    timeframe text NOT NULL CHECK (timeframe IN ('1m', '5m', '15m', '30m', '1h', '4h', '1d', '1w')),
    moment timestamptz NOT NULL,
    PRIMARY KEY (symbol, asset_class, timeframe)
);
