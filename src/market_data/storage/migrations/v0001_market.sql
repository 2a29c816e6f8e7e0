-- The market store: who sells data, what is traded, and what was seen: candles, trades, quotes.
-- Facts are appended and never changed; market_data_v2 is the present derived from them.

CREATE TABLE providers (
    name text PRIMARY KEY,
    title text,
    enabled boolean NOT NULL DEFAULT true,
    priority integer,
    capabilities jsonb NOT NULL DEFAULT '{}',
    breaker_state text NOT NULL DEFAULT 'closed' CHECK (breaker_state IN ('closed', 'open', 'half_open')),
    quota_remaining integer,
    last_success_at timestamptz,
    last_failure_at timestamptz,
    last_error text,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE instruments (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    name text,
    currency text,
    venue text,
    active boolean NOT NULL DEFAULT true,
    listed_on date,
    delisted_on date,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (symbol, asset_class)
);

-- The name each provider gives an instrument during [valid_from, valid_to); null: since ever, until further notice.
CREATE TABLE instrument_symbols (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    provider text NOT NULL,
    raw_symbol text NOT NULL,
    venue text,
    valid_from timestamptz,
    valid_to timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (provider, raw_symbol, symbol, asset_class, valid_from),
    CHECK (valid_from < valid_to)
);
CREATE INDEX instrument_symbols_by_symbol ON instrument_symbols (symbol, asset_class, provider);

CREATE TABLE tracked_symbols (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    timeframes text[] NOT NULL CHECK (timeframes <@ '{1m,5m,15m,30m,1h,4h,1d,1w}' AND cardinality(timeframes) > 0),
    active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (symbol, asset_class)
);

-- Every version of every candle that every source ever gave. timestamp is the open time.
CREATE TABLE candles (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    timeframe text NOT NULL CHECK (timeframe IN ('1m', '5m', '15m', '30m', '1h', '4h', '1d', '1w')),
    timestamp timestamptz NOT NULL,
    source text NOT NULL,
    known_from timestamptz NOT NULL,
    open numeric NOT NULL,
    high numeric NOT NULL,
    low numeric NOT NULL,
    close numeric NOT NULL,
    volume numeric NOT NULL,
    quote_volume numeric,
    vwap numeric,
    taker_buy_volume numeric,
    taker_buy_quote_volume numeric,
    trade_count bigint,
    notes text,
    quality_score double precision CHECK (quality_score BETWEEN 0 AND 1),
    -- Seconds between when it could first be had and when it was fetched.
    data_age_seconds double precision,
    -- It became the present when it arrived.
    chosen boolean NOT NULL,
    reason text,
    actor text,
    run_id uuid,
    -- The order in which series are read: the newest versions of each timestamp lie together.
    PRIMARY KEY (symbol, asset_class, timeframe, timestamp, source, known_from)
) PARTITION BY RANGE (timestamp);

-- The best of the facts at present, with its features (units: docs/reference). Derivable again from the facts.
CREATE TABLE market_data_v2 (
    id bigint GENERATED ALWAYS AS IDENTITY,
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    timeframe text NOT NULL CHECK (timeframe IN ('1m', '5m', '15m', '30m', '1h', '4h', '1d', '1w')),
    timestamp timestamptz NOT NULL,
    open numeric NOT NULL,
    high numeric NOT NULL,
    low numeric NOT NULL,
    close numeric NOT NULL,
    volume numeric NOT NULL,
    quote_volume numeric,
    vwap numeric,
    trade_count bigint,
    open_interest numeric,
    funding_rate numeric,
    liquidations_long numeric,
    liquidations_short numeric,
    taker_buy_volume numeric,
    taker_sell_volume numeric,
    return_1h double precision,
    return_1d double precision,
    volatility_20 double precision,
    volatility_50 double precision,
    atr double precision,
    trend_direction text CHECK (trend_direction IN ('up', 'down', 'neutral')),
    market_structure text CHECK (market_structure IN ('bullish', 'bearish', 'range')),
    rolling_volume_20 double precision,
    delta double precision,
    buy_sell_ratio double precision,
    liquidation_intensity double precision,
    volume_spike_score double precision,
    long_short_ratio double precision,
    funding_rate_percentile double precision,
    exchange_inflow double precision,
    open_interest_change double precision,
    sma_20 double precision,
    sma_50 double precision,
    feature_version text,
    revision integer NOT NULL DEFAULT 1 CHECK (revision >= 1),
    amended_from integer CHECK (amended_from < revision),
    source text NOT NULL,
    is_validated boolean NOT NULL DEFAULT false,
    quality_score double precision CHECK (quality_score BETWEEN 0 AND 1),
    data_completeness double precision CHECK (data_completeness BETWEEN 0 AND 1),
    data_age_seconds double precision,
    validation_notes text,
    gap_detected boolean NOT NULL DEFAULT false,
    volume_anomaly boolean NOT NULL DEFAULT false,
    fetched_at timestamptz NOT NULL,
    computed_at timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (symbol, asset_class, timeframe, timestamp)
) PARTITION BY RANGE (timestamp);

-- Bitcoin's first year to the next; the writer makes other years ahead of its writes.
DO $$
DECLARE
    parent text;
    year integer;
BEGIN
    FOREACH parent IN ARRAY ARRAY['candles', 'market_data_v2'] LOOP
        FOR year IN 2009 .. extract(year FROM now() AT TIME ZONE 'UTC')::integer + 1 LOOP
            EXECUTE format(
                'CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                format('%s_y%s', parent, year), parent,
                format('%s-01-01 00:00:00+00', year), format('%s-01-01 00:00:00+00', year + 1)
            );
        END LOOP;
    END LOOP;
END
$$;

-- Trades, quotes and raw payloads: a partition per day, made by the writer, dropped by retention.
CREATE TABLE trades (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    source text NOT NULL,
    timestamp timestamptz NOT NULL,
    trade_id text NOT NULL,
    price numeric NOT NULL,
    size numeric NOT NULL,
    aggressor_side text CHECK (aggressor_side IN ('buy', 'sell')),
    venue text,
    conditions text[],
    received_at timestamptz,
    run_id uuid,
    PRIMARY KEY (symbol, asset_class, source, timestamp, trade_id)
) PARTITION BY RANGE (timestamp);

CREATE TABLE quotes (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    source text NOT NULL,
    timestamp timestamptz NOT NULL,
    sequence bigint NOT NULL DEFAULT 0,
    bid_price numeric,
    bid_size numeric,
    ask_price numeric,
    ask_size numeric,
    received_at timestamptz,
    run_id uuid,
    PRIMARY KEY (symbol, asset_class, source, timestamp, sequence)
) PARTITION BY RANGE (timestamp);

-- Payloads as received, for finding out what a source really said.
CREATE TABLE trades_raw (
    id bigint GENERATED ALWAYS AS IDENTITY,
    received_at timestamptz NOT NULL,
    source text NOT NULL,
    channel text,
    symbol text,
    asset_class text,
    payload jsonb NOT NULL,
    PRIMARY KEY (received_at, id)
) PARTITION BY RANGE (received_at);
CREATE INDEX trades_raw_by_symbol ON trades_raw (symbol, received_at);
