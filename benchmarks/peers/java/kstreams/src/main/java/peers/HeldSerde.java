package peers;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;

/** A compact form of what is held: numbers, then four byte strings with their lengths. */
final class HeldSerde {
    private HeldSerde() {}

    static Serde<Held> of() {
        Serializer<Held> write = (topic, held) -> held == null ? null : write(held);
        Deserializer<Held> read = (topic, bytes) -> bytes == null ? null : read(ByteBuffer.wrap(bytes));
        return Serdes.serdeFrom(write, read);
    }

    private static byte[] write(Held h) {
        byte[] heard = h.heard == null ? null : h.heard.getBytes(StandardCharsets.UTF_8);
        int size = 4 * 8 + 1 + 4 * 4 + length(h.send) + length(h.fin) + length(h.teller) + length(heard);
        ByteBuffer b = ByteBuffer.allocate(size);
        b.putLong(h.sentAt).putLong(h.finWritten).putLong(h.deadline).putLong(h.until);
        b.put((byte) ((h.settled ? 1 : 0) | (h.received ? 2 : 0)));
        for (byte[] each : new byte[][] {h.send, h.fin, h.teller, heard}) {
            b.putInt(length(each));
            if (each != null) b.put(each);
        }
        return b.array();
    }

    private static Held read(ByteBuffer b) {
        Held h = new Held();
        h.sentAt = b.getLong();
        h.finWritten = b.getLong();
        h.deadline = b.getLong();
        h.until = b.getLong();
        byte flags = b.get();
        h.settled = (flags & 1) != 0;
        h.received = (flags & 2) != 0;
        h.send = bytes(b);
        h.fin = bytes(b);
        h.teller = bytes(b);
        byte[] heard = bytes(b);
        h.heard = heard == null ? null : new String(heard, StandardCharsets.UTF_8);
        return h;
    }

    private static int length(byte[] bytes) {
        return bytes == null ? 0 : bytes.length;
    }

    private static byte[] bytes(ByteBuffer b) {
        int size = b.getInt();
        if (size == 0) return null;
        byte[] bytes = new byte[size];
        b.get(bytes);
        return bytes;
    }
}
