package peers;

import java.io.IOException;
import java.util.Properties;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;

/** The job as a Flink stream: one keyed state, one event-time timer a message, the topics read to their present end. */
public final class Flink {
    public static final class Entry {
        public int topic;
        public String id;
        public byte[] json;
        public long written;
    }

    private static final class Decoder implements KafkaRecordDeserializationSchema<Entry> {
        @Override
        public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Entry> out) throws IOException {
            Run.see();
            Entry entry = new Entry();
            entry.topic = Run.topic(record.topic());
            entry.id = new String(record.key());
            entry.json = record.value();
            entry.written = record.timestamp();
            out.collect(entry);
        }

        @Override
        public TypeInformation<Entry> getProducedType() {
            return Types.POJO(Entry.class);
        }
    }

    private static final class Joining extends KeyedProcessFunction<String, Entry, byte[]> {
        private transient ValueState<Held> state;
        private transient Join join;

        @Override
        public void open(OpenContext context) {
            state = getRuntimeContext().getState(new ValueStateDescriptor<>("held", Types.POJO(Held.class)));
            join = new Join();
        }

        @Override
        public void processElement(Entry entry, Context context, Collector<byte[]> out) throws Exception {
            Held held = state.value();
            if (held == null) held = new Held();
            long until = held.until;
            held.changed = false;
            emit(join.take(held, entry.topic, entry.json, entry.written), out);
            if (held.changed) state.update(held);
            if (held.until > until) context.timerService().registerEventTimeTimer(held.until);
        }

        @Override
        public void onTimer(long at, OnTimerContext context, Collector<byte[]> out) throws Exception {
            Held held = state.value();
            if (held == null || held.until > at) return;
            emit(join.expire(held), out);
            state.clear();
        }

        private static void emit(byte[] row, Collector<byte[]> out) {
            if (row == null) return;
            out.collect(row);
            Run.emitted();
        }
    }

    private static Configuration settings() {
        Configuration c = new Configuration();
        c.setString("state.backend.type", Run.STATE.equals("memory") ? "hashmap" : "rocksdb");
        // Each checkpoint leaves small files behind, and a filter says which need not be read. Timers stay in RocksDB:
        // on the heap they would all be written, by the thread that joins, at every checkpoint.
        c.setString("state.backend.rocksdb.use-bloom-filter", "true");
        c.setString("state.backend.rocksdb.thread.num", "2");
        c.setString("state.backend.rocksdb.predefined-options", "FLASH_SSD_OPTIMIZED");
        c.setString("execution.checkpointing.interval", Run.COMMIT_MS + " ms");
        c.setString("execution.checkpointing.storage", "filesystem");
        c.setString("execution.checkpointing.dir", "file://" + Run.HOME + "/checkpoints");
        c.setString("execution.checkpointing.incremental", "true");
        c.setString("restart-strategy.type", "none");
        c.setString("pipeline.object-reuse", "true");
        c.setString("taskmanager.memory.managed.size", "512m");
        c.setString("taskmanager.memory.network.max", "64m");
        c.setString("taskmanager.memory.network.min", "64m");
        c.setString("rest.port", "0");
        c.setString("rest.bind-port", "0");
        c.setString("rest.address", "127.0.0.1");
        c.setString("rest.bind-address", "127.0.0.1");
        return c;
    }

    private static KafkaSink<byte[]> sink() {
        Properties p = new Properties();
        p.put("compression.type", "lz4");
        p.put("linger.ms", "50");
        p.put("batch.size", "262144");
        KafkaRecordSerializationSchema<byte[]> write = (row, context, at) -> new ProducerRecord<>(Run.OUT, null, row);
        return KafkaSink.<byte[]>builder().setBootstrapServers(Run.KAFKA).setKafkaProducerConfig(p).setRecordSerializer(write).build();
    }

    public static void main(String[] args) throws Exception {
        Run.createOutput();
        StreamExecutionEnvironment flow = StreamExecutionEnvironment.getExecutionEnvironment(settings());
        flow.setParallelism(Run.THREADS);
        KafkaSource<Entry> source = KafkaSource.<Entry>builder().setBootstrapServers(Run.KAFKA).setTopics(Run.TOPICS)
            .setGroupId(Run.NAME).setStartingOffsets(OffsetsInitializer.earliest()).setBounded(OffsetsInitializer.latest())
            .setDeserializer(new Decoder()).build();
        flow.fromSource(source, WatermarkStrategy.forMonotonousTimestamps(), "in").keyBy(entry -> entry.id)
            .process(new Joining()).returns(PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO).sinkTo(sink());
        JobClient job = flow.executeAsync("mdr");
        Thread watch = new Thread(() -> haltIfFailed(job));
        watch.setDaemon(true);
        watch.start();
        Run.awaitRecords();
        Runtime.getRuntime().halt(0);
    }

    private static void haltIfFailed(JobClient job) {
        try {
            job.getJobExecutionResult().get();
        } catch (Exception e) {
            e.printStackTrace();
            Runtime.getRuntime().halt(3);
        }
    }
}
