-- Corporate actions, options and news: every version of every source, never changed. revision counts the versions
-- of one source's entry; known_from is when we learned this one.

CREATE TABLE dividends (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    source text NOT NULL,
    ex_date date NOT NULL,
    dividend_type text NOT NULL DEFAULT 'cash',
    known_from timestamptz NOT NULL,
    revision integer NOT NULL DEFAULT 1 CHECK (revision >= 1),
    amount numeric NOT NULL,
    currency text,
    declaration_date date,
    record_date date,
    pay_date date,
    frequency integer,
    notes text,
    run_id uuid,
    PRIMARY KEY (symbol, asset_class, source, ex_date, dividend_type, known_from)
);

-- split_from shares became split_to: a 4-for-1 split is from 1 to 4.
CREATE TABLE stock_splits (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    source text NOT NULL,
    execution_date date NOT NULL,
    known_from timestamptz NOT NULL,
    revision integer NOT NULL DEFAULT 1 CHECK (revision >= 1),
    split_from numeric NOT NULL CHECK (split_from > 0),
    split_to numeric NOT NULL CHECK (split_to > 0),
    notes text,
    run_id uuid,
    PRIMARY KEY (symbol, asset_class, source, execution_date, known_from)
);

-- fiscal_quarter 0 is the whole year. surprise_pct in percent.
CREATE TABLE earnings (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    source text NOT NULL,
    fiscal_year integer NOT NULL,
    fiscal_quarter integer NOT NULL CHECK (fiscal_quarter BETWEEN 0 AND 4),
    known_from timestamptz NOT NULL,
    revision integer NOT NULL DEFAULT 1 CHECK (revision >= 1),
    period_end date,
    report_date date,
    report_time text CHECK (report_time IN ('before_open', 'during_session', 'after_close')),
    eps_estimate numeric,
    eps_actual numeric,
    eps_surprise numeric,
    surprise_pct double precision,
    revenue_estimate numeric,
    revenue_actual numeric,
    currency text,
    notes text,
    run_id uuid,
    PRIMARY KEY (symbol, asset_class, source, fiscal_year, fiscal_quarter, known_from)
);
CREATE INDEX earnings_by_report_date ON earnings (symbol, asset_class, report_date);

-- Chains as seen at timestamp. iv as a fraction, theta per day, vega per point of volatility. Partitions by quarter,
-- made by the writer. iv_origin: the source's own number or ours; iv_reason says why there is none.
CREATE TABLE options_iv (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    source text NOT NULL,
    contract text NOT NULL,
    timestamp timestamptz NOT NULL,
    known_from timestamptz NOT NULL,
    revision integer NOT NULL DEFAULT 1 CHECK (revision >= 1),
    option_type text NOT NULL CHECK (option_type IN ('call', 'put')),
    exercise_style text CHECK (exercise_style IN ('american', 'european')),
    expiration date NOT NULL,
    strike numeric NOT NULL,
    bid numeric,
    ask numeric,
    last numeric,
    volume numeric,
    open_interest numeric,
    underlying_price numeric,
    iv double precision,
    delta double precision,
    gamma double precision,
    theta double precision,
    vega double precision,
    rho double precision,
    iv_origin text CHECK (iv_origin IN ('source', 'computed')),
    iv_reason text,
    run_id uuid,
    PRIMARY KEY (symbol, asset_class, source, timestamp, contract, known_from)
) PARTITION BY RANGE (timestamp);
CREATE INDEX options_iv_by_contract ON options_iv (contract, timestamp);

CREATE TABLE news (
    source text NOT NULL,
    news_id text NOT NULL,
    published_at timestamptz NOT NULL,
    known_from timestamptz NOT NULL,
    revision integer NOT NULL DEFAULT 1 CHECK (revision >= 1),
    title text NOT NULL,
    summary text,
    url text,
    author text,
    publisher text,
    symbols text[] NOT NULL DEFAULT '{}',
    keywords text[] NOT NULL DEFAULT '{}',
    sentiment text CHECK (sentiment IN ('positive', 'neutral', 'negative')),
    run_id uuid,
    PRIMARY KEY (source, news_id, known_from)
);
CREATE INDEX news_by_symbol ON news USING gin (symbols);
CREATE INDEX news_by_time ON news (published_at);
