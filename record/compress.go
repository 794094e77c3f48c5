package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Limits of decompression. Together with Policy.MaxInflatedBytes they bound what a hostile batch costs.
const (
	defaultMaxInflated = 100 << 20 // bytes of a decompressed batch, where Policy does not say
	windowSize         = 64 << 10  // bytes of a streaming scanner's buffer
	wholeSize          = 1 << 20   // a zstd batch below this is decoded at once, without zstd's window
	wholeSource        = 256 << 10 // compressed bytes above which a zstd batch is streamed from the start
	pooledSize         = 8 << 20   // a zstd window or snappy buffer above this is left to the garbage collector

	// maxZstdWindow is what the reference decoder allows by default (windowLog 27), and Java's level 22 asks for.
	maxZstdWindow = 128 << 20
	// maxSnappyRatio: the densest element of snappy makes 64 bytes of 3.
	maxSnappyRatio = 22

	xerialBlock = 32 << 10 // bytes of a block that Java's SnappyOutputStream makes
)

// errInflated: a batch decompresses to more than the policy's bound.
var errInflated = errors.New("decompressed records exceed the bound")

// xerialMagic opens the framing that Java's snappy library puts around blocks; two int32 versions follow.
var xerialMagic = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

const xerialHeader = 16

// The pools below, and the gate, are the package's only variables that change. They hold idle (de)compressors and carry no state from
// one use to the next; Prepare and Each have no receiver that could own them.
var (
	inflaters    [CodecZstd + 1]sync.Pool
	gzipWriters  [gzip.BestCompression + 2]sync.Pool // by level; the last is the default
	lz4Writers   [10]sync.Pool                       // by level; 0 is the fast one
	zstdEncoders [zstd.SpeedBestCompression + 1]sync.Pool
)

// inflater is a pooled decompressor of one codec with the buffers that it decodes into.
type inflater struct {
	codec  Codec
	src    bytes.Reader
	gzip   *gzip.Reader
	lz4    *lz4.Reader
	zstd   *zstd.Decoder // streaming
	small  *zstd.Decoder // of whole batches, up to the capacity given
	snappy snappyReader
	window []byte // of a streaming scanner
	whole  []byte // of a batch decoded at once
	large  bool   // holds a big zstd window: not to be pooled
}

// inflate returns a scanner over the decompressed payload of a batch and the inflater that it reads from, which must be
// closed after the last use of the scanner. No more than limit bytes come out of it. The caller's place in the gate becomes that
// of a large batch where the codec's window asks for it.
func inflate(h *hold, c Codec, payload []byte, limit int) (scanner, *inflater, error) {
	if limit <= 0 {
		limit = defaultMaxInflated
	}
	if c <= CodecNone || c > CodecZstd {
		return scanner{}, nil, fmt.Errorf("unknown codec %d", c)
	}
	inf, _ := inflaters[c].Get().(*inflater)
	if inf == nil {
		inf = &inflater{codec: c}
	}
	if c == CodecZstd && len(payload) <= wholeSource {
		records, err := inf.decodeWhole(payload, limit)
		if err == nil {
			return scanner{buf: records}, inf, nil
		}
		// Only size asks for a stream: a broken batch that claims a window of 128 MiB must not get one.
		if !errors.Is(err, zstd.ErrDecoderSizeExceeded) {
			inf.close()
			return scanner{}, nil, err
		}
	}
	src, err := inf.open(h, payload, limit)
	if err != nil {
		inf.close()
		return scanner{}, nil, err
	}
	if inf.window == nil {
		inf.window = make([]byte, 0, windowSize)
	}
	return scanner{buf: inf.window[:0], src: src, left: limit}, inf, nil
}

// close returns the inflater to its pool.
func (inf *inflater) close() {
	inf.src.Reset(nil)
	inf.snappy.reset(nil, 0)
	if cap(inf.snappy.block) > pooledSize {
		inf.snappy.block = nil
	}
	if inf.large {
		return
	}
	inflaters[inf.codec].Put(inf)
}

