package dir

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/varvelog/varve/objstore"
)

const (
	objectsDir   = "#"        // holds the objects of a level; escape never returns it
	uploadPrefix = ".upload-" // begins the name of an upload file; escape never returns a leading dot
	maxNameBytes = 255        // what file systems allow
)

// split returns the escaped directories of a key and the escaped file name in the last of them.
func split(key string) (dirs []string, name string, err error) {
	if err := objstore.CheckKey(key); err != nil {
		return nil, "", err
	}
	segs := strings.Split(key, "/")
	for i, s := range segs {
		segs[i] = escape(s)
		if len(segs[i]) > maxNameBytes {
			return nil, "", fmt.Errorf("key %q: segment %q is longer than %d bytes when escaped: %w", key, s, maxNameBytes, objstore.ErrInvalid)
		}
	}
	return segs[:len(segs)-1], segs[len(segs)-1], nil
}

// escape writes a segment as a file name: '#', '%' and a leading dot become %XX, all else stays.
func escape(seg string) string {
	var b strings.Builder
	for i := range len(seg) {
		if c := seg[i]; c == '#' || c == '%' || (c == '.' && i == 0) {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unescape is the inverse of escape; ok is false for a name that escape never returns, so a file that is not ours.
func unescape(name string) (seg string, ok bool) {
	seg, err := url.PathUnescape(name)
	return seg, err == nil && escape(seg) == name
}
