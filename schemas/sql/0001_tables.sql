-- What is settled. A row with more knowledge has a higher version, so what a stale worker writes loses, whenever it does.
-- The month is a function of the sort key: versions of one record always meet in one partition, where they merge.
CREATE TABLE IF NOT EXISTS mdrs (
    {columns},
    INDEX by_message_id message_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX by_settled_at settled_at TYPE minmax GRANULARITY 1
) ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (account_id, occurred_at, message_id, direction)
-- Small granules and blocks: less is read around the one record that is looked up, for 1 % more on disk. Parts as they are
-- inserted are a few files instead of 250, and merges wait for sixteen parts alike: less is merged (decisions 8, 12).
SETTINGS index_granularity = 2048, min_compress_block_size = 16384, min_bytes_for_wide_part = 48000000,
    merge_selector_base = 16;

-- What still settles, and receipts that wait for their send (`part` names the receipt). The join's only durable state.
CREATE TABLE IF NOT EXISTS open_messages (
    shard UInt16,
    message_id String CODEC(ZSTD(1)),
    part String CODEC(ZSTD(1)),
    account_id LowCardinality(String),
    occurred_at DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    deadline DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    facts String CODEC(ZSTD(1)),
    version UInt64 CODEC(ZSTD(1)),
    is_deleted UInt8,
    written_at DateTime DEFAULT now() CODEC(Delta(4), ZSTD(1))
) ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY (shard, message_id, part)
TTL written_at + INTERVAL 30 DAY DELETE WHERE is_deleted = 1;

-- Receipts that never met a message; one that was adopted after all is deleted by a higher version.
CREATE TABLE IF NOT EXISTS orphan_log (
    message_id String CODEC(ZSTD(1)),
    event_id String CODEC(ZSTD(1)),
    state LowCardinality(String),
    occurred_at DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    error_code LowCardinality(String),
    vendor_error_code LowCardinality(String),
    provider LowCardinality(String),
    segment UInt8,
    source String CODEC(ZSTD(1)),
    orphaned_at DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    mcc LowCardinality(String),
    mnc LowCardinality(String),
    rate String,
    carrier_fee String,
    shard UInt16,
    version UInt64,
    is_deleted UInt8
) ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY (message_id, event_id, state, occurred_at, segment);

-- Where each partition stood at its last checkpoint. The version is the sum of what only grows: offsets and watermarks.
CREATE TABLE IF NOT EXISTS checkpoints (
    shard UInt16,
    partitions UInt16,
    sends_mark DateTime64(3, 'UTC'),
    receives_mark DateTime64(3, 'UTC'),
    receipts_mark DateTime64(3, 'UTC'),
    sends_offset Int64,
    receives_offset Int64,
    receipts_offset Int64,
    settled_through DateTime64(3, 'UTC'),
    remembers_from DateTime64(3, 'UTC'),
    open UInt64,
    events UInt64,
    merged UInt64,
    duplicates UInt64,
    dead_letters UInt64,
    amended UInt64,
    orphaned UInt64,
    adopted UInt64,
    updated_at DateTime64(3, 'UTC'),
    version UInt64
) ENGINE = ReplacingMergeTree(version)
ORDER BY shard;

-- The reports asked for.
CREATE TABLE IF NOT EXISTS report_requests (
    report_id String,
    account_id String,
    kind LowCardinality(String),
    request String CODEC(ZSTD(1)),
    status LowCardinality(String),
    detail String,
    rows_done UInt64,
    rows_total UInt64,
    created_at DateTime64(3, 'UTC'),
    updated_at DateTime64(3, 'UTC'),
    expires_at DateTime64(3, 'UTC'),
    version UInt64,
    is_deleted UInt8
) ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY report_id;
