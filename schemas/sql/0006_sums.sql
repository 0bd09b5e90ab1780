-- Sums are exact beyond 64 bits and stay within one currency; a delivery stamped before its send took no time. The
-- embedded build converts to Int128 in this way alone; no amount is below zero.
CREATE OR REPLACE VIEW delivery_stats AS
SELECT
    toStartOfHour(occurred_at) AS hour, account_id, direction, provider, mcc, mnc, country, error_code, currency,
    count() AS messages,
    countIf(record_type = 'complete') AS complete,
    countIf(record_type = 'error') AS error,
    countIf(record_type = 'incomplete') AS unconfirmed,
    countIf(record_type = 'complete' AND segments_failed > 0) AS partial,
    sum(segments) AS segments,
    sum(reinterpretAsInt128(mdr.amount_nanos)) AS amount_nanos,
    quantilesIf(0.5, 0.9, 0.99)(
        greatest(0, dateDiff('millisecond', occurred_at, assumeNotNull(final_at))),
        direction = 'outbound' AND state = 'delivered'
    ) AS delivery_ms_p50_p90_p99
FROM mdr
GROUP BY hour, account_id, direction, provider, mcc, mnc, country, error_code, currency;
