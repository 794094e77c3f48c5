// Writes the golden batches of record/testdata with Apache Kafka's own builder, and reads batches back with Kafka's own
// reader. Run with Kafka 4.3's libs on the class path:
//   java -cp 'libs/*' Golden.java write DIR      the golden files
//   java -cp 'libs/*' Golden.java read FILE...   one line per record
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.*;
import org.apache.kafka.common.record.internal.*;

public class Golden {
    static final long T = 1700000000000L;

    static byte[] utf8(String s) { return s.getBytes(StandardCharsets.UTF_8); }

    static void add(MemoryRecordsBuilder b, int size) {
        Header[] none = new Header[0];
        b.append(T, utf8("key-0"), utf8("value-0"), none);
        b.append(T + 5, null, utf8("no key"), none);
        b.append(T - 3, utf8("tombstone"), null, none);
        b.append(T + 70000, utf8(""), utf8(""), new Header[] {
            new RecordHeader("trace", utf8("abc")), new RecordHeader("trace", (byte[]) null), new RecordHeader("", utf8(""))});
        byte[] large = new byte[size]; // larger than any window or block where the batch is compressed
        for (int i = 0; i < large.length; i++) large[i] = (byte) (97 + i / 50 % 23);
        b.append(T + 70000, utf8("large"), large, none);
    }

    static void write(Path dir, String name, Compression c, TimestampType type, long pid, short epoch, int seq, boolean txn) throws Exception {
        MemoryRecordsBuilder b = MemoryRecords.builder(ByteBuffer.allocate(1 << 20), (byte) 2, c, type, 0L, T + 99,
            pid, epoch, seq, txn, -1);
        add(b, c == Compression.NONE ? 1000 : 150000);
        put(dir, name, b.build());
    }

    static void put(Path dir, String name, MemoryRecords r) throws Exception {
        byte[] bytes = new byte[r.sizeInBytes()];
        r.buffer().get(bytes);
        Files.write(dir.resolve(name + ".bin"), bytes);
    }

    public static void main(String[] a) throws Exception {
        if (a[0].equals("write")) {
            Path dir = Path.of(a[1]);
            TimestampType create = TimestampType.CREATE_TIME;
            write(dir, "gzip", Compression.gzip().build(), create, -1, (short) -1, -1, false);
            write(dir, "snappy", Compression.snappy().build(), create, -1, (short) -1, -1, false);
            write(dir, "lz4", Compression.lz4().build(), create, -1, (short) -1, -1, false);
            write(dir, "zstd", Compression.zstd().build(), create, 4242, (short) 7, 2147483646, false);
            write(dir, "zstd22", Compression.zstd().level(22).build(), create, -1, (short) -1, -1, false);
            write(dir, "none", Compression.NONE, create, 4242, (short) 7, 11, true);
            write(dir, "logappendtime", Compression.lz4().build(), TimestampType.LOG_APPEND_TIME, -1, (short) -1, -1, false);
            put(dir, "commit", MemoryRecords.withEndTransactionMarker(33L, T, 9, 4242L, (short) 7,
                new EndTransactionMarker(ControlRecordType.COMMIT, 12)));
            return;
        }
        for (int i = 1; i < a.length; i++)
            for (RecordBatch b : MemoryRecords.readableRecords(ByteBuffer.wrap(Files.readAllBytes(Path.of(a[i])))).batches()) {
                b.ensureValid();
                System.out.printf("%s base=%d last=%d epoch=%d codec=%s type=%s max=%d pid=%d/%d seq=%d..%d txn=%b control=%b count=%d%n",
                    Path.of(a[i]).getFileName(), b.baseOffset(), b.lastOffset(), b.partitionLeaderEpoch(), b.compressionType(),
                    b.timestampType(), b.maxTimestamp(), b.producerId(), b.producerEpoch(), b.baseSequence(), b.lastSequence(),
                    b.isTransactional(), b.isControlBatch(), b.countOrNull());
                for (var r : b) {
                    StringBuilder h = new StringBuilder();
                    for (Header x : r.headers()) h.append(' ').append(x.key()).append('=').append(hash(x.value() == null ? null : ByteBuffer.wrap(x.value())));
                    System.out.printf("  %d %d %s %s%s%n", r.offset(), r.timestamp(), hash(r.key()), hash(r.value()), h);
                }
            }
    }

    static String hash(ByteBuffer b) {
        if (b == null) return "null";
        java.util.zip.CRC32C c = new java.util.zip.CRC32C();
        int n = b.remaining();
        c.update(b.duplicate());
        return n + ":" + Long.toHexString(c.getValue());
    }
}
