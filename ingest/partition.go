package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/ingest/replica"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/invariants"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/record"
)

// Partition is one log of this broker. It is created by recovery or by the first request after its creation, led until the
// image says otherwise, and dropped with its topic.
type Partition struct {
	g   *Ingest
	log base.LogID
	cfg atomic.Pointer[metadata.TopicConfig]

	// order is held by whoever appends, from giving offsets to Pebble's Apply (which may wait for a full disk), and by whoever
	// writes an 'm' row: that row must not enter the WAL before the batches that it describes. Readers never take it.
	order sync.Mutex

	mu struct {
		sync.Mutex
		tp      base.TopicPartition
		topicID base.TopicID
		epoch   base.LeaderEpoch // that this broker leads under; where it follows, the last one in the log
		// leader is not nil while this broker leads the partition, state its key as the leader knows it.
		leader *replica.Leader
		state  metadata.Partition
		rev    int64 // of the key as an image showed it last: older images come too late
		// awaiting are the appends that wait for the high watermark.
		awaiting map[replica.Token]answer
		tokens   replica.Token
		feeds    map[*Feed]struct{} // of followers
		// cuts counts what made the log end earlier: an append that was ordered before is void.
		cuts int
		// following is the epoch of the leader that the partition takes its batches from.
		following base.LeaderEpoch
		// err is nil while this broker leads the partition; what requests are answered otherwise.
		err error
		// damaged keeps the partition out of service until the process is started again, whatever the image says (I14).
		damaged bool

		// logStart <= hotStart' <= tieredEnd <= highWater <= durable <= end, where hotStart may lie anywhere up to tieredEnd (I5). On a
		// follower the tiered end may lie anywhere: it may be behind, or on a line that lost (safeLocked).
		logStart  base.Offset
		rootStart base.Offset // log start offset as of a committed manifest: a leader's is no earlier once the high watermark is there
		hotStart  base.Offset // first offset in Pebble
		tieredEnd base.Offset // everything below is named by a committed manifest
		highWater base.Offset // everything below is durable where it counts and visible (I3)
		durable   base.Offset // everything below is on this broker's stable storage
		end       base.Offset // the next offset

		epochs    []base.EpochStart
		producers producerTable
		sealed    []hot.Sealed // closed ranges that are still hot, ascending
		active    openRange    // [active.base, end)
		index     []hot.IndexEntry
		bytes     int64 // of the log since it was created
		maxTs     int64 // largest record timestamp since hotStart was set up
		tail      batchQueue
		waiters   map[*Waiter]struct{}
		lowMoved  chan struct{} // closed when the low watermark may have moved; nil while nobody waits for it
		unsaved   bool          // the 'm' row is older than the state
		stored    bool          // there is an 'm' row
		stale     bool          // rows below hotStart are older than the bucket: they go with the next 'm' row
		dropped   bool          // the topic is gone, and every row with it: write none
		former    bool          // the rows from its last stay on this broker are still to be deleted: write none until then
	}
}

// openRange is the range that appends go to.
type openRange struct {
	base       base.Offset
	bytes      int64
	maxTs      int64 // largest record timestamp, -1 where there is none
	firstTs    int64 // max timestamp of the first batch: segment.ms counts from it, as Kafka's does
	openedAtMs int64 // wall clock of the first append: varve.tiering.max.lag.ms counts from it
}

// newPartition returns a log without hot data: new, or known only by its manifest root.
func newPartition(g *Ingest, id base.LogID, root metadata.Root) *Partition {
	p := &Partition{g: g, log: id}
	m := &p.mu
	m.err = kerr.NotLeaderForPartition
	m.logStart, m.rootStart, m.tieredEnd = root.Start, root.Start, root.TieredEnd
	m.hotStart, m.highWater, m.durable, m.end = m.tieredEnd, m.tieredEnd, m.tieredEnd, m.tieredEnd
	m.active = openRange{base: m.end, maxTs: -1}
	m.maxTs = -1
	m.producers = producerTable{}
	m.epoch = base.NoLeaderEpoch
	m.waiters = map[*Waiter]struct{}{}
	m.awaiting, m.feeds = map[replica.Token]answer{}, map[*Feed]struct{}{}
	m.unsaved = true
	return p
}

// knows reports whether a later revision of the partition's key was seen: an image comes too late.
func (p *Partition) knows(rev int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return rev < p.mu.rev
}

// beginEmpty makes a log that nothing is stored of begin at offset 0: its leader says where it starts over.
func (p *Partition) beginEmpty() {
	m := &p.mu
	m.hotStart, m.highWater, m.durable, m.end = 0, 0, 0, 0
	m.active = openRange{maxTs: -1}
}

