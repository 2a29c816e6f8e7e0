-- Values with a clock of their own count their versions as all other facts do.

ALTER TABLE open_interest ADD COLUMN revision integer NOT NULL DEFAULT 1;
ALTER TABLE funding_rates ADD COLUMN revision integer NOT NULL DEFAULT 1;
ALTER TABLE long_short_ratios ADD COLUMN revision integer NOT NULL DEFAULT 1;
ALTER TABLE taker_volumes ADD COLUMN revision integer NOT NULL DEFAULT 1;
ALTER TABLE spot_flow ADD COLUMN revision integer NOT NULL DEFAULT 1;
ALTER TABLE liquidations ADD COLUMN revision integer NOT NULL DEFAULT 1;
ALTER TABLE premium_index ADD COLUMN revision integer NOT NULL DEFAULT 1;

-- Few were ever amended: only their later versions are touched.
UPDATE open_interest AS later SET revision = counted.revision
FROM (
    SELECT symbol, asset_class, source, timestamp, known_from,
        row_number() OVER (PARTITION BY symbol, asset_class, source, timestamp ORDER BY known_from) AS revision
    FROM open_interest
) AS counted
WHERE counted.revision > 1 AND (later.symbol, later.asset_class, later.source, later.timestamp, later.known_from)
    = (counted.symbol, counted.asset_class, counted.source, counted.timestamp, counted.known_from);
UPDATE funding_rates AS later SET revision = counted.revision
FROM (
    SELECT symbol, asset_class, source, rate_type, timestamp, known_from,
        row_number() OVER (PARTITION BY symbol, asset_class, source, rate_type, timestamp ORDER BY known_from) AS revision
    FROM funding_rates
) AS counted
WHERE counted.revision > 1 AND (later.symbol, later.asset_class, later.source, later.rate_type, later.timestamp, later.known_from)
    = (counted.symbol, counted.asset_class, counted.source, counted.rate_type, counted.timestamp, counted.known_from);
UPDATE long_short_ratios AS later SET revision = counted.revision
FROM (
    SELECT symbol, asset_class, source, kind, timestamp, known_from,
        row_number() OVER (PARTITION BY symbol, asset_class, source, kind, timestamp ORDER BY known_from) AS revision
    FROM long_short_ratios
) AS counted
WHERE counted.revision > 1 AND (later.symbol, later.asset_class, later.source, later.kind, later.timestamp, later.known_from)
    = (counted.symbol, counted.asset_class, counted.source, counted.kind, counted.timestamp, counted.known_from);
UPDATE taker_volumes AS later SET revision = counted.revision
FROM (
    SELECT symbol, asset_class, source, period, timestamp, known_from,
        row_number() OVER (PARTITION BY symbol, asset_class, source, period, timestamp ORDER BY known_from) AS revision
    FROM taker_volumes
) AS counted
WHERE counted.revision > 1 AND (later.symbol, later.asset_class, later.source, later.period, later.timestamp, later.known_from)
    = (counted.symbol, counted.asset_class, counted.source, counted.period, counted.timestamp, counted.known_from);
UPDATE spot_flow AS later SET revision = counted.revision
FROM (
    SELECT symbol, asset_class, source, period, timestamp, known_from,
        row_number() OVER (PARTITION BY symbol, asset_class, source, period, timestamp ORDER BY known_from) AS revision
    FROM spot_flow
) AS counted
WHERE counted.revision > 1 AND (later.symbol, later.asset_class, later.source, later.period, later.timestamp, later.known_from)
    = (counted.symbol, counted.asset_class, counted.source, counted.period, counted.timestamp, counted.known_from);
UPDATE liquidations AS later SET revision = counted.revision
FROM (
    SELECT symbol, asset_class, source, liquidation_id, timestamp, known_from,
        row_number() OVER (PARTITION BY symbol, asset_class, source, liquidation_id, timestamp ORDER BY known_from) AS revision
    FROM liquidations
) AS counted
WHERE counted.revision > 1 AND (later.symbol, later.asset_class, later.source, later.liquidation_id, later.timestamp, later.known_from)
    = (counted.symbol, counted.asset_class, counted.source, counted.liquidation_id, counted.timestamp, counted.known_from);
UPDATE premium_index AS later SET revision = counted.revision
FROM (
    SELECT symbol, asset_class, source, period, timestamp, known_from,
        row_number() OVER (PARTITION BY symbol, asset_class, source, period, timestamp ORDER BY known_from) AS revision
    FROM premium_index
) AS counted
WHERE counted.revision > 1 AND (later.symbol, later.asset_class, later.source, later.period, later.timestamp, later.known_from)
    = (counted.symbol, counted.asset_class, counted.source, counted.period, counted.timestamp, counted.known_from);
