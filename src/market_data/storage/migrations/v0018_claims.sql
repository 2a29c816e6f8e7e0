-- Events are claims of their sources: several for one day stand beside one another, and one may be withdrawn.

ALTER TABLE dividends ADD COLUMN component integer NOT NULL DEFAULT 1;
ALTER TABLE dividends ADD COLUMN withdrawn boolean NOT NULL DEFAULT false;
ALTER TABLE dividends DROP CONSTRAINT dividends_pkey;
ALTER TABLE dividends ADD PRIMARY KEY (symbol, asset_class, source, ex_date, dividend_type, component, known_from);

ALTER TABLE stock_splits ADD COLUMN component integer NOT NULL DEFAULT 1;
ALTER TABLE stock_splits ADD COLUMN withdrawn boolean NOT NULL DEFAULT false;
ALTER TABLE stock_splits DROP CONSTRAINT stock_splits_pkey;
ALTER TABLE stock_splits ADD PRIMARY KEY (symbol, asset_class, source, execution_date, component, known_from);

-- Which ranges of a list of events a source answered for, and how far its answer was complete.
CREATE TABLE answers (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    dataset text NOT NULL,
    source text NOT NULL,
    start_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL,
    complete_from timestamptz,
    complete_until timestamptz,
    answered_at timestamptz NOT NULL,
    PRIMARY KEY (symbol, asset_class, dataset, source, start_time, end_time)
);

-- What was asked before this table was.
INSERT INTO answers (symbol, asset_class, dataset, source, start_time, end_time, answered_at)
SELECT symbol, asset_class, dataset, source, fetch_date_start, fetch_date_end, max(created_at)
FROM enrichment_fetch_log
WHERE success AND dataset IN ('dividends', 'splits') AND fetch_date_start < fetch_date_end
GROUP BY symbol, asset_class, dataset, source, fetch_date_start, fetch_date_end
UNION ALL
SELECT symbol, asset_class, dataset, 'any', start_date, last_successful_date, max(updated_at)
FROM backfill_state
WHERE dataset IN ('dividends', 'splits') AND last_successful_date > start_date
GROUP BY symbol, asset_class, dataset, start_date, last_successful_date;

-- What a complete answer lacked that had been claimed: withdrawn by a later one that lacks it too, or in doubt.
CREATE TABLE missing_claims (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    dataset text NOT NULL,
    source text NOT NULL,
    claim jsonb NOT NULL,
    missing_since timestamptz NOT NULL,
    last_missing timestamptz NOT NULL,
    doubt text,
    PRIMARY KEY (symbol, asset_class, dataset, source, claim)
);

-- What was believed of splits, one set of rows per moment at which that changed: the newest is the present belief.
CREATE TABLE split_beliefs (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    known_from timestamptz NOT NULL,
    date date NOT NULL,
    split_from numeric NOT NULL CHECK (split_from > 0),
    split_to numeric NOT NULL CHECK (split_to > 0),
    state text NOT NULL CHECK (state IN ('confirmed', 'unconfirmed', 'contradicted', 'withdrawn')),
    reason text,
    PRIMARY KEY (symbol, asset_class, known_from, date, split_from, split_to)
);

-- What one unit of a currency was worth in the currency of the prices, for payments in other currencies.
CREATE TABLE fx_rates (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    source text NOT NULL,
    date date NOT NULL,
    currency text NOT NULL,
    known_from timestamptz NOT NULL,
    revision integer NOT NULL DEFAULT 1 CHECK (revision >= 1),
    quote_currency text NOT NULL,
    rate numeric NOT NULL CHECK (rate > 0),
    notes text,
    run_id uuid,
    PRIMARY KEY (symbol, asset_class, source, date, currency, known_from)
);

-- What an option contract delivers: other than 100 shares after splits and mergers.
ALTER TABLE options_iv ADD COLUMN shares_per_contract numeric;
