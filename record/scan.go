package record

import (
	"encoding/binary"
	"errors"
	"io"
)

// What can be wrong with the bytes of a record. Prepare turns all of them into INVALID_RECORD, readers into corruption.
var (
	errTruncated   = errors.New("records end before their declared count")
	errSize        = errors.New("record size does not match its fields")
	errHeaderCount = errors.New("invalid number of record headers")
	errHeaderKey   = errors.New("record header with a null key")
	errTrailing    = errors.New("bytes remain after the last record")
)

// maxEmptyReads bounds how often a decompressor may yield nothing in a row.
const maxEmptyReads = 100

// fields is one record as the scanner sees it: positions, nothing built.
type fields struct {
	tsDelta     int64
	offsetDelta int32
	keyLen      int32  // -1 for null
	valueLen    int32  // -1 for null
	key, value  []byte // nil where null, and where the record is larger than a streaming scanner's window
	headers     []byte // the encoded headers; as key
	headerCount int32
}

// scanner walks the encoded records of a batch: either a byte slice in place (src is nil), or the output of a
// decompressor through a window of bounded size. It allocates nothing.
type scanner struct {
	buf    []byte // unread bytes are buf[r:]
	r      int
	src    io.Reader
	left   int   // how many more bytes src may yield
	srcErr error // what ended src; io.EOF for a regular end
}

// next parses one record into f and moves past it. Its error is one of the above, or srcErr where that is not io.EOF.
func (s *scanner) next(f *fields) error {
	size, n := varint32(s.buf, s.r)
	if n < 0 {
		s.fill(binary.MaxVarintLen32)
		if size, n = varint32(s.buf, s.r); n < 0 {
			return s.ended(errTruncated)
		}
	}
	s.r = n
	if size < 0 {
		return errSize
	}
	if int(size) > len(s.buf)-s.r && !s.fill(int(size)) {
		if s.src != nil && int(size) > cap(s.buf) && s.srcErr == nil {
			return s.nextLarge(int(size), f)
		}
		return s.ended(errTruncated)
	}
	rec := s.buf[s.r : s.r+int(size)]
	s.r += int(size)
	return parse(rec, f)
}

// ended picks the reason for missing bytes: a decompressor's failure where there is one, else the given one.
func (s *scanner) ended(err error) error {
	if s.srcErr != nil && !errors.Is(s.srcErr, io.EOF) {
		return s.srcErr
	}
	return err
}

// finish reports bytes behind the last record, and reads a decompressor to its end so that its own check sum is seen.
func (s *scanner) finish() error {
	if s.r < len(s.buf) || s.fill(1) {
		return errTrailing
	}
	return s.ended(nil)
}

// fill makes n unread bytes available where it can. Only a streaming scanner can, up to the size of its window.
func (s *scanner) fill(n int) bool {
	if s.src == nil || n > cap(s.buf) {
		return len(s.buf)-s.r >= n
	}
	if s.r > 0 {
		s.buf = s.buf[:copy(s.buf, s.buf[s.r:])]
		s.r = 0
	}
	for len(s.buf) < n {
		if s.srcErr != nil {
			return false
		}
		s.read()
	}
	return true
}

// read appends what src yields next to the window, which must have room.
func (s *scanner) read() {
	var n int
	var err error
	for tries := 0; n == 0 && err == nil && tries < maxEmptyReads; tries++ {
		n, err = s.src.Read(s.buf[len(s.buf):cap(s.buf)])
	}
	s.buf = s.buf[:len(s.buf)+n]
	s.left -= n
	switch {
	case s.left < 0:
		s.srcErr = errInflated
	case err != nil:
		s.srcErr = err
	case n == 0:
		s.srcErr = io.ErrNoProgress
	}
}

// skip moves past n bytes, of which the window may hold only some.
func (s *scanner) skip(n int) bool {
	for n > len(s.buf)-s.r {
		n -= len(s.buf) - s.r
		s.buf, s.r = s.buf[:0], 0
		if s.srcErr != nil {
			return false
		}
		s.read()
	}
	s.r += n
	return true
}

// nextLarge parses a record of size bytes that does not fit the window: keys, values and headers are skipped unseen.
func (s *scanner) nextLarge(size int, f *fields) error {
	l := largeRecord{s: s, left: size}
	l.skip(1) // attributes, unused
	*f = fields{tsDelta: l.varint64(), offsetDelta: l.varint32()}
	f.keyLen = max(l.varint32(), -1)
	l.skip(max(f.keyLen, 0))
	f.valueLen = max(l.varint32(), -1)
	l.skip(max(f.valueLen, 0))
	f.headerCount = l.varint32()
	if l.state == largeWhole && (f.headerCount < 0 || int(f.headerCount) > l.left) {
		return errHeaderCount
	}
	for i := int32(0); i < f.headerCount && l.state == largeWhole; i++ {
		key := l.varint32()
		if key < 0 {
			return errHeaderKey
		}
		l.skip(key)
		l.skip(max(l.varint32(), 0))
	}
	switch {
	case l.state == largeCut:
		return s.ended(errTruncated)
	case l.state == largeWrong || l.left != 0:
		return errSize
	}
	return nil
}

