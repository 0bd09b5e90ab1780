package peers;

import com.fasterxml.jackson.annotation.JsonInclude;
import java.util.List;

/** What is written: a record with about half of our columns, times in milliseconds, money in nanos. */
@JsonInclude(JsonInclude.Include.NON_NULL)
public final class Row {
    public String message_id, account_id, profile_id, connection_id, direction, record_type, state, message_type;
    public String from_number, to_number, body, encoding;
    public int segments;
    public String mcc, mnc, provider, error_code, vendor_error_code;
    public long rate_nanos, carrier_fee_nanos, amount_nanos;
    public String currency;
    public List<String> tags;
    public long occurred_at;
    public Long sent_at, final_at;
    public long settled_at;

    /** The columns that a send or receive fills by itself. */
    static Row of(Event e, String direction) {
        Row r = new Row();
        r.message_id = e.message_id;
        r.account_id = e.account_id;
        r.profile_id = or(e.profile_id, "");
        r.connection_id = or(e.connection_id, "");
        r.direction = direction;
        r.message_type = or(e.message_type, "sms");
        r.from_number = e.from;
        r.to_number = e.to;
        r.body = or(e.body, "");
        r.encoding = e.encoding != null ? e.encoding : Text.encoding(r.body);
        r.segments = e.segments > 0 ? e.segments : r.message_type.equals("sms") ? Text.segments(r.body, r.encoding) : 1;
        r.mcc = or(e.mcc, "");
        r.mnc = or(e.mnc, "");
        r.provider = or(e.provider, "");
        r.error_code = or(e.error_code, "");
        r.vendor_error_code = or(e.vendor_error_code, "");
        r.rate_nanos = Money.nanos(e.rate);
        r.carrier_fee_nanos = Money.nanos(e.carrier_fee);
        r.currency = or(e.currency, "USD");
        r.tags = e.tags == null ? List.of() : e.tags;
        r.occurred_at = Times.millis(e.occurred_at);
        return r;
    }

    /** A receipt's word on price and network goes before what was said until now. */
    void hear(Event receipt) {
        mcc = or(receipt.mcc, mcc);
        mnc = or(receipt.mnc, mnc);
        provider = or(receipt.provider, provider);
        if (receipt.rate != null) rate_nanos = Money.nanos(receipt.rate);
        if (receipt.carrier_fee != null) carrier_fee_nanos = Money.nanos(receipt.carrier_fee);
    }

    Row close(String recordType, String stateNow) {
        record_type = recordType;
        state = stateNow;
        amount_nanos = (rate_nanos + carrier_fee_nanos) * segments;
        settled_at = System.currentTimeMillis();
        return this;
    }

    static String or(String said, String otherwise) {
        return said == null || said.isEmpty() ? otherwise : said;
    }
}