// stop makes every request and every waiter answer err.
func (p *Partition) stop(err error) {
	p.mu.Lock()
	if !p.mu.damaged {
		p.mu.err = err
	}
	answers := p.resignLocked(err)
	p.wakeLocked()
	p.mu.Unlock()
	p.g.settle(answers)
}

// damage takes the partition out of service.
func (p *Partition) damage(err error) {
	p.mu.Lock()
	p.g.log.Error("partition is out of service", slog.String("partition", p.mu.tp.String()), slog.String("log", p.log.String()), slog.Any("err", err))
	p.mu.damaged, p.mu.err = true, kerr.KafkaStorageError
	answers := p.resignLocked(kerr.KafkaStorageError)
	p.wakeLocked()
	if p.mu.rev > 0 {
		p.g.repairs.push(p.log, p.mu.tp)
	}
	p.mu.Unlock()
	p.g.settle(answers)
}

// errLocked is what a request to the partition is answered, nil where it may go on.
func (p *Partition) errLocked() error {
	if p.mu.err == nil {
		return nil
	}
	return p.wrap(p.mu.err)
}

// errFormer is what a write gets for a moment where the partition has come back to this broker: try again.
var errFormer = fmt.Errorf("its rows of before are still to be deleted: %w", kerr.NotLeaderForPartition)

func (p *Partition) wrap(err error) error { return fmt.Errorf("partition %s: %w", p.mu.tp, err) }

// CheckEpoch compares a client's idea of the leader epoch (KIP-320); current < 0 is no idea.
func (p *Partition) CheckEpoch(current base.LeaderEpoch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.mu.err != nil:
		return p.errLocked()
	case current < 0 || current == p.mu.epoch:
		return nil
	case current < p.mu.epoch:
		return fmt.Errorf("partition %s: epoch %d, current %d: %w", p.mu.tp, current, p.mu.epoch, kerr.FencedLeaderEpoch)
	default:
		return fmt.Errorf("partition %s: epoch %d, current %d: %w", p.mu.tp, current, p.mu.epoch, kerr.UnknownLeaderEpoch)
	}
}

// Log is the partition's log id.
func (p *Partition) Log() base.LogID { return p.log }

// Config is the topic's effective configuration.
func (p *Partition) Config() *metadata.TopicConfig { return p.cfg.Load() }

// Status is what describe commands show of a partition; offsets are exclusive ends or inclusive starts, bytes are hot ones.
type Status struct {
	LeaderEpoch                                                      base.LeaderEpoch
	LogStart, HotStart, TieredEnd, LastStable, HighWatermark, LogEnd base.Offset
	HotBytes, UntieredBytes                                          int64
}

// Status answers from memory.
func (p *Partition) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := &p.mu
	return Status{
		LeaderEpoch: m.epoch, LogStart: m.logStart, HotStart: max(m.hotStart, m.logStart), TieredEnd: m.tieredEnd,
		LastStable: m.highWater, HighWatermark: m.highWater, LogEnd: m.end,
		HotBytes: p.hotBytesLocked(), UntieredBytes: p.untieredLocked(),
	}
}

// Status answers for a partition by name. Errors as Partition's.
func (g *Ingest) Status(tp base.TopicPartition) (Status, error) {
	p, err := g.Partition(tp)
	if err != nil {
		return Status{}, err
	}
	return p.Status(), nil
}

// Producers is how many idempotent producers the partition remembers.
func (p *Partition) Producers() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.mu.producers)
}

func (p *Partition) hotBytesLocked() int64 {
	n := p.mu.active.bytes
	for i := range p.mu.sealed {
		n += p.mu.sealed[i].Bytes
	}
	return n
}

func (p *Partition) untieredLocked() int64 {
	n := p.mu.active.bytes
	for i := len(p.mu.sealed) - 1; i >= 0 && p.mu.sealed[i].End > p.mu.tieredEnd; i-- {
		n += p.mu.sealed[i].Bytes
	}
	return n
}

// committedLocked moves the high watermark to end.
func (p *Partition) committedLocked(end base.Offset) {
	if end <= p.mu.highWater {
		return
	}
	invariants.Assert(end <= p.mu.end, "%s: high watermark %d past the log end %d", p.mu.tp, end, p.mu.end)
	p.mu.highWater = end
	p.wakeLocked()
}

// Waiter is woken when one of the partitions that it was added to moves its high watermark or stops being led.
type Waiter struct{ C chan struct{} }

// NewWaiter returns a waiter that belongs to one goroutine.
func NewWaiter() *Waiter { return &Waiter{C: make(chan struct{}, 1)} }

// Watch adds the waiter; Unwatch must follow.
func (p *Partition) Watch(w *Waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.waiters[w] = struct{}{}
}

// Unwatch removes the waiter.
func (p *Partition) Unwatch(w *Waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.mu.waiters, w)
}

