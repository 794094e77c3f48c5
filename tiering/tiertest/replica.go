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

// History is one log of a Cluster: what every replica has, or had. The test alone changes it; rounds read it meanwhile.
type History struct {
	mu      sync.Mutex // for changes, and for what rounds read
	TP      base.TopicPartition
	Log     base.LogID
	TopicID base.TopicID
	Batches []record.Batch
	Epochs  []base.EpochStart
}

// End is the offset after the last batch.
func (h *History) End() base.Offset {
	if len(h.Batches) == 0 {
		return 0
	}
	return h.Batches[len(h.Batches)-1].NextOffset()
}

// Append appends batches with about recordBytes per record, and has each broker close its open range here or there: all of
// them at the end.
func (c *Cluster) Append(h *History, rnd *rand.Rand, batches, recordBytes int) {
	for n := range batches {
		b := NewBatch(h.End(), rnd, recordBytes)
		b.SetLeaderEpoch(h.Epochs[len(h.Epochs)-1].Epoch)
		h.mu.Lock()
		h.Batches = append(h.Batches, b)
		h.mu.Unlock()
		for _, broker := range c.Brokers {
			if n == batches-1 || rnd.IntN(4) == 0 {
				broker.Hot.seal(h)
			}
		}
	}
}

// Replica is the hot store of a broker of a Cluster. It offers what it seals of the logs that it believes to lead, and trims
// everything that it is told is tiered, at once: what was told too early is lost.
type Replica struct {
	cluster *Cluster
	broker  *Broker
	c       chan struct{}
	mu      struct {
		sync.Mutex
		logs map[base.LogID]*replicaLog
	}
}

type replicaLog struct {
	*History
	state    *metadata.Partition // as this broker learnt it
	ends     []base.Offset       // of its sealed ranges
	tiered   base.Offset
	logStart base.Offset
}

func newReplica(c *Cluster, b *Broker) *Replica {
	r := &Replica{cluster: c, broker: b, c: make(chan struct{}, 1)}
	r.mu.logs = map[base.LogID]*replicaLog{}
	return r
}

// Learn takes over who leads what.
func (r *Replica) Learn(img *metadata.Image) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.cluster.Logs {
		p, _, ok := img.Log(h.Log)
		switch l := r.mu.logs[h.Log]; {
		case !ok:
		case l == nil:
			r.mu.logs[h.Log] = &replicaLog{History: h, state: p}
		default:
			l.state = p
		}
	}
	signal(r.c)
}

// Forget drops logs.
func (r *Replica) Forget(logs []*History) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range logs {
		delete(r.mu.logs, h.Log)
	}
}

func (r *Replica) seal(h *History) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.mu.logs[h.Log]
	l.ends = append(l.ends, h.End())
}

// Start is where the hot part of a log begins: nothing below it is here any more.
func (r *Replica) Start(h *History) base.Offset {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.logs[h.Log].tiered
}

// told reports whether what a root says was told.
func (r *Replica) told(root metadata.Root) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.mu.logs[root.Log]
	return l == nil || l.tiered >= root.TieredEnd
}

// SetLogStart moves the log start of a log, as DeleteRecords does on its leader.
func (r *Replica) SetLogStart(h *History, start base.Offset) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.logs[h.Log].logStart = start
}

// LogStart answers the log start of a log.
func (r *Replica) LogStart(h *History) base.Offset {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.logs[h.Log].logStart
}

// Sealed implements tiering.Source. The first range of a log begins at its tiered end, wherever the range was cut.
func (r *Replica) Sealed(int64) (out []tiering.SealedRange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.mu.logs {
		if l.state.Leader != r.broker.ID {
			continue
		}
		from := l.tiered
		for _, end := range l.ends {
			if end <= from {
				continue
			}
			s := tiering.SealedRange{Log: l.Log, TP: l.TP, TopicID: l.TopicID, Base: from, End: end, MaxTimestamp: -1, LogStart: l.logStart, LeaderEpoch: l.state.LeaderEpoch}
			for _, b := range l.between(from, end) {
				s.Bytes += int64(len(b))
				s.MaxTimestamp = max(s.MaxTimestamp, b.MaxTimestamp())
			}
			s.Epochs = l.EpochsBelow(end)
			s.Producers = Producers(end)
			out = append(out, s)
			from = end
		}
	}
	slices.SortFunc(out, func(a, b tiering.SealedRange) int {
		return cmp.Or(cmp.Compare(a.Base, b.Base), cmp.Compare(a.Log, b.Log))
	})
	return out
}

// Producers is the snapshot of the producers as of an offset, as a Replica gives it.
func Producers(end base.Offset) []byte { return fmt.Appendf(nil, "producers as of %d", end) }

// EpochsBelow are the leader epochs that begin below an offset.
func (h *History) EpochsBelow(end base.Offset) (out []base.EpochStart) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.Epochs {
		if e.Start < end {
			out = append(out, e)
		}
	}
	return out
}

func (h *History) between(from, end base.Offset) (out []record.Batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.Batches {
		if b.BaseOffset() >= from && b.NextOffset() <= end {
			out = append(out, b)
		}
	}
	return out
}

// SealedC implements tiering.Source.
func (r *Replica) SealedC() <-chan struct{} { return r.c }

// ReadSealed implements tiering.Source.
func (r *Replica) ReadSealed(ctx context.Context, s tiering.SealedRange, emit func(record.Batch) error) error {
	r.mu.Lock()
	l := r.mu.logs[s.Log]
	if l == nil || s.Base < l.tiered {
		r.mu.Unlock()
		return fmt.Errorf("[%d, %d) of %s is not hot any more", s.Base, s.End, s.TP)
	}
	batches := l.between(s.Base, s.End)
	r.mu.Unlock()
	for _, b := range batches {
		if err := firstError(ctx.Err(), emit(b)); err != nil {
			return err
		}
	}
	return nil
}

// Tiered implements tiering.Source.
func (r *Replica) Tiered(log base.LogID, _ base.LeaderEpoch, end base.Offset) { r.trim(log, end) }

// OnRoot is for tiering.Options.
func (r *Replica) OnRoot(root metadata.Root) {
	r.trim(root.Log, root.TieredEnd)
	signal(r.broker.rooted)
}

// trim drops what is tiered. It must be so in the KV, and this broker must be able to read it cold (I5).
func (r *Replica) trim(log base.LogID, end base.Offset) {
	root, _, err := r.cluster.Admin.Root(context.Background(), log)
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.mu.logs[log]
	if l == nil {
		return // forgotten: by now the root may be deleted
	}
	if err != nil || root.TieredEnd < end {
		r.cluster.T.Errorf("broker %d is told that log %s is tiered to %d: the root says %d (%v)", r.broker.ID, log, end, root.TieredEnd, err)
	}
	l.tiered = max(l.tiered, end)
}

// Skip loses the first batch that is not tiered yet, and all of the range that it is in.
func (r *Replica) Skip(h *History) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.mu.logs[h.Log]
	for _, end := range l.ends {
		if end > l.tiered {
			l.tiered = end
			return
		}
	}
}
