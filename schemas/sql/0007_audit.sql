-- Who did what: keys made and ended, sign-ins, refusals, records read, exports, redrives, erasures. Rows are only added.
-- It holds no number, no body and no secret; `ids` are keyed hashes of the ids in the path.
CREATE TABLE IF NOT EXISTS audit_log (
    at DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    action LowCardinality(String),
    outcome LowCardinality(String),
    key String CODEC(ZSTD(1)),
    account_id LowCardinality(String),
    client String CODEC(ZSTD(1)),
    method LowCardinality(String),
    path LowCardinality(String),
    status UInt16,
    ids Array(String) CODEC(ZSTD(1)),
    detail String CODEC(ZSTD(1))
) ENGINE = MergeTree
ORDER BY (at, action)
TTL toDateTime(at) + INTERVAL 365 DAY;

-- What was erased. `subject` holds the number or account only until nothing of it can come back (`is_done`).
CREATE TABLE IF NOT EXISTS erasures (
    erasure_id String,
    kind LowCardinality(String),
    subject String,
    subject_hash String,
    who String,
    at DateTime64(3, 'UTC'),
    settled_at DateTime64(3, 'UTC'),
    is_done UInt8,
    version UInt64
) ENGINE = ReplacingMergeTree(version)
ORDER BY erasure_id;

-- The log entries that erased records were made of: places without content, so that `mdr check` still adds up.
CREATE TABLE IF NOT EXISTS erased_events (
    topic LowCardinality(String),
    shard UInt16,
    offset Int64,
    erased_at DateTime DEFAULT now()
) ENGINE = ReplacingMergeTree
ORDER BY (topic, shard, offset)
TTL erased_at + INTERVAL 3650 DAY;
