-- What all processes know in common of the hosts they ask. A host's bans stand under the name of its first channel.
CREATE TABLE channels (
    name text PRIMARY KEY,
    banned_until timestamptz,
    ban text NOT NULL DEFAULT '',
    failures int NOT NULL DEFAULT 0,
    fault text NOT NULL DEFAULT '',
    failed_at timestamptz,
    rests_until timestamptz,
    probed_until timestamptz
);

-- Requests granted of late, by slot of time in milliseconds since 1970; a row is written anew with every grant.
CREATE TABLE request_grants (
    budget text PRIMARY KEY,
    slots int8[] NOT NULL,
    requests int4[] NOT NULL,
    granted int4 NOT NULL
) WITH (fillfactor = 50);

ALTER TABLE worker_reports DROP COLUMN breakers;
