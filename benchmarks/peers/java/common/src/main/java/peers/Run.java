package peers;

import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.common.TopicPartition;

/** What the harness says (PEER_* of the environment) and wants to know: the time from first event to last row. */
public final class Run {
    public static final String KAFKA = env("KAFKA"), PREFIX = env("PREFIX"), HOME = env("HOME"), OUT = env("OUT");
    public static final String STATE = env("STATE"), COMMIT_MS = env("COMMIT_MS"), NAME = env("RUN");
    public static final int THREADS = Integer.parseInt(env("THREADS")), PARTITIONS = Integer.parseInt(env("PARTITIONS"));
    public static final long EVENTS = Long.parseLong(env("EVENTS")), RECORDS = Long.parseLong(env("RECORDS"));
    public static final List<String> TOPICS = List.of(PREFIX + "sends", PREFIX + "receives", PREFIX + "receipts");
    public static final int SENDS = 0, RECEIVES = 1, RECEIPTS = 2;
    private static final AtomicLong SEEN = new AtomicLong(), EMITTED = new AtomicLong();
    private static volatile long began, half;

    private Run() {}

    private static String env(String name) {
        String value = System.getenv("PEER_" + name);
        if (value == null) throw new IllegalStateException("PEER_" + name + " is not set");
        return value;
    }

    /** The place of a topic in `TOPICS`. */
    public static int topic(String name) {
        return name.endsWith("receipts") ? RECEIPTS : name.endsWith("sends") ? SENDS : RECEIVES;
    }

    public static void see() {
        long before = SEEN.getAndIncrement();
        if (before == 0) began = System.nanoTime();
        else if (before == EVENTS / 2) half = System.nanoTime();
    }

    public static void emitted() {
        EMITTED.incrementAndGet();
    }

    /** Whether every event of the topics was read. */
    public static boolean isAllSeen() {
        return SEEN.get() >= EVENTS;
    }

    public static void createOutput() throws Exception {
        try (Admin admin = admin()) {
            admin.createTopics(List.of(new NewTopic(OUT, PARTITIONS, (short) 1))).all().get();
        }
    }

    /** Returns when the broker has acknowledged every record, and says how long that took. */
    public static void awaitRecords() throws Exception {
        Map<TopicPartition, OffsetSpec> ends = IntStream.range(0, PARTITIONS).boxed()
            .collect(Collectors.toMap(p -> new TopicPartition(OUT, p), p -> OffsetSpec.latest()));
        try (Admin admin = admin()) {
            for (long done = 0; done < RECORDS; Thread.sleep(20)) {
                if (EMITTED.get() < RECORDS) continue;
                done = admin.listOffsets(ends).all().get().values().stream().mapToLong(ListOffsetsResultInfo::offset).sum();
            }
        }
        // The second half alone shows what a JVM does that has compiled what it runs.
        double seconds = (System.nanoTime() - began) / 1e9, second = (System.nanoTime() - half) / 1e9;
        String told = "{\"events\": %d, \"seconds\": %.3f, \"second_half_per_s\": %.0f}%n";
        System.out.printf(Locale.ROOT, told, SEEN.get(), seconds, EVENTS / 2 / second);
        System.out.flush();
    }

    private static Admin admin() {
        return Admin.create(Map.of("bootstrap.servers", KAFKA));
    }
}
