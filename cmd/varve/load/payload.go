package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"time"
)

// The head of every value; the rest is payload. Big endian.
//
//	 0  magic "VRVL"
//	 4  CRC-32C of everything behind it
//	 8  run       one number per generator run: topics may hold several
//	16  sequence  of the record within run and partition, from 0, dense
//	24  sent      Unix nanoseconds
//	32  chain     CRC-32C of the previous record's chain and this record's head, so that a forged sequence shows too
//	36  payload
const (
	magic    = 0x5652564c
	HeadSize = 36 // HeadSize is the smallest record that can be checked, in bytes.
)

// Sequencer stamps the values of one (run, partition). Not safe for concurrent use.
type Sequencer struct {
	run   uint64
	next  uint64
	chain uint32
}

// NewSequencer starts at sequence 0.
func NewSequencer(run uint64) *Sequencer { return &Sequencer{run: run} }

// Stamp writes the head into value, whose payload is already in place.
func (s *Sequencer) Stamp(value []byte, sent time.Time) {
	binary.BigEndian.PutUint32(value[0:], magic)
	binary.BigEndian.PutUint64(value[8:], s.run)
	binary.BigEndian.PutUint64(value[16:], s.next)
	binary.BigEndian.PutUint64(value[24:], uint64(sent.UnixNano()))
	s.chain = chain(s.chain, value)
	binary.BigEndian.PutUint32(value[32:], s.chain)
	binary.BigEndian.PutUint32(value[4:], crc32.Checksum(value[8:], castagnoli()))
	s.next++
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // a pointer to the shared table

func chain(prev uint32, value []byte) uint32 { return crc32.Update(prev, castagnoli(), value[8:32]) }

// maxMissing bounds what a Checker remembers of one stream's gaps: sequences beyond it count as lost, and as duplicates
// when they turn up late.
const maxMissing = 1 << 16

// Checker reads what Sequencers wrote, in offset order per partition, of any number of runs. Not safe for concurrent use.
type Checker struct {
	streams map[streamKey]*stream
	Report  Integrity
}

type streamKey struct {
	partition int32
	run       uint64
}

type stream struct {
	next    uint64
	chain   uint32
	chained bool // the record before next was seen, in order
	missing map[uint64]struct{}
}

// Integrity counts what a Checker has seen. Anything but Records and Foreign above zero is a broken promise, with the
// exception of Duplicates where the producer was not idempotent.
type Integrity struct {
	Records    int64  `json:"records"`
	Lost       int64  `json:"lost"`
	Duplicates int64  `json:"duplicates"`
	Reordered  int64  `json:"reordered"`
	Damaged    int64  `json:"damaged"`
	Foreign    int64  `json:"foreign"` // not written by this generator
	First      string `json:"first,omitempty"`
}

// Err is nil where every record was there once, in order, unharmed.
func (i Integrity) Err() error {
	if i.Lost+i.Duplicates+i.Reordered+i.Damaged == 0 {
		return nil
	}
	return fmt.Errorf("integrity: %d lost, %d duplicated, %d reordered, %d damaged of %d records; first: %s",
		i.Lost, i.Duplicates, i.Reordered, i.Damaged, i.Records, i.First)
}

// NewChecker has seen nothing.
func NewChecker() *Checker { return &Checker{streams: map[streamKey]*stream{}} }

// Check takes the next record of a partition. It answers when the record was sent, or an error for one that carries no
// stamp or a damaged one.
func (c *Checker) Check(partition int32, offset int64, value []byte) (sent time.Time, err error) {
	c.Report.Records++
	if len(value) < HeadSize || binary.BigEndian.Uint32(value) != magic {
		c.Report.Foreign++
		return time.Time{}, errors.New("not a record of this generator")
	}
	if crc32.Checksum(value[8:], castagnoli()) != binary.BigEndian.Uint32(value[4:]) {
		c.fail(&c.Report.Damaged, "partition %d offset %d: checksum differs", partition, offset)
		return time.Time{}, errors.New("checksum differs")
	}
	key := streamKey{partition, binary.BigEndian.Uint64(value[8:])}
	s := c.streams[key]
	if s == nil {
		s = &stream{chained: true, missing: map[uint64]struct{}{}}
		c.streams[key] = s
	}
	c.place(s, partition, offset, value)
	return time.Unix(0, int64(binary.BigEndian.Uint64(value[24:]))), nil
}

// place compares the record's sequence with the one expected.
func (c *Checker) place(s *stream, partition int32, offset int64, value []byte) {
	seq := binary.BigEndian.Uint64(value[16:])
	told := binary.BigEndian.Uint32(value[32:])
	switch {
	case seq == s.next:
		if s.chained && chain(s.chain, value) != told {
			c.fail(&c.Report.Damaged, "partition %d offset %d: sequence %d does not follow from the record before it", partition, offset, seq)
		}
	case seq > s.next:
		c.fail(&c.Report.Lost, "partition %d offset %d: sequence %d where %d was due", partition, offset, seq, s.next)
		c.Report.Lost += int64(seq-s.next) - 1
		for q := s.next; q < seq && len(s.missing) < maxMissing; q++ {
			s.missing[q] = struct{}{}
		}
	default:
		if _, late := s.missing[seq]; late {
			delete(s.missing, seq)
			c.Report.Lost--
			c.fail(&c.Report.Reordered, "partition %d offset %d: sequence %d came late", partition, offset, seq)
		} else {
			c.fail(&c.Report.Duplicates, "partition %d offset %d: sequence %d came again", partition, offset, seq)
		}
		return
	}
	s.next, s.chain, s.chained = seq+1, told, true
}

func (c *Checker) fail(count *int64, format string, args ...any) {
	*count++
	if c.Report.First == "" {
		c.Report.First = fmt.Sprintf(format, args...)
	}
}

// Expect adds what is missing at the end: each partition should hold sequences up to want[partition] of run.
func (c *Checker) Expect(run uint64, want map[int32]int64) {
	for partition, n := range want {
		var got int64
		if s := c.streams[streamKey{partition, run}]; s != nil {
			got = int64(s.next)
		}
		if got < n {
			c.fail(&c.Report.Lost, "partition %d: ends at sequence %d instead of %d", partition, got, n)
			c.Report.Lost += n - got - 1
		}
	}
}

// payloads hands out record values: random bytes of which a share repeats, so that compression has about as much to do as
// with real text. A chunk is allocated at a time, since a value lives until it is acknowledged.
type payloads struct {
	size   int
	pool   []byte
	chunk  []byte
	random *rand.Rand
}

const (
	poolBytes  = 1 << 20
	chunkBytes = 256 << 10
)

func newPayloads(size int, seed uint64) *payloads {
	p := &payloads{size: size, pool: make([]byte, poolBytes+size), random: rand.New(rand.NewPCG(seed, 1))}
	for i := 0; i < len(p.pool); i += 16 { // 8 random bytes, 8 of a small alphabet: compresses to about 0.7
		var block [16]byte
		binary.LittleEndian.PutUint64(block[:], p.random.Uint64())
		for j := 8; j < 16; j++ {
			block[j] = "etaoin s"[p.random.IntN(8)]
		}
		copy(p.pool[i:], block[:])
	}
	return p
}

// next is a fresh value with room for the head in front.
func (p *payloads) next() []byte {
	if len(p.chunk) < p.size {
		p.chunk = make([]byte, max(chunkBytes, p.size))
	}
	v := p.chunk[:p.size:p.size]
	p.chunk = p.chunk[p.size:]
	copy(v[HeadSize:], p.pool[p.random.IntN(poolBytes):])
	return v
}