// largeRecord reads the fields of one record through a scanner's window, never past its end. The first failure sticks and
// later reads give 0. NB: it holds no error, or escape analysis would move every scanner to the heap.
type largeRecord struct {
	s     *scanner
	left  int
	state largeState
}

type largeState uint8

const (
	largeWhole largeState = iota // so far
	largeWrong                   // its fields do not fit its size
	largeCut                     // the source ended first
)

func (l *largeRecord) skip(n int32) {
	switch {
	case l.state != largeWhole:
	case int(n) > l.left:
		l.state = largeWrong
	case !l.s.skip(int(n)):
		l.state = largeCut
	default:
		l.left -= int(n)
	}
}

func (l *largeRecord) varint32() int32 {
	if l.state != largeWhole {
		return 0
	}
	l.s.fill(min(binary.MaxVarintLen32, l.left))
	v, n := varint32(l.s.buf, l.s.r)
	if !l.took(n) {
		return 0
	}
	return v
}

func (l *largeRecord) varint64() int64 {
	if l.state != largeWhole {
		return 0
	}
	l.s.fill(min(binary.MaxVarintLen64, l.left))
	v, n := varint64(l.s.buf, l.s.r)
	if !l.took(n) {
		return 0
	}
	return v
}

// took moves to position n of the window, which is -1 where no number stands there.
func (l *largeRecord) took(n int) bool {
	switch used := n - l.s.r; {
	case n < 0 && l.s.srcErr != nil:
		l.state = largeCut
	case n < 0 || used > l.left:
		l.state = largeWrong
	default:
		l.left -= used
		l.s.r = n
	}
	return l.state == largeWhole
}

// parse takes one record apart; rec is exactly its body. As in Kafka's DefaultRecord.readFrom, any negative length of a
// key or value is a null, and all bytes must be used.
func parse(rec []byte, f *fields) error {
	if len(rec) == 0 {
		return errSize
	}
	i := 1 // attributes, unused
	f.tsDelta, i = varint64(rec, i)
	f.offsetDelta, i = varint32(rec, i)
	f.keyLen, i = varint32(rec, i)
	f.key = nil
	if i < 0 || int(f.keyLen) > len(rec)-i {
		return errSize
	}
	if f.keyLen >= 0 {
		f.key = rec[i : i+int(f.keyLen) : i+int(f.keyLen)]
		i += int(f.keyLen)
	} else {
		f.keyLen = -1
	}
	f.valueLen, i = varint32(rec, i)
	f.value = nil
	if i < 0 || int(f.valueLen) > len(rec)-i {
		return errSize
	}
	if f.valueLen >= 0 {
		f.value = rec[i : i+int(f.valueLen) : i+int(f.valueLen)]
		i += int(f.valueLen)
	} else {
		f.valueLen = -1
	}
	f.headerCount, i = varint32(rec, i)
	if i < 0 {
		return errSize
	}
	f.headers = rec[i:]
	if f.headerCount == 0 {
		if i != len(rec) {
			return errSize
		}
		return nil
	}
	return skipHeaders(f.headers, f.headerCount)
}

// skipHeaders checks that count headers fill b exactly.
func skipHeaders(b []byte, count int32) error {
	if count < 0 || int(count) > len(b) {
		return errHeaderCount
	}
	i := 0
	for range count {
		var n int32
		if n, i = varint32(b, i); i < 0 || int(n) > len(b)-i {
			return errSize
		}
		if n < 0 {
			return errHeaderKey
		}
		i += int(n)
		if n, i = varint32(b, i); i < 0 || int(n) > len(b)-i {
			return errSize
		}
		i += int(max(n, 0))
	}
	if i != len(b) {
		return errSize
	}
	return nil
}

// varint32 reads a zigzag number of at most 5 bytes at b[i:] and returns the position behind it, or -1 where there is none
// (also where i is -1 already, so that one check serves several reads).
func varint32(b []byte, i int) (int32, int) {
	if uint(i) < uint(len(b)) && b[i] < 0x80 {
		return int32(b[i]>>1) ^ -int32(b[i]&1), i + 1
	}
	return varint32Slow(b, i)
}

func varint32Slow(b []byte, i int) (int32, int) {
	if i < 0 {
		return 0, -1
	}
	var v uint32
	for shift := 0; shift <= 28 && i < len(b); shift += 7 {
		c := b[i]
		i++
		v |= uint32(c&0x7f) << shift
		if c < 0x80 {
			return int32(v>>1) ^ -int32(v&1), i
		}
	}
	return 0, -1
}

// varint64 is varint32 for at most 10 bytes.
func varint64(b []byte, i int) (int64, int) {
	if uint(i) < uint(len(b)) && b[i] < 0x80 {
		return int64(b[i]>>1) ^ -int64(b[i]&1), i + 1
	}
	return varint64Slow(b, i)
}

func varint64Slow(b []byte, i int) (int64, int) {
	if i < 0 {
		return 0, -1
	}
	var v uint64
	for shift := 0; shift <= 63 && i < len(b); shift += 7 {
		c := b[i]
		i++
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return int64(v>>1) ^ -int64(v&1), i
		}
	}
	return 0, -1
}
