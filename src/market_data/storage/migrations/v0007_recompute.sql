-- Stretches of a series whose derived columns no longer follow from what is known: written in the transaction that made
-- them so, deleted in the one that renews them, so that none is ever lost.

CREATE TABLE recompute_due (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    timeframe text NOT NULL CHECK (timeframe IN ('1m', '5m', '15m', '30m', '1h', '4h', '1d', '1w')),
    start_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL,
    reason text NOT NULL,
    created_at timestamptz NOT NULL,
    CHECK (start_time < end_time)
);
CREATE INDEX recompute_due_by_series ON recompute_due (symbol, asset_class, timeframe, start_time);
