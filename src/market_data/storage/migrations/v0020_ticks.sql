-- Trades and quotes belong to a contract, and are told apart by the venue's number within the exchange's UTC day: whoever
-- tells of a trade, and how exactly, it is one row. A partition per day, made by the writer, dropped by retention.
ALTER TABLE trades RENAME TO trades_of_symbols;
ALTER TABLE quotes RENAME TO quotes_of_symbols;

CREATE TABLE trades (
    contract_id integer NOT NULL,
    day date NOT NULL,
    number bigint NOT NULL,
    timestamp timestamptz NOT NULL,
    price numeric NOT NULL,
    size numeric NOT NULL,
    aggressor_side text CHECK (aggressor_side IN ('buy', 'sell')),
    venue text,
    trade_id text,
    conditions text[],
    correction smallint,
    PRIMARY KEY (contract_id, day, number)
) PARTITION BY RANGE (day);

CREATE TABLE quotes (
    contract_id integer NOT NULL,
    day date NOT NULL,
    number bigint NOT NULL,
    timestamp timestamptz NOT NULL,
    sequence bigint NOT NULL,
    bid_price numeric,
    bid_size numeric,
    ask_price numeric,
    ask_size numeric,
    PRIMARY KEY (contract_id, day, number)
) PARTITION BY RANGE (day);

-- Whose numbers a contract's trades and quotes bear: two sources number the same trade differently, so they do not mix.
CREATE TABLE tick_sources (
    contract_id integer NOT NULL REFERENCES contracts ON DELETE CASCADE,
    dataset text NOT NULL CHECK (dataset IN ('trades', 'quotes')),
    source text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (contract_id, dataset)
);

-- No command ever stored any; what a program of somebody's own did comes along.
DO $$
DECLARE
    found record;
    made date;
    kept integer;
BEGIN
    FOR found IN
        SELECT DISTINCT symbol, asset_class, source, 'trades' AS dataset FROM trades_of_symbols
        UNION SELECT DISTINCT symbol, asset_class, source, 'quotes' FROM quotes_of_symbols
    LOOP
        SELECT contract_id INTO kept FROM contracts c
        WHERE (c.symbol = found.symbol OR c.base = found.symbol) AND c.asset_class = found.asset_class
        ORDER BY c.symbol <> found.symbol, c.kind, contract_id LIMIT 1;
        IF kept IS NULL THEN
            INSERT INTO contracts (venue, market, raw_symbol, symbol, asset_class, kind, base)
            VALUES (upper(split_part(found.source, ':', 1)), coalesce(nullif(split_part(found.source, ':', 2), ''), 'all'),
                found.symbol, found.symbol, found.asset_class,
                CASE found.asset_class WHEN 'crypto' THEN 'spot' ELSE found.asset_class END, found.symbol)
            RETURNING contract_id INTO kept;
        END IF;
        INSERT INTO tick_sources (contract_id, dataset, source)
        VALUES (kept, found.dataset, split_part(found.source, ':', 1)) ON CONFLICT DO NOTHING;
        FOR made IN
            SELECT DISTINCT (timestamp AT TIME ZONE 'UTC')::date FROM (
                SELECT timestamp FROM trades_of_symbols WHERE found.dataset = 'trades'
                UNION ALL SELECT timestamp FROM quotes_of_symbols WHERE found.dataset = 'quotes'
            ) moments
        LOOP
            EXECUTE format(
                'CREATE TABLE IF NOT EXISTS %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                format('%s_on_%s', found.dataset, to_char(made, 'YYYYMMDD')), found.dataset, made, made + 1
            );
        END LOOP;
        IF found.dataset = 'trades' THEN
            INSERT INTO trades
            SELECT kept, (timestamp AT TIME ZONE 'UTC')::date,
                CASE WHEN trade_id ~ '^(0|[1-9][0-9]{0,17})$' THEN trade_id::bigint
                    ELSE (extract(epoch FROM timestamp) * 1000000)::bigint % 86400000000 * 67108864
                        + ((('x' || substr(encode(sha256(convert_to(trade_id, 'UTF8')), 'hex'), 1, 16))::bit(64)::bigint
                            >> 38) & 67108863) END,
                timestamp, price, size, aggressor_side, venue,
                CASE WHEN trade_id !~ '^(0|[1-9][0-9]{0,17})$' THEN trade_id END, conditions, NULL
            FROM trades_of_symbols t
            WHERE (symbol, asset_class, source) = (found.symbol, found.asset_class, found.source) ON CONFLICT DO NOTHING;
        ELSE
            INSERT INTO quotes
            SELECT kept, (timestamp AT TIME ZONE 'UTC')::date, sequence, timestamp, sequence, bid_price, bid_size, ask_price,
                ask_size
            FROM quotes_of_symbols
            WHERE (symbol, asset_class, source) = (found.symbol, found.asset_class, found.source) ON CONFLICT DO NOTHING;
        END IF;
    END LOOP;
END
$$;
DROP TABLE trades_of_symbols;
DROP TABLE quotes_of_symbols;
DO $$
DECLARE
    part record;
BEGIN
    FOR part IN
        SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent IN ('trades'::regclass, 'quotes'::regclass)
    LOOP
        EXECUTE format('ALTER TABLE %I RENAME TO %I', part.name, replace(part.name, '_on_', '_d'));
    END LOOP;
END
$$;