// open starts the codec's stream on the payload.
func (inf *inflater) open(h *hold, payload []byte, limit int) (io.Reader, error) {
	inf.src.Reset(payload)
	switch inf.codec {
	case CodecGzip:
		if inf.gzip == nil {
			inf.gzip = new(gzip.Reader)
		}
		return inf.gzip, inf.gzip.Reset(&inf.src)
	case CodecSnappy:
		inf.snappy.reset(payload, limit)
		return &inf.snappy, nil
	case CodecLZ4:
		if inf.lz4 == nil {
			inf.lz4 = lz4.NewReader(nil)
		}
		inf.lz4.Reset(&inf.src)
		return inf.lz4, nil
	}
	return inf.openZstd(h, payload, limit)
}

// openZstd starts a streaming decoder, whose memory is the window that the frame declares.
func (inf *inflater) openZstd(h *hold, payload []byte, limit int) (io.Reader, error) {
	var frame zstd.Header
	if err := frame.Decode(payload); err == nil {
		if frame.SingleSegment && frame.FrameContentSize > uint64(limit) {
			return nil, errInflated
		}
		inf.large = max(frame.WindowSize, frame.FrameContentSize) > pooledSize
	}
	if inf.large {
		h.enlarge()
	}
	if inf.zstd == nil {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecodeBuffersBelow(0))
		if err != nil {
			return nil, err
		}
		inf.zstd = d
	}
	return inf.zstd, inf.zstd.Reset(&inf.src)
}

// decodeWhole decodes a batch that seems small at once, which is faster than streaming and needs no window. It fails with
// zstd.ErrDecoderSizeExceeded where the batch is not small after all.
func (inf *inflater) decodeWhole(payload []byte, limit int) ([]byte, error) {
	if inf.small == nil {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			return nil, err
		}
		inf.small = d
	}
	if inf.whole == nil {
		inf.whole = make([]byte, 0, wholeSize)
	}
	return inf.small.DecodeAll(payload, inf.whole[:0:min(limit, cap(inf.whole))])
}

// snappyReader decodes Java's xerial framing block by block, or a single bare block as librdkafka and franz-go write it.
type snappyReader struct {
	src    []byte
	left   int // bytes that may still come out
	framed bool
	block  []byte // decoded, of which out is unread
	out    []byte
}

func (r *snappyReader) reset(src []byte, limit int) {
	r.src, r.left, r.out = src, limit, nil
	r.framed = bytes.HasPrefix(src, xerialMagic) && len(src) >= xerialHeader
	if r.framed {
		r.src = src[xerialHeader:]
	}
}

