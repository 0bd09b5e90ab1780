-- Who sent which dead letter once more, when, and what came of it: `begun` before it is produced, then `redriven` or `failed`.
-- Kept for good. The place is that of the input, which is its identity.
CREATE TABLE IF NOT EXISTS redrives (
    topic LowCardinality(String),
    partition UInt32,
    offset Int64,
    at DateTime64(3, 'UTC') DEFAULT now64(3),
    who String,
    outcome LowCardinality(String),
    detail String,
    letter String,
    placed_at String
) ENGINE = MergeTree
ORDER BY (topic, partition, offset, at);
