package peers;

import java.time.Duration;
import java.util.Comparator;
import java.util.Map;
import java.util.PriorityQueue;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

/** The job as a Kafka Streams processor with one store and its changelog. */
public final class KStreams {
    private static final String STORE = "held";

    private record Due(long at, String id) {}

    private static final class Joining implements Processor<byte[], byte[], byte[], byte[]> {
        private final Join join = new Join();
        private final PriorityQueue<Due> due = new PriorityQueue<>(Comparator.comparingLong(Due::at));
        private ProcessorContext<byte[], byte[]> context;
        private KeyValueStore<String, Held> store;

        @Override
        public void init(ProcessorContext<byte[], byte[]> context) {
            this.context = context;
            store = context.getStateStore(STORE);
            try (KeyValueIterator<String, Held> all = store.all()) {
                while (all.hasNext()) {
                    KeyValue<String, Held> each = all.next();
                    if (each.value.until > 0) due.add(new Due(each.value.until, each.key));
                }
            }
            context.schedule(Duration.ofSeconds(60), PunctuationType.STREAM_TIME, this::expire);
            // Once caught up, time is the wall clock: every window of the data set has passed.
            context.schedule(Duration.ofMillis(100), PunctuationType.WALL_CLOCK_TIME, now -> {
                if (Run.isAllSeen()) expire(now);
            });
        }

        @Override
        public void process(Record<byte[], byte[]> record) {
            Run.see();
            String id = new String(record.key());
            Held held = store.get(id);
            if (held == null) held = new Held();
            long until = held.until;
            held.changed = false;
            int topic = Run.topic(context.recordMetadata().orElseThrow().topic());
            emit(join.take(held, topic, record.value(), record.timestamp()), record.key(), record.timestamp());
            if (held.changed) store.put(id, held);
            if (held.until > until) due.add(new Due(held.until, id));
        }

        private void expire(long now) {
            while (!due.isEmpty() && due.peek().at <= now) {
                String id = due.poll().id;
                Held held = store.get(id);
                if (held == null || held.until > now) continue;
                emit(join.expire(held), id.getBytes(), now);
                store.delete(id);
            }
        }

        private void emit(byte[] row, byte[] key, long at) {
            if (row == null) return;
            context.forward(new Record<>(key, row, at));
            Run.emitted();
        }
    }

    private static StoreBuilder<?> store() {
        var supplier = Run.STATE.equals("memory") ? Stores.inMemoryKeyValueStore(STORE) : Stores.persistentKeyValueStore(STORE);
        return Stores.keyValueStoreBuilder(supplier, Serdes.String(), HeldSerde.of()).withLoggingEnabled(Map.of()).withCachingEnabled();
    }

    private static Properties settings() {
        Properties p = new Properties();
        p.put(StreamsConfig.APPLICATION_ID_CONFIG, Run.NAME);
        p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, Run.KAFKA);
        p.put(StreamsConfig.STATE_DIR_CONFIG, Run.HOME);
        p.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, Run.THREADS);
        p.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, Run.COMMIT_MS);
        p.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        p.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L << 20);
        p.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 5000);
        p.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        p.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 50);
        p.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
        p.put(StreamsConfig.producerPrefix(ProducerConfig.BUFFER_MEMORY_CONFIG), 64L << 20);
        p.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5000);
        p.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        return p;
    }

    public static void main(String[] args) throws Exception {
        Run.createOutput();
        var in = new ByteArrayDeserializer();
        var out = new ByteArraySerializer();
        Topology topology = new Topology();
        topology.addSource("in", in, in, Run.TOPICS.toArray(String[]::new));
        topology.addProcessor("join", Joining::new, "in").addStateStore(store(), "join");
        topology.addSink("out", Run.OUT, out, out, "join");
        KafkaStreams streams = new KafkaStreams(topology, settings());
        streams.setUncaughtExceptionHandler(e -> {
            e.printStackTrace();
            Runtime.getRuntime().halt(3);
            return null;
        });
        streams.start();
        Run.awaitRecords();
        streams.close(Duration.ofSeconds(20));
        Runtime.getRuntime().halt(0);
    }
}