// Read implements io.Reader.
func (r *snappyReader) Read(p []byte) (int, error) {
	for len(r.out) == 0 {
		if len(r.src) == 0 {
			return 0, io.EOF
		}
		if err := r.nextBlock(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	return n, nil
}

// nextBlock decodes one block. A declared size is believed only as far as the bytes that are there can expand.
func (r *snappyReader) nextBlock() error {
	block := r.src
	r.src = nil
	if r.framed {
		if bytes.HasPrefix(block, xerialMagic) && len(block) >= xerialHeader { // streams may be concatenated
			block = block[xerialHeader:]
		}
		if len(block) < 4 {
			return io.ErrUnexpectedEOF
		}
		n := int(int32(binary.BigEndian.Uint32(block)))
		block = block[4:]
		if n < 0 || n > len(block) {
			return io.ErrUnexpectedEOF
		}
		block, r.src = block[:n], block[n:]
	}
	size, err := snappy.DecodedLen(block)
	if err != nil {
		return err
	}
	if size > maxSnappyRatio*len(block) {
		return snappy.ErrCorrupt
	}
	if r.left -= size; r.left < 0 {
		return errInflated
	}
	if cap(r.block) < size {
		r.block = make([]byte, max(size, xerialBlock))
	}
	r.out, err = snappy.Decode(r.block[:cap(r.block)], block)
	return err
}

// inflateAll decompresses a batch's payload into memory of its own, bounded by limit: first as a usual batch, and where that is not
// enough, as a large one.
func inflateAll(h *hold, c Codec, payload []byte, limit int) ([]byte, error) {
	if limit <= 0 {
		limit = defaultMaxInflated
	}
	records, err := inflateWithin(h, c, payload, min(limit, pooledSize))
	if limit > pooledSize && errors.Is(err, errInflated) {
		h.enlarge()
		return inflateWithin(h, c, payload, limit)
	}
	return records, err
}

func inflateWithin(h *hold, c Codec, payload []byte, limit int) ([]byte, error) {
	s, inf, err := inflate(h, c, payload, limit)
	if err != nil {
		return nil, err
	}
	defer inf.close()
	if s.src == nil {
		return bytes.Clone(s.buf), nil
	}
	s.buf = make([]byte, 0, max(4*len(payload), 512))
	for s.srcErr == nil {
		if len(s.buf) == cap(s.buf) {
			s.buf = append(s.buf, 0)[:len(s.buf)]
		}
		s.read()
	}
	return s.buf, s.ended(nil)
}

// compress appends src, compressed, to dst. Level 0 is the codec's default; levels are Kafka's: gzip 1 to 9, lz4 1 to 17
// (9 being the default), zstd up to 22.
func compress(dst []byte, c Codec, level int, src []byte) ([]byte, error) {
	switch c {
	case CodecNone:
		return append(dst, src...), nil
	case CodecGzip:
		return compressGzip(dst, level, src)
	case CodecSnappy:
		return compressXerial(dst, src), nil
	case CodecLZ4:
		return compressLZ4(dst, level, src)
	case CodecZstd:
		return compressZstd(dst, level, src)
	}
	return nil, fmt.Errorf("unknown codec %d", c)
}

func compressGzip(dst []byte, level int, src []byte) ([]byte, error) {
	if level <= 0 || level > gzip.BestCompression {
		level = gzip.DefaultCompression
	}
	pool := &gzipWriters[(level+len(gzipWriters))%len(gzipWriters)]
	out := bytes.NewBuffer(dst)
	w, _ := pool.Get().(*gzip.Writer)
	if w == nil {
		var err error
		if w, err = gzip.NewWriterLevel(out, level); err != nil {
			return nil, err
		}
	}
	w.Reset(out)
	return finish(w, out, src, func() { w.Reset(nil); pool.Put(w) })
}

// compressLZ4 writes what Java's reader takes: independent blocks of 64 KiB, no content check sum.
func compressLZ4(dst []byte, level int, src []byte) ([]byte, error) {
	if level < 0 || level == 9 { // Kafka's default level 9 is Java's fast compressor
		level = 0
	}
	level = min(level, len(lz4Writers)-1)
	out := bytes.NewBuffer(dst)
	w, _ := lz4Writers[level].Get().(*lz4.Writer)
	if w == nil {
		w = lz4.NewWriter(out)
		speed := lz4.Fast
		if level > 0 {
			speed = lz4.CompressionLevel(1 << (8 + level))
		}
		if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false), lz4.ConcurrencyOption(1),
			lz4.CompressionLevelOption(speed)); err != nil {
			return nil, err
		}
	}
	w.Reset(out)
	return finish(w, out, src, func() { w.Reset(nil); lz4Writers[level].Put(w) })
}

// finish writes all of src and closes w; release runs where that worked.
func finish(w io.WriteCloser, out *bytes.Buffer, src []byte, release func()) ([]byte, error) {
	if _, err := w.Write(src); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	release()
	return out.Bytes(), nil
}

func compressZstd(dst []byte, level int, src []byte) ([]byte, error) {
	speed := zstd.SpeedDefault
	if level != 0 {
		speed = zstd.EncoderLevelFromZstd(level)
	}
	e, _ := zstdEncoders[speed].Get().(*zstd.Encoder)
	if e == nil {
		var err error
		if e, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(speed), zstd.WithZeroFrames(true)); err != nil {
			return nil, err
		}
	}
	dst = e.EncodeAll(src, dst)
	zstdEncoders[speed].Put(e)
	return dst, nil
}

// compressXerial writes the framing of Java's SnappyOutputStream, which every client reads; a bare block would not do,
// because Java expects the frame.
func compressXerial(dst, src []byte) []byte {
	dst = append(dst, xerialMagic...)
	dst = binary.BigEndian.AppendUint32(dst, 1) // version
	dst = binary.BigEndian.AppendUint32(dst, 1) // the oldest version that can read it
	scratch := make([]byte, s2.MaxEncodedLen(min(len(src), xerialBlock)))
	for len(src) > 0 {
		n := min(len(src), xerialBlock)
		block := s2.EncodeSnappy(scratch, src[:n])
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(block)))
		dst = append(dst, block...)
		src = src[n:]
	}
	return dst
}
