-- Who may read: accounts and their parents, and their keys. Of a secret only the hash is kept; a revoked key has a higher version.
CREATE TABLE IF NOT EXISTS accounts (
    account_id String,
    parent_id String,
    created_at DateTime64(3, 'UTC') DEFAULT now64(3),
    version UInt64
) ENGINE = ReplacingMergeTree(version)
ORDER BY account_id;

CREATE TABLE IF NOT EXISTS credentials (
    key String,
    account_id String,
    secret_hash String,
    scopes Array(String),
    created_at DateTime64(3, 'UTC') DEFAULT now64(3),
    revoked UInt8,
    version UInt64
) ENGINE = ReplacingMergeTree(version)
ORDER BY key;

-- Who builds a report. A builder goes on only when it saw no other live claim after writing its own, so two never build one.
CREATE TABLE IF NOT EXISTS report_claims (
    report_id String,
    owner String,
    is_live UInt8,
    claimed_at DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = MergeTree
ORDER BY (report_id, owner, claimed_at)
TTL toDateTime(claimed_at) + INTERVAL 1 DAY;
