package dir

import (
	"bytes"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/objstore/objtest"
)

// TestSizesAroundDirectWrites puts and reads objects that end at, before and behind a direct write, on the machine's disk.
func TestSizesAroundDirectWrites(t *testing.T) {
	b, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	checkSizes(t, b)
}

// refusing is a disk whose direct writes fail, as on file systems that take the flag and not the write.
type refusing struct {
	vfs.FS
	refused int
}

type refusingFile struct {
	vfs.File
	fs    *refusing
	first bool
}

func (r *refusing) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := r.FS.Create(name, c)
	if err != nil {
		return nil, err
	}
	return &refusingFile{File: f, fs: r, first: true}, nil
}

func (f *refusingFile) Write(p []byte) (int, error) {
	if f.first && len(p) == directBytes {
		f.first = false
		f.fs.refused++
		return 0, syscall.EINVAL
	}
	return f.File.Write(p)
}

func TestDiskWithoutDirectWrites(t *testing.T) {
	disk := &refusing{FS: vfs.Default}
	b, err := Open(t.TempDir(), Options{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	f, err := vfs.Default.Create(t.TempDir()+"/probe", "test")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	checkSizes(t, b)
	if takes := setDirect(f, true); takes != (disk.refused > 0) {
		t.Errorf("%d direct writes were tried; the file system takes O_DIRECT: %v", disk.refused, takes)
	}
}

func checkSizes(t *testing.T, b *Bucket) {
	t.Helper()
	for i, size := range []int{directBytes - 1, directBytes, directBytes + 1, directBytes + directAlign, 3*directBytes + 4095} {
		data := objtest.Pattern(uint64(i), size)
		key := "o/" + string(rune('a'+i))
		if _, err := b.Put(t.Context(), key, objstore.BodyOf(data)); err != nil {
			t.Fatalf("put %d bytes: %v", size, err)
		}
		got, err := b.Get(t.Context(), key, 0, int64(size))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("get %d bytes: %d bytes, equal %v, error %v", size, len(got), bytes.Equal(got, data), err)
		}
	}
}
