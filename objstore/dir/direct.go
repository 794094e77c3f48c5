package dir

import (
	"errors"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	directBytes = 1 << 20 // at a time; smaller objects go through the page cache
	directAlign = 4096    // of offset, length and memory: what any disk of today asks at most
)

// uploadWriter writes a file from its start. Large objects pass the system's page cache by (O_DIRECT, open(2)) where the disk
// allows it: they are written once and seldom read soon, and the fresh pages that they would take cost more than the write.
type uploadWriter struct {
	f      vfs.File
	buf    []byte // what its user fills and writes, whole until the end of the object
	direct bool
}

func newUploadWriter(f vfs.File, size int64) *uploadWriter {
	w := &uploadWriter{f: f, buf: make([]byte, min(size, copyBytes))}
	if size >= directBytes {
		if buf := make([]byte, directBytes); aligned(buf) && setDirect(f, true) {
			w.buf, w.direct = buf, true
		}
	}
	return w
}

func (w *uploadWriter) write(p []byte) error {
	if len(p) < len(w.buf) { // the end of the object
		if err := w.plain(); err != nil {
			return err
		}
	}
	n, err := w.f.Write(p)
	if w.direct && errors.Is(err, syscall.EINVAL) { // the file system or the disk has no direct writes
		if err = w.plain(); err == nil {
			_, err = w.f.Write(p[n:])
		}
	}
	return err
}

// plain ends the direct writes.
func (w *uploadWriter) plain() error {
	if w.direct && !setDirect(w.f, false) {
		return errors.New("O_DIRECT cannot be switched off")
	}
	w.direct = false
	return nil
}
