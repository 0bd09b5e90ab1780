package peers;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import java.util.List;

/** A send, receive or receipt: what of it ends in a row. The names are those of the JSON. */
@JsonIgnoreProperties(ignoreUnknown = true)
public final class Event {
    public String event_id, message_id, occurred_at, account_id, profile_id, connection_id, from, to, message_type, body;
    public String encoding, mcc, mnc, provider, rate, carrier_fee, currency, state, error_code, vendor_error_code;
    public int segments;
    public List<String> tags;

    boolean tellsPriceOrNetwork() {
        return mcc != null || mnc != null || provider != null || rate != null || carrier_fee != null;
    }
}
