package objtest_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/varvelog/varve/internal/testutil/s3server"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/objstore/dir"
	"github.com/varvelog/varve/objstore/fault"
	"github.com/varvelog/varve/objstore/mem"
	"github.com/varvelog/varve/objstore/metered"
	"github.com/varvelog/varve/objstore/objtest"
	"github.com/varvelog/varve/objstore/open"
	"github.com/varvelog/varve/objstore/retry"
)

func newMem(*testing.T) objstore.Bucket { return mem.New(mem.Options{}) }

func must(t *testing.T, b objstore.Bucket, err error) objstore.Bucket {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMem(t *testing.T) { objtest.Run(t, newMem) }

func TestDir(t *testing.T) {
	objtest.Run(t, func(t *testing.T) objstore.Bucket {
		b, err := dir.Open(t.TempDir(), dir.Options{})
		return must(t, b, err)
	})
}

func TestDirInMemory(t *testing.T) {
	objtest.Run(t, func(t *testing.T) objstore.Bucket {
		b, err := dir.Open("/bucket", dir.Options{FS: vfs.NewMem()})
		return must(t, b, err)
	})
}

func TestPrefix(t *testing.T) {
	objtest.Run(t, func(t *testing.T) objstore.Bucket {
		all := newMem(t)
		for _, foreign := range []string{"a", "pre-fix/x", "prefix0", "z"} { // around prefix/, none in it
			if _, err := all.Put(t.Context(), foreign, objstore.BodyOf([]byte("foreign"))); err != nil {
				t.Fatal(err)
			}
		}
		return objstore.WithPrefix(all, "prefix")
	})
}

func TestFaultWithoutFaults(t *testing.T) {
	objtest.Run(t, func(t *testing.T) objstore.Bucket { return fault.Wrap(newMem(t), nil) })
}

func TestMeteredAndRetry(t *testing.T) {
	objtest.Run(t, func(t *testing.T) objstore.Bucket {
		b, err := metered.Wrap(newMem(t), noop.Meter{}, nil)
		must(t, b, err)
		b, err = retry.Wrap(b, retry.Options{})
		return must(t, b, err)
	})
}

func TestOpenDirURL(t *testing.T) {
	objtest.Run(t, func(t *testing.T) objstore.Bucket {
		b, err := open.Open(t.Context(), "dir://"+t.TempDir(), open.Options{})
		return must(t, b, err)
	})
}

func TestMinIO(t *testing.T)     { runOnServer(t, "minio") }
func TestVersitygw(t *testing.T) { runOnServer(t, "versitygw") }

// runOnServer gives every clause a prefix of its own, with metrics and retries as a broker has them.
func runOnServer(t *testing.T, kind string) {
	s := s3server.Start(t, kind)
	var n atomic.Int64
	objtest.Run(t, func(t *testing.T) objstore.Bucket {
		url := s.BucketURL("varve", fmt.Sprintf("clause/%d", n.Add(1)))
		b, err := open.Open(t.Context(), url, open.Options{AccessKey: s.AccessKey, SecretKey: s.SecretKey})
		return must(t, b, err)
	})
}
