package peers;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;

/**
 * The join that Kafka Streams and Flink share. One record a message: settled by the first final receipt in the log or
 * by the window; what the log says later changes nothing, as it would in ours. Not to be shared by threads.
 */
public final class Join {
    public static final long WINDOW_MS = 4 * 3_600_000L;
    /** A settled message is remembered a little longer than its window, for the copies of its events. */
    private static final long MEMORY_MS = WINDOW_MS + 60_000;

    private final ObjectWriter writer = new ObjectMapper().writerFor(Row.class);

    /** Takes an event, `topic` being its place in `Run.TOPICS`; returns the row it leads to, or null. */
    public byte[] take(Held held, int topic, byte[] json, long written) {
        Event e = read(json);
        Row row = switch (topic) {
            case Run.SENDS -> send(held, e, json, written);
            case Run.RECEIVES -> receive(held, e, written);
            default -> receipt(held, e, json, written);
        };
        return row == null ? null : write(row);
    }

    /** The row of a message whose window has passed, or null. */
    public byte[] expire(Held held) {
        return held.send == null ? null : write(settle(held, read(held.send), null));
    }

    private Row receive(Held held, Event e, long written) {
        if (held.received) return null;
        held.received = held.changed = true;
        held.until = Math.max(held.until, written + MEMORY_MS);
        Row row = Row.of(e, "inbound");
        row.final_at = row.occurred_at;
        return row.error_code.isEmpty() ? row.close("complete", "received") : row.close("error", "failed");
    }

    private Row send(Held held, Event e, byte[] json, long written) {
        if (held.send != null || held.settled) return null;
        held.send = json;
        held.changed = true;
        long from = Math.max(Times.millis(e.occurred_at), written);
        held.deadline = from + WINDOW_MS;
        held.until = Math.max(held.until, from + MEMORY_MS);
        if (held.fin != null && held.finWritten < held.deadline) return settle(held, e, read(held.fin));
        held.fin = null;
        return null;
    }

    private Row receipt(Held held, Event e, byte[] json, long written) {
        if (held.settled || held.fin != null || (held.deadline > 0 && written >= held.deadline)) return null;
        String state = States.of(e.state);
        if (States.isFinal(state)) {
            if (held.send != null) return settle(held, read(held.send), e);
            held.fin = json;
            held.finWritten = written;
            held.changed = true;
        } else if (state.equals("sent")) pass(held, e, json);
        return null;
    }

    private static void pass(Held held, Event e, byte[] json) {
        long at = Times.millis(e.occurred_at);
        String mine = at + " " + e.event_id + "\n";
        if (held.heard == null) held.heard = mine;
        else if (held.heard.contains(mine)) return; // a copy: what the first one said counts
        else held.heard += mine;
        boolean isFirst = held.sentAt == 0 || at < held.sentAt;
        if (isFirst) held.sentAt = at;
        if (e.tellsPriceOrNetwork() && (isFirst || held.teller == null)) held.teller = json;
        held.changed = true;
    }

    private Row settle(Held held, Event send, Event fin) {
        Row row = Row.of(send, "outbound");
        row.error_code = row.vendor_error_code = "";
        if (held.teller != null) row.hear(read(held.teller));
        row.sent_at = held.sentAt == 0 ? null : held.sentAt;
        String state = held.sentAt == 0 ? "queued" : "sent", type = "incomplete";
        if (fin != null) {
            row.hear(fin);
            state = States.of(fin.state);
            type = state.equals("delivered") ? "complete" : "error";
            row.final_at = Times.millis(fin.occurred_at);
            row.error_code = Row.or(fin.error_code, "");
            row.vendor_error_code = Row.or(fin.vendor_error_code, "");
        }
        held.settled = held.changed = true;
        held.send = held.fin = held.teller = null;
        held.heard = null;
        return row.close(type, state);
    }

    private static Event read(byte[] json) {
        try {
            return Event.read(json);
        } catch (IOException e) {
            throw new IllegalStateException(e);
        }
    }

    private byte[] write(Row row) {
        try {
            return writer.writeValueAsBytes(row);
        } catch (IOException e) {
            throw new IllegalStateException(e);
        }
    }
}
