-- Open messages as the records that they would be now, so that SQL filters, sorts and pages them. The worker writes a row
-- beside each row of a message in `open_messages`, with the same version. A tombstone is kept for much longer than it
-- takes until merges bring it together with the row that it deletes.
CREATE TABLE IF NOT EXISTS open_records (
    {open_columns},
    saved UInt64 DEFAULT 2 * length(timeline.event_id) CODEC(ZSTD(1)),
    is_deleted UInt8 CODEC(ZSTD(1)),
    written_at DateTime DEFAULT now() CODEC(Delta(4), ZSTD(1)),
    INDEX by_message_id message_id TYPE bloom_filter(0.001) GRANULARITY 1
) ENGINE = ReplacingMergeTree(saved, is_deleted)
ORDER BY (account_id, occurred_at, message_id)
TTL written_at + INTERVAL 7 DAY DELETE WHERE is_deleted = 1
SETTINGS index_granularity = 2048, min_compress_block_size = 16384, min_bytes_for_wide_part = 48000000,
    merge_selector_base = 16;

-- What an older version saved, once, by the view that folded it in SQL until now.
INSERT INTO open_records (
    message_id, account_id, subaccount_id, profile_id, connection_id, direction, record_type, state, message_type,
    from_number, to_number, number_type, body, media_urls, encoding, segments, segments_delivered, segments_failed, mcc,
    mnc, country, provider, error_code, vendor_error_code, rate_nanos, carrier_fee_nanos, amount_nanos, currency,
    campaign_id, campaign_status, powerpack_id, conversation_id, conversation_origin, callback_url, requester_ip,
    user_data, external_number, billing_number, group_to, replaced_sender, registration_type, tags, attributes,
    occurred_at, sent_at, final_at, settled_at, amended_at, amendments, timeline.event_id, timeline.state,
    timeline.occurred_at, timeline.segment, timeline.error_code, timeline.source, version, shard
) SELECT
    message_id, account_id, subaccount_id, profile_id, connection_id, direction, record_type, state, message_type,
    from_number, to_number, number_type, body, media_urls, encoding, segments, segments_delivered, segments_failed, mcc,
    mnc, country, provider, error_code, vendor_error_code, rate_nanos, carrier_fee_nanos, amount_nanos, currency,
    campaign_id, campaign_status, powerpack_id, conversation_id, conversation_origin, callback_url, requester_ip,
    user_data, external_number, billing_number, group_to, replaced_sender, registration_type, tags, attributes,
    occurred_at, sent_at, final_at, settled_at, amended_at, amendments, timeline.event_id, timeline.state,
    timeline.occurred_at, timeline.segment, timeline.error_code, timeline.source, version, shard
FROM pending ANY INNER JOIN (SELECT message_id, shard FROM open_messages FINAL WHERE part = '') AS o USING (message_id)
SETTINGS max_block_size = 8192;

-- What is open, shown as records. One that was settled since its last checkpoint is a record already: which ones is
-- asked by the sort key of `mdrs`.
CREATE OR REPLACE VIEW pending AS
SELECT {public} FROM open_records FINAL
WHERE (account_id, occurred_at, message_id) NOT IN (
    SELECT account_id, occurred_at, message_id FROM mdrs
    WHERE direction = 'outbound' AND (account_id, occurred_at, message_id) IN (
        SELECT account_id, occurred_at, message_id FROM open_records WHERE is_deleted = 0
    )
);
