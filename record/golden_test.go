package record

import (
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/varvelog/varve/internal/base"
)

// dump describes a batch in the words of testdata/Golden.java.
func dump(t *testing.T, name string, b Batch) string {
	t.Helper()
	if err := b.CheckCRC(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	kind := "CreateTime"
	if b.IsLogAppendTime() {
		kind = "LogAppendTime"
	}
	codec := b.Codec().String()
	if b.Codec() == CodecNone {
		codec = "none"
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s base=%d last=%d epoch=%d codec=%s type=%s max=%d pid=%d/%d seq=%d..%d txn=%t control=%t count=%d\n",
		name, b.BaseOffset(), b.LastOffset(), b.LeaderEpoch(), codec, kind, b.MaxTimestamp(), b.ProducerID(), b.ProducerEpoch(),
		b.BaseSequence(), b.LastSequence(), b.IsTransactional(), b.IsControl(), b.Count())
	err := b.Each(func(r Record) bool {
		fmt.Fprintf(&out, "  %d %d %s %s", r.Offset, r.Timestamp, digest(r.Key), digest(r.Value))
		for _, h := range r.Headers {
			fmt.Fprintf(&out, " %s=%s", h.Key, digest(h.Value))
		}
		out.WriteByte('\n')
		return true
	})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out.String()
}

func digest(b []byte) string {
	if b == nil {
		return "null"
	}
	return fmt.Sprintf("%d:%x", len(b), crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// goldenFiles are the batches that Kafka 4.3 wrote (testdata/Golden.java), in the order of golden.txt.
func goldenFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.bin")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	return files
}

func golden(t testing.TB, name string) Batch {
	t.Helper()
	buf, err := os.ReadFile(filepath.Join("testdata", name+".bin"))
	if err != nil {
		t.Fatal(err)
	}
	b, rest, err := Split(buf)
	if err != nil || len(rest) != 0 {
		t.Fatalf("%s: %d bytes left, %v", name, len(rest), err)
	}
	return b
}

func TestReadsWhatKafkaWrote(t *testing.T) {
	want, err := os.ReadFile("testdata/golden.txt")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, f := range goldenFiles(t) {
		name := filepath.Base(f)
		got.WriteString(dump(t, name, golden(t, strings.TrimSuffix(name, ".bin"))))
	}
	if got.String() != string(want) {
		t.Errorf("got\n%s\nKafka reads\n%s", got.String(), want)
	}
}

// The encoding has no freedom where nothing is compressed: the bytes must be Kafka's.
func TestBuildsTheBytesOfKafka(t *testing.T) {
	want := golden(t, "none")
	got := rebuilt(t, want, BuildHeader{
		LeaderEpoch: base.NoLeaderEpoch, Transactional: true, ProducerID: 4242, ProducerEpoch: 7, BaseSequence: 11,
	})
	if string(got) != string(want) {
		t.Errorf("got\n%x\nwant\n%x", got, want)
	}
	marker := BuildEndMarker(EndMarker{Commit: true, CoordinatorEpoch: 12}, 4242, 7, 1700000000000)
	marker.SetBaseOffset(33)
	marker.SetLeaderEpoch(9)
	if want := golden(t, "commit"); string(marker) != string(want) {
		t.Errorf("marker\n%x\nwant\n%x", marker, want)
	}
}

// rebuilt takes a batch apart and builds it again.
func rebuilt(t testing.TB, b Batch, h BuildHeader) Batch {
	t.Helper()
	var records []Record
	if err := b.Each(func(r Record) bool { records = append(records, r); return true }); err != nil {
		t.Fatal(err)
	}
	out, err := Build(h, records)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Kafka's own reader must take what we write. It needs Kafka 4.3's libs: VARVE_KAFKA_LIBS=.../libs go test -run Java.
func TestJavaReadsWhatWeWrite(t *testing.T) {
	libs := os.Getenv("VARVE_KAFKA_LIBS")
	if libs == "" {
		t.Skip("VARVE_KAFKA_LIBS is not set")
	}
	source := golden(t, "zstd")
	var want strings.Builder
	args := []string{"-cp", libs + "/*", "testdata/Golden.java", "read"}
	for codec := CodecNone; codec <= CodecZstd; codec++ {
		for _, level := range []int{0, 1, 5, 9, 17, 22} {
			b, err := Recompress(source, codec, level)
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Join(t.TempDir(), fmt.Sprintf("%s-%d.bin", codec, level))
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			args = append(args, name)
			want.WriteString(dump(t, filepath.Base(name), b))
		}
	}
	got, err := exec.CommandContext(t.Context(), "java", args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want.String() {
		t.Errorf("Kafka reads\n%s\nwant\n%s", got, want.String())
	}
}
