-- Contracts: what venues list. Who a contract is never changes; what is said of it is kept version by version, so that
-- lists can be read as they were. A raw symbol that passes to another contract gets a further life.
CREATE TABLE contracts (
    contract_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    venue text NOT NULL,
    market text NOT NULL,
    raw_symbol text NOT NULL,
    life integer NOT NULL DEFAULT 1 CHECK (life >= 1),
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    kind text NOT NULL CHECK (kind IN ('stock', 'etf', 'spot', 'perpetual', 'future')),
    base text NOT NULL,
    quote text,
    settlement text,
    multiplier numeric NOT NULL DEFAULT 1 CHECK (multiplier > 0),
    expires_on date,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (venue, market, raw_symbol, life)
);
CREATE INDEX contracts_by_symbol ON contracts (symbol);
CREATE INDEX contracts_by_base ON contracts (base, asset_class);
CREATE INDEX contracts_by_raw_symbol ON contracts (raw_symbol);

CREATE TABLE contract_versions (
    contract_id integer NOT NULL REFERENCES contracts ON DELETE CASCADE,
    source text NOT NULL,
    known_from timestamptz NOT NULL,
    status text NOT NULL CHECK (
        status IN ('not_yet_listed', 'trading', 'halted', 'delivering', 'settled', 'delisted')
    ),
    status_text text,
    status_since timestamptz,
    listed_from timestamptz,
    listed_to timestamptz,
    name text,
    PRIMARY KEY (contract_id, source, known_from)
);

-- Whose candles an instrument's series has, from when on, and why.
CREATE TABLE contract_ties (
    symbol text NOT NULL,
    asset_class text NOT NULL CHECK (asset_class IN ('stock', 'etf', 'crypto')),
    decided_at timestamptz NOT NULL,
    contract_id integer NOT NULL REFERENCES contracts ON DELETE CASCADE,
    effective_from timestamptz,
    source text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (symbol, asset_class, decided_at)
);

-- What happened to a contract on a day: it took another's name, was renamed, or one unit became `ratio` units.
CREATE TABLE contract_events (
    contract_id integer NOT NULL REFERENCES contracts ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('name_reused', 'renamed', 'redenominated', 'date_corrected')),
    effective_at timestamptz NOT NULL,
    source text NOT NULL,
    known_from timestamptz NOT NULL,
    other_contract_id integer REFERENCES contracts ON DELETE CASCADE,
    ratio numeric CHECK (ratio > 0),
    detail text,
    PRIMARY KEY (contract_id, kind, effective_at, source)
);

-- Null: stored before contracts were known, and nobody can tell.
ALTER TABLE candles ADD COLUMN contract_id integer;
ALTER TABLE market_data_v2 ADD COLUMN contract_id integer;

-- What the stored names say without doubt: a pair of a coin that a market ever called by one name only.
INSERT INTO contracts (venue, market, raw_symbol, symbol, asset_class, kind, base, quote, settlement)
SELECT 'BINANCE', CASE provider WHEN 'binance' THEN 'usdm' ELSE 'spot' END, raw_symbol,
    symbol || '/' || quote || CASE provider WHEN 'binance' THEN ':' || quote ELSE '' END, asset_class,
    CASE provider WHEN 'binance' THEN 'perpetual' ELSE 'spot' END, symbol, quote,
    CASE provider WHEN 'binance' THEN quote END
FROM (
    SELECT provider, symbol, asset_class, min(raw_symbol) AS raw_symbol,
        substr(min(raw_symbol), length(symbol) + 1) AS quote
    FROM instrument_symbols WHERE provider IN ('binance', 'binance:spot') AND asset_class = 'crypto'
    GROUP BY provider, symbol, asset_class
    HAVING count(DISTINCT raw_symbol) = 1 AND min(raw_symbol) LIKE symbol || '%'
) named WHERE quote IN ('USDT', 'USDC', 'FDUSD', 'USD');

INSERT INTO contracts (venue, market, raw_symbol, symbol, asset_class, kind, base, quote)
SELECT 'US', 'shares', symbol, symbol, asset_class, asset_class, symbol, 'USD'
FROM (
    SELECT symbol, min(asset_class) AS asset_class FROM instrument_symbols
    WHERE provider IN ('polygon', 'yahoo') AND asset_class IN ('stock', 'etf')
    GROUP BY symbol HAVING count(DISTINCT asset_class) = 1 AND bool_and(valid_to IS NULL)
) listed;

UPDATE candles c SET contract_id = k.contract_id FROM contracts k
WHERE c.asset_class = k.asset_class AND c.symbol = k.base AND (
    k.venue = 'BINANCE' AND c.source = CASE k.market WHEN 'usdm' THEN 'binance' ELSE 'binance:spot' END
    OR k.venue = 'US' AND c.source IN ('polygon', 'yahoo')
);
UPDATE market_data_v2 c SET contract_id = k.contract_id FROM contracts k
WHERE c.asset_class = k.asset_class AND c.symbol = k.base AND (
    k.venue = 'BINANCE' AND c.source = CASE k.market WHEN 'usdm' THEN 'binance' ELSE 'binance:spot' END
    OR k.venue = 'US' AND c.source IN ('polygon', 'yahoo')
);