func (p *Partition) wakeLocked() {
	for w := range p.mu.waiters {
		select {
		case w.C <- struct{}{}:
		default:
		}
	}
}

// EpochEnd answers OffsetForLeaderEpoch (KIP-101, KIP-279): the largest epoch <= epoch and where it ended; -1, -1 where
// the epoch is unknown.
func (p *Partition) EpochEnd(epoch base.LeaderEpoch) (base.LeaderEpoch, base.Offset) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return replica.EpochEnd(p.mu.epochs, p.mu.epoch, p.mu.end, epoch)
}

// EpochAt is the leader epoch under which the record at off was written, -1 where unknown.
func (p *Partition) EpochAt(off base.Offset) base.LeaderEpoch {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.mu.epochs) - 1; i >= 0; i-- {
		if p.mu.epochs[i].Start <= off {
			return p.mu.epochs[i].Epoch
		}
	}
	return base.NoLeaderEpoch
}

// Confirm asks etcd whether this broker still leads the partition, before an answer that makes a client reset: one that was deposed and
// has not heard of it knows less than clients do. kerr.NotLeaderForPartition, which they try elsewhere, where it does not, or etcd does
// not answer. Clients of a replica that is read as a follower are told the same: they go to the leader.
func (p *Partition) Confirm(ctx context.Context) error {
	p.mu.Lock()
	tp, leads := p.mu.tp, p.mu.leader != nil
	p.mu.Unlock()
	if !leads {
		return fmt.Errorf("partition %s: %w", tp, kerr.NotLeaderForPartition)
	}
	meta := p.g.opts.Meta
	err := meta.Refresh(ctx, tp)
	if now, ok := meta.Image().Partition(tp); err == nil && ok && now.Log == p.log && p.CheckEpoch(now.LeaderEpoch) == nil {
		return nil
	}
	return fmt.Errorf("partition %s: is this broker still its leader: %w", tp, errors.Join(kerr.NotLeaderForPartition, err))
}

// Confirm is Partition.Confirm by name.
func (g *Ingest) Confirm(ctx context.Context, tp base.TopicPartition) error {
	p, err := g.Partition(tp)
	if err != nil {
		return err
	}
	return p.Confirm(ctx)
}

// EpochEnd answers OffsetForLeaderEpoch by name; currentEpoch is checked where >= 0. An epoch later than this broker's is unknown, as it
// is to Kafka, only where this broker is still the leader: the topic was made anew. Else whoever read that epoch's records knows better, and
// an answer without an offset would make it reset (KIP-320): kerr.UnknownLeaderEpoch, which clients try again.
func (g *Ingest) EpochEnd(ctx context.Context, tp base.TopicPartition, currentEpoch, epoch base.LeaderEpoch) (base.LeaderEpoch, base.Offset, error) {
	p, err := g.Partition(tp)
	if err != nil {
		return base.NoLeaderEpoch, base.NoOffset, err
	}
	if err := p.CheckEpoch(currentEpoch); err != nil {
		return base.NoLeaderEpoch, base.NoOffset, err
	}
	if err := p.CheckEpoch(epoch); errors.Is(err, kerr.UnknownLeaderEpoch) && p.Confirm(ctx) != nil {
		return base.NoLeaderEpoch, base.NoOffset, err
	}
	e, end := p.EpochEnd(epoch)
	return e, end, p.CheckEpoch(currentEpoch) // a leader's answer, if it still is one
}

// policy is what the topic's configuration asks of a produced batch.
func policy(cfg *metadata.TopicConfig, tp base.TopicPartition, zstdAllowed bool, nowMs int64) record.Policy {
	codec, level := compression(cfg)
	return record.Policy{
		TopicPartition:  tp,
		MaxMessageBytes: cfg.MaxMessageBytes, SegmentBytes: cfg.SegmentBytes, LogAppendTime: cfg.LogAppendTime,
		BeforeMaxMs: cfg.TimestampBeforeMaxMs, AfterMaxMs: cfg.TimestampAfterMaxMs,
		Compression: codec, CompressionLevel: level, Compacted: cfg.Compact, ZstdAllowed: zstdAllowed, NowMs: nowMs,
	}
}

func compression(cfg *metadata.TopicConfig) (record.Codec, int) {
	switch cfg.Compression {
	case "gzip":
		return record.CodecGzip, cfg.CompressionGzipLevel
	case "snappy":
		return record.CodecSnappy, 0
	case "lz4":
		return record.CodecLZ4, cfg.CompressionLZ4Level
	case "zstd":
		return record.CodecZstd, cfg.CompressionZstdLevel
	case "uncompressed":
		return record.CodecNone, 0
	default:
		return record.CodecProducer, 0
	}
}
