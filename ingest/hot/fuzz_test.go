package hot

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/varvelog/varve/internal/base"
)

// goldenRows are the rows of testdata/rows.txt: a change of their bytes needs a new row version.
func goldenRows() map[string]struct {
	key, value []byte
	decode     func([]byte) (any, error)
	want       any
} {
	meta := Meta{LogStart: 5, HotStart: 1 << 40, HighWater: 1<<40 + 7, End: 1<<40 + 9,
		Epochs: []base.EpochStart{{Epoch: 0, Start: 0}, {Epoch: 17, Start: 1 << 33}}, Producers: []byte("producers")}
	empty := Meta{HighWater: base.NoOffset}
	sealed := Sealed{Base: 10, End: 1000, Bytes: 1 << 24, MaxTimestamp: 1764000000000, SealedAtMs: 1764000000001, Producers: []byte{0, 255}}
	entry := IndexEntry{Offset: 4096, Bytes: 1 << 50, MaxTimestamp: -1}
	const log base.LogID = 0x0102030405060708
	type row = struct {
		key, value []byte
		decode     func([]byte) (any, error)
		want       any
	}
	return map[string]row{
		"meta":   {logKey(spaceMeta, log), meta.encode(), func(b []byte) (any, error) { return decodeMeta(b) }, meta},
		"empty":  {logKey(spaceMeta, 1), empty.encode(), func(b []byte) (any, error) { return decodeMeta(b) }, empty},
		"sealed": {offsetKey(spaceSealed, log, 999), sealed.encode(), func(b []byte) (any, error) { return decodeSealed(999, b) }, sealed},
		"index":  {offsetKey(spaceIndex, log, 4096), entry.encode(), func(b []byte) (any, error) { return decodeIndexEntry(4096, b) }, entry},
	}
}

func TestGoldenRows(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "rows.txt"))
	if err != nil {
		t.Fatal(err)
	}
	rows := goldenRows()
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] == "#" {
			continue
		}
		row, ok := rows[f[0]]
		if !ok {
			t.Errorf("unknown row %s", f[0])
			continue
		}
		delete(rows, f[0])
		if got := hex.EncodeToString(row.key); got != f[1] {
			t.Errorf("%s: key %s, want %s", f[0], got, f[1])
		}
		if got := hex.EncodeToString(row.value); got != f[2] {
			t.Errorf("%s: value %s, want %s", f[0], got, f[2])
		}
		stored, err := hex.DecodeString(f[2])
		if err != nil {
			t.Fatal(err)
		}
		if got, err := row.decode(stored); err != nil || !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s: decoded %+v, %v", f[0], got, err)
		}
	}
	for name, row := range rows {
		t.Errorf("not in testdata/rows.txt: %s %x %x", name, row.key, row.value)
	}
}

// FuzzRows feeds the row decoders with anything: an error, or a row that encodes to the same meaning.
func FuzzRows(f *testing.F) {
	for _, row := range goldenRows() {
		f.Add(row.value)
	}
	f.Add([]byte{1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeMeta(b); err == nil {
			again, err := decodeMeta(m.encode())
			if err != nil || !reflect.DeepEqual(m, again) {
				t.Errorf("meta %+v became %+v, %v", m, again, err)
			}
		}
		if s, err := decodeSealed(7, b); err == nil {
			again, err := decodeSealed(7, s.encode())
			if err != nil || !reflect.DeepEqual(s, again) {
				t.Errorf("sealed %+v became %+v, %v", s, again, err)
			}
		}
		if e, err := decodeIndexEntry(7, b); err == nil {
			if again, err := decodeIndexEntry(7, e.encode()); err != nil || e != again {
				t.Errorf("index entry %+v became %+v, %v", e, again, err)
			}
		}
	})
}

// FuzzBatchHeader: no bytes make the check of a stored batch panic, and what passes is one whole batch.
func FuzzBatchHeader(f *testing.F) {
	f.Add([]byte(testBatch(5, 3, 40, 1)))
	f.Add(make([]byte, 61))
	f.Fuzz(func(t *testing.T, b []byte) {
		if first, last, err := checkHeader(b); err == nil && (first < 0 || last < first || len(b) < 61) {
			t.Errorf("accepted [%d,%d] in %d bytes", first, last, len(b))
		}
	})
}

func TestKeyOrder(t *testing.T) {
	keys := [][]byte{
		offsetKey(spaceData, 1, 0), offsetKey(spaceData, 1, 255), offsetKey(spaceData, 1, 256), offsetKey(spaceData, 1, 1<<62),
		afterLog(spaceData, 1), offsetKey(spaceData, 2, 0), offsetKey(spaceData, 1<<63, 5), offsetKey(spaceData, ^base.LogID(0), 9),
		afterLog(spaceData, ^base.LogID(0)), offsetKey(spaceIndex, 1, 0), logKey(spaceMeta, 1), offsetKey(spaceSealed, 1, 0),
	}
	for i := 1; i < len(keys); i++ {
		if bytes.Compare(keys[i-1], keys[i]) >= 0 {
			t.Errorf("key %d %x is not before %x", i-1, keys[i-1], keys[i])
		}
	}
	if log, off, ok := splitKey(keys[3], spaceData); !ok || log != 1 || off != 1<<62 {
		t.Errorf("split %d %d %v", log, off, ok)
	}
	for _, bad := range [][]byte{nil, {'d'}, keys[0][:16], keys[9], append(bytes.Clone(keys[0]), 0), bytes.Repeat([]byte{0xff}, 17)} {
		if _, _, ok := splitKey(bad, spaceData); ok {
			t.Errorf("split took %x", bad)
		}
	}
	if !bytes.Equal(offsetKey(spaceData, 1, -1), keys[0]) {
		t.Error("a negative offset is not the start")
	}
}
