package tiering_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/varvelog/varve/cache"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/tiering"
	"github.com/varvelog/varve/tiering/tiertest"
)

var rewrite = flag.Bool("rewrite", false, "rewrite golden files")

// TestTrace lists every operation on bucket and metadata store of a round, of a cold read, of a log start that moves and of
// a restart, in order: a new request on the path shows in the diff of testdata/trace.txt.
func TestTrace(t *testing.T) {
	n := 0
	e := tiertest.New(t, func(o *tiering.Options) {
		o.MaxUploads = 1
		o.UploadBytes = 1 << 20
		o.NewID = func() string { n++; return fmt.Sprintf("%032x", n) }
		c, err := cache.New(o.Bucket, cache.Options{MemoryBytes: 1 << 20, BlockBytes: 8192, ReadAheadBytes: 1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		o.Cache, o.ReadUnitBytes = c, 8192
	})
	var out bytes.Buffer
	step := func(what string, fn func()) {
		e.Faults.Arm(1<<30, tiertest.FailBefore)
		e.Mem.ResetTrace()
		fn()
		fmt.Fprintf(&out, "# %s\n", what)
		bucket := e.Mem.Trace()
		for _, op := range e.Faults.Ops() { // both stores in order, the bucket's with its arguments
			if strings.HasPrefix(op, "bucket") && len(bucket) > 0 {
				op, bucket = "bucket "+bucket[0], bucket[1:]
			}
			fmt.Fprintln(&out, op)
		}
		e.Faults.Disarm()
	}
	e.Source.Plain = true // sizes must not depend on a compressor's version
	logs := workload(e)
	step("a round: two partitions share a pack, the third has objects of its own", e.Drain)
	ctx, l := context.Background(), logs[2]
	read := func(at base.Offset) {
		_, err := e.Tier.Reader().Read(ctx, l.State.Log, at, 4000)
		e.Check(err)
	}
	step("a cold read", func() { read(l.End() / 2) })
	step("the same again", func() { read(l.End() / 2) })
	step("the log start moves", func() { e.Check(e.Tier.DropBelow(ctx, l.State.Log, l.End()/2)) })
	e.Restart()
	step("a cold read after a restart", func() { read(l.End() - 1) })
	path := filepath.Join("testdata", "trace.txt")
	if *rewrite {
		e.Check(os.MkdirAll("testdata", 0o755))
		e.Check(os.WriteFile(path, out.Bytes(), 0o644))
	}
	want, err := os.ReadFile(path)
	e.Check(err)
	if out.String() != string(want) {
		t.Errorf("the operations changed (-rewrite to accept):\n%s", out.String())
	}
}
