package manifest_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/tiering/manifest"
)

var rewrite = flag.Bool("rewrite", false, "rewrite golden files")

var identity = manifest.Identity{Cluster: "cluster", Log: 42, TopicID: base.TopicID{1}, TP: base.TopicPartition{Topic: "orders", Partition: 7}}

func entry(from, to base.Offset) manifest.Entry {
	return manifest.Entry{
		Object: fmt.Sprintf("v1/segments/%s/%020d.seg", identity.Log, from), ObjectBytes: 1000, Len: 1000, TailBytes: 100, CRC32C: uint32(from),
		Base: from, End: to, MaxTimestamp: int64(to) * 10, LeaderEpoch: 3,
	}
}

func must(t testing.TB) func(*manifest.Manifest, error) *manifest.Manifest {
	return func(m *manifest.Manifest, err error) *manifest.Manifest {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
}

func run(n int, from, step base.Offset) (out []manifest.Entry) {
	for i := range base.Offset(n) {
		out = append(out, entry(from+i*step, from+(i+1)*step))
	}
	return out
}

func TestAdd(t *testing.T) {
	m := must(t)(manifest.New(identity, 5).Add([]manifest.Entry{entry(0, 10), entry(10, 20)}, []base.EpochStart{{Epoch: 3, Start: 0}}))
	if m.End != 20 || m.Start() != 5 || m.Bytes() != 2000 || m.Segments() != 2 {
		t.Errorf("%+v", m)
	}
	for _, e := range []manifest.Entry{entry(19, 30), entry(21, 30), entry(0, 10), {Base: 20, End: 30}, entry(20, 20)} {
		if _, err := m.Add([]manifest.Entry{e}, nil); err == nil {
			t.Errorf("[%d, %d) was added", e.Base, e.End)
		}
	}
	if _, err := m.Add([]manifest.Entry{entry(30, 40)}, nil); !errors.Is(err, manifest.ErrNotContiguous) {
		t.Errorf("gap: %v", err)
	}
	if len(m.Entries) != 2 {
		t.Error("a failed Add changed its receiver")
	}
}

func TestReplace(t *testing.T) {
	m := must(t)(manifest.New(identity, 0).Add(run(5, 0, 10), nil))
	next, old, err := m.Replace([]manifest.Entry{entry(10, 25), entry(25, 40)})
	if err != nil || len(old) != 3 || len(next.Entries) != 4 || next.End != 50 || len(m.Entries) != 5 {
		t.Fatalf("%v %d %+v", err, len(old), next)
	}
	for _, e := range []manifest.Entry{entry(5, 20), entry(10, 15), entry(40, 60), entry(60, 70)} {
		if _, _, err := m.Replace([]manifest.Entry{e}); !errors.Is(err, manifest.ErrNotContiguous) {
			t.Errorf("[%d, %d): %v", e.Base, e.End, err)
		}
	}
}

func TestDropBelow(t *testing.T) {
	m := must(t)(manifest.New(identity, 0).Add(run(5, 0, 10), []base.EpochStart{{Epoch: 1, Start: 0}, {Epoch: 2, Start: 12}, {Epoch: 3, Start: 35}}))
	f := func(start base.Offset, dropped int, first base.Offset, epochs int) {
		t.Helper()
		n, d, err := m.DropBelow(start, nil)
		if err != nil || len(d.Entries) != dropped || n.Start() != first || len(n.Epochs) != epochs || n.End != 50 {
			t.Errorf("drop below %d: %d dropped, start %d, %d epochs, end %d, %v", start, len(d.Entries), n.Start(), len(n.Epochs), n.End, err)
		}
	}
	f(0, 0, 0, 3)
	f(9, 0, 9, 3)
	f(10, 1, 10, 3)
	f(25, 2, 25, 2)
	f(49, 4, 49, 1)
	f(50, 5, 50, 1)
	n, _, err := m.DropBelow(80, nil) // past the tiered end
	if err != nil || !n.Empty() || n.End != 50 || n.LogStart != 80 {
		t.Fatalf("%+v %v", n, err)
	}
	if n = must(t)(n.Add([]manifest.Entry{entry(75, 90)}, nil)); n.Start() != 80 || n.End != 90 {
		t.Errorf("%+v", n)
	}
}

// TestSpill grows a manifest far over its limit and drops from it, and compares with a plain list at every step.
func TestSpill(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	m, archives := manifest.New(identity, 0), map[manifest.ArchiveKey]*manifest.Archive{}
	var want []manifest.Entry
	for i := range 400 {
		add := run(1+rnd.IntN(3), m.End, 10)
		m = must(t)(m.Add(add, nil))
		want = append(want, add...)
		if a := m.Spill(10); a != nil {
			b := a.Encode()
			decoded, err := manifest.DecodeArchive(b)
			if err != nil || !reflect.DeepEqual(decoded, a) {
				t.Fatalf("archive: %v", err)
			}
			ref := manifest.ArchiveRef{Object: fmt.Sprintf("v1/archives/%d", i), ObjectBytes: int64(len(b)), Len: int64(len(b)), CRC32C: 7}
			m = must(t)(m.AddArchive(a, ref))
			archives[ref.Key()] = decoded
		}
		if rnd.IntN(4) == 0 && len(want) > 3 {
			start := want[rnd.IntN(3)].Base + base.Offset(rnd.IntN(10))
			var d manifest.Dropped
			var err error
			if m, d, err = m.DropBelow(start, archives); err != nil {
				t.Fatal(err)
			}
			n := len(d.Entries)
			if !reflect.DeepEqual(append([]manifest.Entry{}, want[:n]...), append([]manifest.Entry{}, d.Entries...)) || n < len(want) && want[n].End <= m.LogStart {
				t.Fatalf("drop below %d let go of %d entries", start, n)
			}
			want = want[n:]
		}
		decoded, err := manifest.Decode(m.Encode())
		if err != nil || !reflect.DeepEqual(normal(decoded), normal(m)) {
			t.Fatalf("decoded %+v, want %+v, %v", decoded, m, err)
		}
		checkAgainst(t, m, archives, want)
	}
	if len(m.Archives) == 0 || len(m.Entries) > 10 {
		t.Errorf("%d archives, %d working entries", len(m.Archives), len(m.Entries))
	}
}

// normal makes empty and nil slices alike.
func normal(m *manifest.Manifest) manifest.Manifest {
	n := *m
	n.Epochs, n.Archives, n.Entries = append([]base.EpochStart{}, m.Epochs...), append([]manifest.ArchiveRef{}, m.Archives...), append([]manifest.Entry{}, m.Entries...)
	return n
}

func checkAgainst(t *testing.T, m *manifest.Manifest, archives map[manifest.ArchiveKey]*manifest.Archive, want []manifest.Entry) {
	t.Helper()
	var bytes int64
	for _, e := range want {
		bytes += e.Len
		at := max(e.Base, m.LogStart)
		i, archived, ok := m.Find(at)
		if !ok {
			t.Fatalf("offset %d is not found", at)
		}
		var got manifest.Entry
		if archived {
			a := archives[m.Archives[i].Key()]
			j, _ := a.Find(at)
			got = a.Entries[j]
		} else {
			got = m.Entries[i]
		}
		if got != e {
			t.Fatalf("offset %d is in %+v, want %+v", at, got, e)
		}
	}
	if m.Bytes() != bytes || m.Segments() != int64(len(want)) {
		t.Fatalf("%d bytes in %d segments, want %d in %d", m.Bytes(), m.Segments(), bytes, len(want))
	}
	if _, _, ok := m.Find(m.End); ok {
		t.Fatal("the end was found")
	}
}

func TestAfter(t *testing.T) {
	m := manifest.New(identity, 0)
	if !m.With(2, 1, 0).After(m.With(1, 9, 0)) || !m.With(2, 5, 0).After(m.With(2, 4, 9)) || m.With(2, 5, 0).After(m.With(2, 5, 0)) {
		t.Error("epoch decides, then sequence")
	}
}

func sample(t testing.TB) *manifest.Manifest {
	m := must(t)(manifest.New(identity, 5).Add(run(12, 0, 10), []base.EpochStart{{Epoch: 1, Start: 0}, {Epoch: 3, Start: 30}}))
	m = must(t)(m.AddArchive(m.Spill(10), manifest.ArchiveRef{Object: "v1/archives/1-x.arc", ObjectBytes: 900, Pos: 10, Len: 500, CRC32C: 9}))
	return m.With(3, 77, 1_700_000_000_000)
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	data := sample(t).Encode()
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 1 << (i % 8)
		if _, err := manifest.Decode(bad); !base.IsCorruption(err) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
}

// TestGolden keeps version 1 readable for ever.
func TestGolden(t *testing.T) {
	data, path := sample(t).Encode(), filepath.Join("testdata", "v1.man")
	if *rewrite {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, want) {
		t.Error("v1.man changed: a new format needs a new version")
	}
	if _, err := manifest.Decode(want); err != nil {
		t.Error(err)
	}
}

// TestSize keeps the working manifest as small as the design says.
func TestSize(t *testing.T) {
	m := must(t)(manifest.New(identity, 0).Add(run(1000, 0, 1_000_000), nil))
	if n := len(m.Encode()); n > 64<<10 {
		t.Errorf("1000 entries take %d bytes", n)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample(f).Encode())
	a := &manifest.Archive{Identity: identity, Entries: run(3, 0, 10)}
	f.Add(a.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		b = manifest.Reseal(b)
		if m, err := manifest.Decode(b); err == nil {
			m.Find(m.Start())
			again, err := manifest.Decode(m.Encode())
			if err != nil || !reflect.DeepEqual(again, m) {
				t.Fatalf("%+v decodes as %+v, %v", m, again, err)
			}
		}
		if a, err := manifest.DecodeArchive(b); err == nil {
			a.Live(a.Entries[0].End)
		}
	})
}
