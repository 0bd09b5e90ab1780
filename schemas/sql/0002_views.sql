-- The one to query: each record once, in its latest version.
CREATE OR REPLACE VIEW mdr AS
SELECT {public} FROM mdrs FINAL;

-- What is open, shown as records; one that was settled since its last checkpoint is a record already.
CREATE OR REPLACE VIEW pending AS
SELECT {pending}
FROM (
    SELECT JSONExtract(record, 'Tuple({tuple})') AS r
    FROM open_messages FINAL
    WHERE record != '' AND (account_id, occurred_at, message_id) NOT IN (
        SELECT account_id, occurred_at, message_id FROM mdrs
        WHERE direction = 'outbound' AND occurred_at >= (SELECT min(occurred_at) FROM open_messages WHERE record != '')
    )
);

CREATE OR REPLACE VIEW messages AS
SELECT {public} FROM mdr
UNION ALL
SELECT {public} FROM pending;

CREATE OR REPLACE VIEW orphan_receipts AS
SELECT message_id, event_id, state, occurred_at, error_code, vendor_error_code, provider, segment, source, orphaned_at
FROM orphan_log FINAL;

-- Exclusive: every message that occurred before is a record. A partition that no worker has reached yet stands at 1970.
CREATE OR REPLACE VIEW settled_through AS
SELECT partition, settled_through, min(settled_through) OVER () AS overall
FROM (
    SELECT p AS partition, if(shard = p AND updated_at > 0, c.settled_through, toDateTime64(0, 3, 'UTC')) AS settled_through
    FROM (SELECT toUInt16(arrayJoin(range(max(partitions)))) AS p FROM checkpoints) AS every
    LEFT JOIN (SELECT * FROM checkpoints FINAL) AS c ON c.shard = every.p
);

CREATE OR REPLACE VIEW delivery_stats AS
SELECT
    toStartOfHour(occurred_at) AS hour, account_id, direction, provider, mcc, mnc, country, error_code,
    count() AS messages,
    countIf(record_type = 'complete') AS complete,
    countIf(record_type = 'error') AS error,
    countIf(record_type = 'incomplete') AS unconfirmed,
    countIf(record_type = 'complete' AND segments_failed > 0) AS partial,
    sum(segments) AS segments,
    sum(amount_nanos) AS amount_nanos,
    quantilesIf(0.5, 0.9, 0.99)(
        dateDiff('millisecond', occurred_at, assumeNotNull(final_at)), direction = 'outbound' AND state = 'delivered'
    ) AS delivery_ms_p50_p90_p99
FROM mdr
GROUP BY hour, account_id, direction, provider, mcc, mnc, country, error_code;
