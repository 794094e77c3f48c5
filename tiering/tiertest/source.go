package tiertest

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/record"
	"github.com/varvelog/varve/tiering"
)

// Log is one partition of a Source. Its batches stay for comparison after they were tiered.
type Log struct {
	State    *metadata.Partition
	Batches  []record.Batch
	LogStart base.Offset
	Sealed   []tiering.SealedRange // all that were ever sealed
	Tiered   base.Offset
	Refused  int // calls of Tiered that went back
}

// End is the offset after the last batch.
func (l *Log) End() base.Offset {
	if len(l.Batches) == 0 {
		return 0
	}
	return l.Batches[len(l.Batches)-1].NextOffset()
}

// Source is a hot store in memory that satisfies tiering.Source. It survives restarts of the Env, as a disk does.
type Source struct {
	// Plain makes Fill compress nothing: the pooled encoders of package record must not cross a synctest bubble.
	Plain bool

	c  chan struct{}
	mu struct {
		sync.Mutex
		logs map[base.LogID]*Log
	}
}

// NewSource returns an empty source.
func NewSource() *Source {
	s := &Source{c: make(chan struct{}, 1)}
	s.mu.logs = map[base.LogID]*Log{}
	return s
}

// Log returns a log; with state it is made first where it does not exist.
func (s *Source) Log(state *metadata.Partition) *Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.mu.logs[state.Log]
	if l == nil {
		l = &Log{State: state}
		s.mu.logs[state.Log] = l
	}
	return l
}

// Fill appends batches with about recordBytes per record, some compressed, with timestamps that mostly grow, and seals
// them as one range.
func (s *Source) Fill(l *Log, rnd *rand.Rand, batches, recordBytes int) {
	from := l.End()
	first := len(l.Batches)
	for range batches {
		l.Batches = append(l.Batches, s.newBatch(l.End(), rnd, recordBytes))
	}
	s.Seal(l, from, l.Batches[first:])
}

// Seal announces batches that were appended as a sealed range.
func (s *Source) Seal(l *Log, from base.Offset, batches []record.Batch) {
	r := tiering.SealedRange{Log: l.State.Log, TP: l.State.TP, TopicID: l.State.TopicID, Base: from, End: l.End(), MaxTimestamp: -1, LogStart: l.LogStart}
	for _, b := range batches {
		r.Bytes += int64(len(b))
		r.MaxTimestamp = max(r.MaxTimestamp, b.MaxTimestamp())
	}
	s.mu.Lock()
	l.Sealed = append(l.Sealed, r)
	s.mu.Unlock()
	select {
	case s.c <- struct{}{}:
	default:
	}
}

// NewBatch makes a batch at an offset with 1 to 20 records, some of them compressed.
func NewBatch(at base.Offset, rnd *rand.Rand, recordBytes int) record.Batch {
	return newBatch(at, rnd, recordBytes, []record.Codec{record.CodecNone, record.CodecNone, record.CodecZstd}[rnd.IntN(3)])
}

func (s *Source) newBatch(at base.Offset, rnd *rand.Rand, recordBytes int) record.Batch {
	if s.Plain {
		return newBatch(at, rnd, recordBytes, record.CodecNone)
	}
	return NewBatch(at, rnd, recordBytes)
}

func newBatch(at base.Offset, rnd *rand.Rand, recordBytes int, codec record.Codec) record.Batch {
	n := 1 + rnd.IntN(20)
	recs := make([]record.Record, n)
	for i := range recs {
		value := make([]byte, recordBytes)
		for j := range value {
			value[j] = byte(rnd.IntN(256))
		}
		ts := 1_700_000_000_000 + int64(at)*10 + int64(i)*10 + int64(rnd.IntN(400)) - 200
		recs[i] = record.Record{Offset: at + base.Offset(i), Timestamp: ts, Key: fmt.Appendf(nil, "k%d", rnd.IntN(50)), Value: value}
	}
	b, err := record.Build(record.BuildHeader{Codec: codec, ProducerID: base.NoProducerID, ProducerEpoch: -1, BaseSequence: -1}, recs)
	if err != nil {
		panic(err)
	}
	return b
}

// Lead makes all logs led under the epochs that the image says, and forgets what was tiered but not in a root: what a
// restarted broker knows.
func (s *Source) Lead(img *metadata.Image, roots map[base.LogID]metadata.Root) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, l := range s.mu.logs {
		if p, _, ok := img.Log(id); ok {
			l.State = p
			l.Tiered = roots[id].TieredEnd
			l.LogStart = max(l.LogStart, roots[id].Start)
		}
	}
}

// SetLogStart moves the log start of a log, as DeleteRecords does.
func (s *Source) SetLogStart(l *Log, start base.Offset) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.LogStart = start
}

// Sealed implements tiering.Source.
func (s *Source) Sealed(maxBytes int64) []tiering.SealedRange {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []tiering.SealedRange
	for _, l := range s.mu.logs {
		for _, r := range l.Sealed {
			if r.End > l.Tiered {
				r.LeaderEpoch, r.LogStart = l.State.LeaderEpoch, l.LogStart
				r.Epochs = []base.EpochStart{{Epoch: l.State.LeaderEpoch, Start: 0}}
				r.Producers = []byte("producers as of " + fmt.Sprint(r.End))
				out = append(out, r)
			}
		}
	}
	slices.SortFunc(out, func(a, b tiering.SealedRange) int {
		return cmp.Or(cmp.Compare(a.Base, b.Base), cmp.Compare(a.Log, b.Log))
	})
	var sum int64
	for i := range out {
		if sum += out[i].Bytes; sum > maxBytes && i > 0 {
			return out[:i]
		}
	}
	return out
}

// SealedC implements tiering.Source.
func (s *Source) SealedC() <-chan struct{} { return s.c }

// ReadSealed implements tiering.Source.
func (s *Source) ReadSealed(ctx context.Context, r tiering.SealedRange, emit func(record.Batch) error) error {
	s.mu.Lock()
	batches := s.mu.logs[r.Log].Batches
	s.mu.Unlock()
	for _, b := range batches {
		if b.BaseOffset() >= r.Base && b.NextOffset() <= r.End {
			if err := firstError(ctx.Err(), emit(b)); err != nil {
				return err
			}
		}
	}
	return nil
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// Tiered implements tiering.Source.
func (s *Source) Tiered(log base.LogID, epoch base.LeaderEpoch, end base.Offset) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.mu.logs[log]
	if end < l.Tiered || epoch > l.State.LeaderEpoch {
		l.Refused++
		return
	}
	l.Tiered = end
}
