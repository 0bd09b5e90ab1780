-- A key may end by itself; 1970 says that it never does, as keys made before this never do.
ALTER TABLE credentials ADD COLUMN IF NOT EXISTS expires_at DateTime64(3, 'UTC') DEFAULT toDateTime64(0, 3, 'UTC');

-- Who is signed in to the pages with a key: a session lives while its row says so, for every process and across restarts.
-- The operator's sessions are not here: they end with the process.
CREATE TABLE IF NOT EXISTS sessions (
    session_id String,
    key String,
    began_at DateTime64(3, 'UTC'),
    is_ended UInt8,
    version UInt8,
    written_at DateTime DEFAULT now()
) ENGINE = ReplacingMergeTree(version)
ORDER BY (key, session_id)
TTL written_at + INTERVAL 2 DAY;
