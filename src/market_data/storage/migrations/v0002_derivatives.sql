-- Derivatives series on their own clock, every version of every source. timestamp: what the value is of;
-- known_at: when the source published it (nothing is used before); known_from: when we learned this version.

CREATE TABLE open_interest (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    source text NOT NULL,
    timestamp timestamptz NOT NULL,
    known_at timestamptz NOT NULL,
    known_from timestamptz NOT NULL,
    value numeric NOT NULL,
    value_quote numeric,
    run_id uuid,
    PRIMARY KEY (symbol, asset_class, source, timestamp, known_from)
);

CREATE TABLE funding_rates (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    source text NOT NULL,
    rate_type text NOT NULL,
    timestamp timestamptz NOT NULL,
    known_at timestamptz NOT NULL,
    known_from timestamptz NOT NULL,
    rate numeric NOT NULL,
    mark_price numeric,
    run_id uuid,
    PRIMARY KEY (symbol, asset_class, source, rate_type, timestamp, known_from)
);

CREATE TABLE long_short_ratios (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    source text NOT NULL,
    kind text NOT NULL,
    timestamp timestamptz NOT NULL,
    known_at timestamptz NOT NULL,
    known_from timestamptz NOT NULL,
    ratio numeric NOT NULL,
    long_account numeric,
    short_account numeric,
    run_id uuid,
    PRIMARY KEY (symbol, asset_class, source, kind, timestamp, known_from)
);

CREATE TABLE taker_volumes (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    source text NOT NULL,
    period text NOT NULL,
    timestamp timestamptz NOT NULL,
    known_at timestamptz NOT NULL,
    known_from timestamptz NOT NULL,
    buy_volume numeric NOT NULL,
    sell_volume numeric NOT NULL,
    run_id uuid,
    PRIMARY KEY (symbol, asset_class, source, period, timestamp, known_from)
);

-- Taker buying and selling on the spot market, in quote units, during the period that ends at timestamp.
CREATE TABLE spot_flow (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    source text NOT NULL,
    period text NOT NULL,
    timestamp timestamptz NOT NULL,
    known_at timestamptz NOT NULL,
    known_from timestamptz NOT NULL,
    buy_quote numeric NOT NULL,
    sell_quote numeric NOT NULL,
    run_id uuid,
    PRIMARY KEY (symbol, asset_class, source, period, timestamp, known_from)
);

-- side is the position that was closed by force.
CREATE TABLE liquidations (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    source text NOT NULL,
    timestamp timestamptz NOT NULL,
    liquidation_id text NOT NULL,
    known_at timestamptz NOT NULL,
    known_from timestamptz NOT NULL,
    side text NOT NULL CHECK (side IN ('long', 'short')),
    price numeric NOT NULL,
    size numeric NOT NULL,
    run_id uuid,
    PRIMARY KEY (symbol, asset_class, source, timestamp, liquidation_id, known_from)
);
