-- The one to query: each record once, in its latest version.
CREATE OR REPLACE VIEW mdr AS
SELECT {public} FROM mdrs FINAL;

-- What is open, shown as records: the facts folded as the worker folds them, for the states a message can be open in.
-- One that was settled since its last checkpoint is a record already.
CREATE OR REPLACE VIEW pending AS
WITH
    JSONExtract(facts, 'Tuple({facts})') AS life,
    life.s AS s,
    arraySort(r -> (-toInt8(r.state = 'sent'), r.`~ms`, r.event_id, r.state, r.segment), life.r) AS strongest,
    arraySort(
        r -> (r.`~ms`, r.state = 'sent', r.event_id, r.state, r.segment),
        arrayPushFront(
            life.r,
            CAST(
                (s.event_id, 'queued', 0, '', '', '', '', '', '', '', s.`~ms`, s.`~at`), 'Tuple({receipt})'
            )
        )
    ) AS steps,
    if(has(steps.state, 'sent'), 'sent', 'queued') AS is_state,
    -- Decimal strings to nanos by hand: the embedded build has no decimals from strings.
    if(arrayExists(r -> r.rate != '', strongest), arrayFirst(r -> r.rate != '', strongest).rate, s.rate) AS rate_text,
    if(
        arrayExists(r -> r.carrier_fee != '', strongest), arrayFirst(r -> r.carrier_fee != '', strongest).carrier_fee,
        s.carrier_fee
    ) AS fee_text,
    splitByChar('.', if(rate_text = '', '0', rate_text)) AS rate_text_parts,
    toInt64(rate_text_parts[1]) * 1000000000 + toInt64(substring(concat(rate_text_parts[2], '000000000'), 1, 9)) AS is_rate,
    splitByChar('.', if(fee_text = '', '0', fee_text)) AS fee_text_parts,
    toInt64(fee_text_parts[1]) * 1000000000 + toInt64(substring(concat(fee_text_parts[2], '000000000'), 1, 9)) AS is_fee
SELECT
    message_id, account_id, s.subaccount_id AS subaccount_id, s.profile_id AS profile_id,
    s.connection_id AS connection_id, 'outbound' AS direction, 'pending' AS record_type, is_state AS state,
    if(s.message_type = '', 'sms', s.message_type) AS message_type, s.`from` AS from_number, s.`to` AS to_number,
    s.number_type AS number_type, s.body AS body, s.media_urls AS media_urls, s.encoding AS encoding,
    s.segments AS segments, 0 AS segments_delivered, 0 AS segments_failed,
    if(arrayExists(r -> r.mcc != '', strongest), arrayFirst(r -> r.mcc != '', strongest).mcc, s.mcc) AS mcc,
    if(arrayExists(r -> r.mnc != '', strongest), arrayFirst(r -> r.mnc != '', strongest).mnc, s.mnc) AS mnc,
    s.country AS country,
    if(arrayExists(r -> r.provider != '', strongest), arrayFirst(r -> r.provider != '', strongest).provider, s.provider) AS provider,
    arrayFirst(r -> r.state = is_state AND r.error_code != '', strongest).error_code AS error_code,
    arrayFirst(r -> r.state = is_state AND r.vendor_error_code != '', strongest).vendor_error_code
        AS vendor_error_code,
    is_rate AS rate_nanos, is_fee AS carrier_fee_nanos, (is_rate + is_fee) * s.segments AS amount_nanos,
    if(s.currency = '', 'USD', s.currency) AS currency, s.campaign_id AS campaign_id,
    s.campaign_status AS campaign_status, s.powerpack_id AS powerpack_id, s.conversation_id AS conversation_id,
    s.conversation_origin AS conversation_origin, s.callback_url AS callback_url, s.requester_ip AS requester_ip,
    s.user_data AS user_data, s.external_number AS external_number, s.billing_number AS billing_number,
    s.group_to AS group_to, s.replaced_sender AS replaced_sender, s.registration_type AS registration_type,
    s.tags AS tags, s.attributes AS attributes, occurred_at,
    if(
        is_state = 'sent',
        fromUnixTimestamp64Milli(arrayMin(r -> if(r.state = 'sent', r.`~ms`, toInt64(9223372036854775807)), strongest), 'UTC'),
        NULL
    ) AS sent_at,
    CAST(NULL, 'Nullable(DateTime64(3, \'UTC\'))') AS final_at,
    toDateTime64(0, 3, 'UTC') AS settled_at,
    CAST(NULL, 'Nullable(DateTime64(3, \'UTC\'))') AS amended_at,
    toUInt16(0) AS amendments,
    steps.event_id AS `timeline.event_id`, steps.state AS `timeline.state`,
    arrayMap(ms -> fromUnixTimestamp64Milli(ms, 'UTC'), steps.`~ms`) AS `timeline.occurred_at`,
    steps.segment AS `timeline.segment`, steps.error_code AS `timeline.error_code`,
    steps.`~at` AS `timeline.source`,
    toUInt64(if(is_state = 'sent', 2, 1)) * 4294967296 + length(steps) AS version
FROM open_messages FINAL
WHERE part = '' AND (account_id, occurred_at, message_id) NOT IN (
    SELECT account_id, occurred_at, message_id FROM mdrs
    WHERE direction = 'outbound' AND occurred_at >= (SELECT min(occurred_at) FROM open_messages WHERE part = '')
);

CREATE OR REPLACE VIEW messages AS
SELECT {public} FROM mdr
UNION ALL
SELECT {public} FROM pending;

-- A message with a record has no orphans, whatever a stale worker still writes of it.
CREATE OR REPLACE VIEW orphan_receipts AS
SELECT message_id, event_id, state, occurred_at, error_code, vendor_error_code, provider, segment, source, orphaned_at
FROM orphan_log FINAL
WHERE message_id NOT IN (
    SELECT message_id FROM mdrs WHERE direction = 'outbound' AND message_id IN (SELECT message_id FROM orphan_log)
);

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
