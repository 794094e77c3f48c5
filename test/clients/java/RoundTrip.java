import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The Java client of test/clients; the protocol is in that folder's doc.go. One source for every version of the client. */
public final class RoundTrip {
    private static final String[] CODECS = {"none", "gzip", "snappy", "lz4", "zstd"};
    private static final int CHUNK = 20;
    private static final long PATIENCE_MS = 120_000;

    private final PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
    private final Map<String, KafkaProducer<byte[], byte[]>> producers = new LinkedHashMap<>();
    private final Set<String> seen = new HashSet<>();
    private final String prefix;

    private RoundTrip(String prefix) {
        this.prefix = prefix;
    }

    public static void main(String[] args) throws Exception {
        new RoundTrip(args[1]).run(args[0], Integer.parseInt(args[2]), Integer.parseInt(args[3]));
    }

    private void run(String broker, int rounds, int records) throws Exception {
        List<String> topics = new ArrayList<>();
        List<NewTopic> wanted = new ArrayList<>();
        for (String codec : CODECS) {
            topics.add(prefix + "-" + codec);
            wanted.add(new NewTopic(prefix + "-" + codec, 3, (short) 1));
            producers.put(codec, new KafkaProducer<>(Map.of("bootstrap.servers", broker, "compression.type", codec,
                    "enable.idempotence", "true", "acks", "all", "linger.ms", "5",
                    "key.serializer", ByteArraySerializer.class.getName(), "value.serializer", ByteArraySerializer.class.getName())));
        }
        try (Admin admin = Admin.create(Map.<String, Object>of("bootstrap.servers", broker))) {
            admin.createTopics(wanted).all().get();
        }
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(Map.of("bootstrap.servers", broker,
                "group.id", prefix + "-group", "auto.offset.reset", "earliest", "enable.auto.commit", "false",
                "key.deserializer", ByteArrayDeserializer.class.getName(), "value.deserializer", ByteArrayDeserializer.class.getName()))) {
            consumer.subscribe(topics);
            for (int round = 0; round < rounds; round++) {
                if (round > 0) {
                    out.println("HALF");
                    out.flush();
                    in.readLine();
                }
                produce(round * records, (round + 1) * records);
                consume(consumer, (round + 1) * records * CODECS.length);
            }
        }
        for (KafkaProducer<byte[], byte[]> p : producers.values()) {
            p.close();
        }
        out.println("OK records=" + seen.size());
        out.flush();
    }

    private void produce(int from, int to) throws Exception {
        for (int start = from; start < to; start += CHUNK) {
            for (String codec : CODECS) {
                List<Future<?>> sent = new ArrayList<>();
                for (int i = start; i < Math.min(start + CHUNK, to); i++) {
                    sent.add(producers.get(codec).send(record(codec, i)));
                }
                for (Future<?> f : sent) {
                    f.get();
                }
            }
        }
    }

    /** expected(full, codec, i) of the harness. */
    private ProducerRecord<byte[], byte[]> record(String codec, int i) {
        int repeats = i % 97 == 96 ? 5000 : i % 50;
        byte[] key = i % 10 == 9 ? null : ("k" + i % 17).getBytes(StandardCharsets.UTF_8);
        byte[] value = i % 13 == 12 && key != null ? null : (codec + "-" + i + "-" + "varve ".repeat(repeats)).getBytes(StandardCharsets.UTF_8);
        ProducerRecord<byte[], byte[]> r = new ProducerRecord<>(prefix + "-" + codec, key, value);
        r.headers().add("seq", Integer.toString(i).getBytes(StandardCharsets.UTF_8));
        r.headers().add("bytes", new byte[] {0, (byte) 255, (byte) i});
        r.headers().add("empty", new byte[0]);
        r.headers().add("null", null);
        return r;
    }

    private void consume(KafkaConsumer<byte[], byte[]> consumer, int until) {
        long deadline = System.currentTimeMillis() + PATIENCE_MS;
        while (seen.size() < until) {
            if (System.currentTimeMillis() > deadline) {
                throw new IllegalStateException("only " + seen.size() + " of " + until + " records came");
            }
            for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(500))) {
                seen.add(r.topic() + " " + r.partition() + " " + r.offset());
                StringBuilder headers = new StringBuilder();
                for (Header h : r.headers()) {
                    headers.append(headers.length() > 0 ? "," : "").append(h.key()).append('=').append(hex(h.value()));
                }
                out.println("R " + r.topic() + " " + r.partition() + " " + r.offset() + " " + hex(r.key()) + " " + hex(r.value()) + " " + headers);
            }
        }
        consumer.commitSync();
    }

    private static String hex(byte[] b) {
        return b == null ? "-" : "x" + HexFormat.of().formatHex(b);
    }
}
