package ingest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/ingest/replica"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// indexEveryBytes is the distance of two entries of a log's sparse index.
const indexEveryBytes = 256 << 10

// AppendRequest is one partition's part of a produce request.
type AppendRequest struct {
	TP          base.TopicPartition
	TopicID     base.TopicID // zero: whichever topic has the name
	Records     []byte       // the records field as the client sent it; kept by reference, not to be reused
	ZstdAllowed bool         // Produce >= 7
}

// AppendResult answers one AppendRequest.
type AppendResult struct {
	BaseOffset      base.Offset
	LogAppendTimeMs int64 // -1 where the topic has CreateTime and the batch is no duplicate
	LogStart        base.Offset
	LeaderEpoch     base.LeaderEpoch
	Err             error // wraps a kerr error; nil where appended
	settled         bool
}

// Receipt is the promise of an append: order is fixed, durability comes when Done is closed.
type Receipt struct {
	done chan struct{}
	mu   struct {
		sync.Mutex
		finished bool
		open     int // results that are not settled
		results  []AppendResult
	}
}

// Done is closed when every partition's part is durable and committed, or failed.
func (r *Receipt) Done() <-chan struct{} { return r.done }

// Results is valid after Done, in the order of the requests.
func (r *Receipt) Results() []AppendResult { return r.mu.results }

// finish completes the receipt once; err replaces the results that were to succeed.
func (r *Receipt) finish(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.finished {
		return
	}
	r.mu.finished = true
	if err != nil {
		for i := range r.mu.results {
			if !r.mu.results[i].settled && r.mu.results[i].Err == nil {
				r.mu.results[i] = AppendResult{BaseOffset: base.NoOffset, LogAppendTimeMs: -1, LogStart: base.NoOffset, Err: err}
			}
		}
	}
	close(r.done)
}

// settle gives one result; it reports whether that completed the receipt.
func (r *Receipt) settle(req int, err error) (finished bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.finished {
		return false
	}
	res := &r.mu.results[req]
	if err != nil && res.Err == nil {
		*res = AppendResult{BaseOffset: base.NoOffset, LogAppendTimeMs: -1, LogStart: base.NoOffset, Err: err}
	}
	res.settled = true
	if r.mu.open--; r.mu.open > 0 {
		return false
	}
	r.mu.finished = true
	close(r.done)
	return true
}

// isFinished reports whether the receipt was given all its answers.
func (r *Receipt) isFinished() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.finished
}

// part is one batch on its way into the log.
type part struct {
	p     *Partition
	batch record.Batch
	req   int              // index of its request and result
	under base.LeaderEpoch // that it is to be appended in; NoLeaderEpoch: any
	// set by orderLocked:
	end       base.Offset // after the batch
	leader    *replica.Leader
	cuts      int
	duplicate bool
	failed    bool
}

// Append orders the batches of one produce request; when it returns, later appends come after these. acks is 0, 1 or -1;
// timeoutMs bounds the wait for acks=-1 (kerr.RequestTimedOut). Each partition fails or succeeds on its own. It blocks
// while Options.PendingBytes of appends wait for the disk, which is the back-pressure on a connection; ctx ends that wait.
func (g *Ingest) Append(ctx context.Context, acks int16, timeoutMs int32, reqs []AppendRequest) *Receipt {
	r := &Receipt{done: make(chan struct{})}
	r.mu.results = make([]AppendResult, len(reqs))
	parts := make([]part, 0, len(reqs))
	now := g.clock.Now()
	for i := range reqs {
		res := &r.mu.results[i]
		*res = AppendResult{BaseOffset: base.NoOffset, LogAppendTimeMs: -1, LogStart: base.NoOffset}
		pt, err := g.prepare(&reqs[i], now.UnixMilli())
		if err != nil {
			res.Err = err
			continue
		}
		pt.req = i
		parts = append(parts, pt)
	}
	if len(parts) == 0 {
		r.finish(nil)
		return r
	}
	var deadline time.Time
	if acks == -1 {
		deadline = now.Add(time.Duration(timeoutMs) * time.Millisecond)
	}
	r.mu.open = len(parts)
	pd := &pending{parts: parts, receipt: r, deadline: deadline, all: acks == -1, size: pendingOverheadBytes}
	for i := range reqs {
		pd.size += int64(max(len(reqs[i].Records), 0))
	}
	if err := g.pipe.enter(ctx, pd.size, deadline); err != nil {
		r.finish(err)
		return r
	}
	g.submit(pd)
	return r
}

// pendingOverheadBytes is what an append costs in memory beside the records that it brought.
const pendingOverheadBytes = 512

// prepare finds the partition and validates the batch, before any lock is taken.
func (g *Ingest) prepare(req *AppendRequest, nowMs int64) (part, error) {
	p, err := g.partitionOf(req.TP, req.TopicID)
	if err != nil {
		return part{}, err
	}
	if g.store.Full() {
		return part{}, fmt.Errorf("append to %s: the data disk is full: %w", req.TP, kerr.KafkaStorageError)
	}
	pol := policy(p.Config(), req.TP, req.ZstdAllowed, nowMs)
	b, err := record.Prepare(req.Records, &pol)
	if err != nil {
		return part{}, err
	}
	if b.IsTransactional() {
		return part{}, fmt.Errorf("append to %s: no transaction is open: %w", req.TP, kerr.InvalidTxnState)
	}
	return part{p: p, batch: b, under: base.NoLeaderEpoch}, nil
}

// AppendBatch appends a batch of the broker's own (a coordinator's), in the leader epoch that it names, where it names one:
// kerr.NotLeaderForPartition in another. done is called once, when it is committed or failed.
func (g *Ingest) AppendBatch(tp base.TopicPartition, b record.Batch, done func(base.Offset, error)) {
	p, err := g.Partition(tp)
	if err == nil && g.store.Full() {
		err = fmt.Errorf("append to %s: the data disk is full: %w", tp, kerr.KafkaStorageError)
	}
	if err != nil {
		done(base.NoOffset, err)
		return
	}
	r := &Receipt{done: make(chan struct{})}
	r.mu.results, r.mu.open = make([]AppendResult, 1), 1
	pd := &pending{parts: []part{{p: p, batch: b, under: b.LeaderEpoch()}}, receipt: r, all: true, size: int64(len(b)) + pendingOverheadBytes}
	pd.after = func() { done(r.mu.results[0].BaseOffset, r.mu.results[0].Err) }
	if err := g.pipe.enterNow(pd.size); err != nil {
		done(base.NoOffset, err)
		return
	}
	g.submit(pd)
}

// submit orders the parts of an append that has entered the pipeline under their partitions' order locks and hands them to the pipeline. Pebble's commit pipeline and the
// pipeline's queue are both entered under the locks: offsets, WAL and completion keep one order.
func (g *Ingest) submit(pd *pending) {
	parts, r := pd.parts, pd.receipt
	slices.SortStableFunc(parts, func(a, b part) int { return int(int64(a.p.log) - int64(b.p.log)) })
	lockAll(parts)
	size := 0
	for i := range parts {
		size += len(parts[i].batch)
	}
	w := g.store.NewWriteSize(size)
	now := g.clock.Now()
	appended, relaxed, kept := 0, true, int64(0)
	for i := range parts {
		pt := &parts[i]
		pt.p.mu.Lock()
		pt.p.orderLocked(w, pt, &r.mu.results[pt.req], pd.all, now)
		pt.p.mu.Unlock()
		pt.failed = r.mu.results[pt.req].Err != nil
		if !pt.duplicate && !pt.failed {
			appended++
			kept += int64(len(pt.batch))
			relaxed = relaxed && pt.p.Config().SyncRelaxed
		}
	}
	pd.wasteful = kept < pd.size/2
	err := g.apply(w, pd, appended, relaxed)
	if err == nil {
		g.pipe.push(pd)
	}
	unlockAll(parts)
	if err != nil {
		r.finish(fmt.Errorf("append: %w: %w", kerr.KafkaStorageError, err))
		g.pipe.leave(pd.size)
		if pd.after != nil {
			pd.after()
		}
	}
}

// apply gives the write to Pebble. A failed apply leaves the partitions' state ahead of the disk: they go out of service.
func (g *Ingest) apply(w *hot.Write, pd *pending, appended int, relaxed bool) (err error) {
	switch {
	case appended == 0:
		w.Discard()
		return nil
	case relaxed:
		err = g.store.ApplyNoSync(w)
	default:
		pd.commit, err = g.store.Apply(w)
	}
	if err != nil {
		for i := range pd.parts {
			pd.parts[i].p.damage(err)
		}
	}
	return err
}

// lockAll locks the partitions of parts, which are in the order of log ids, each once.
func lockAll(parts []part) {
	for i := range parts {
		if i == 0 || parts[i].p != parts[i-1].p {
			parts[i].p.order.Lock()
		}
	}
}

func unlockAll(parts []part) {
	for i := range parts {
		if i == 0 || parts[i].p != parts[i-1].p {
			parts[i].p.order.Unlock()
		}
	}
}

// orderLocked gives the batch its offsets and adds it to the write, or finds that it is a duplicate, or refuses it.
func (p *Partition) orderLocked(w *hot.Write, pt *part, res *AppendResult, acksAll bool, now time.Time) {
	m := &p.mu
	res.LogAppendTimeMs = -1
	switch res.Err = p.errLocked(); {
	case res.Err != nil:
		return
	case m.former:
		res.Err = p.wrap(errFormer)
		return
	case pt.under >= 0 && pt.under != m.epoch:
		res.Err = fmt.Errorf("append of epoch %d to %s, led in %d: %w", pt.under, m.tp, m.epoch, kerr.NotLeaderForPartition)
		return
	}
	if err := m.leader.CanAppend(acksAll); err != nil {
		res.Err = p.wrap(err)
		return
	}
	pt.leader, pt.cuts = m.leader, m.cuts
	b, nowMs := pt.batch, now.UnixMilli()
	dup, err := m.producers.check(b)
	if err != nil {
		res.Err, res.LogStart = fmt.Errorf("append to %s: %w", m.tp, err), m.logStart
		return
	}
	res.LogStart, res.LeaderEpoch = m.logStart, m.epoch
	if dup != nil {
		// Kafka answers a duplicate with the stored batch's offset and its timestamp (facts/protocol.md, trap 8).
		pt.duplicate, pt.end = true, dup.lastOffset+1
		res.BaseOffset, res.LogAppendTimeMs = dup.baseOffset(), dup.timestampMs
		return
	}
	if p.mustRollLocked(b) {
		p.sealLocked(w, nowMs)
	}
	if !m.stored || m.stale { // in the same write: recovery must know where the first batch was to lie
		p.putMetaLocked(w)
	}
	b.SetBaseOffset(m.end)
	b.SetLeaderEpoch(m.epoch)
	p.noteLocked(w, b, nowMs)
	w.Append(p.log, b)
	m.leader.Appended(m.end, now)
	pt.end = m.end
	res.BaseOffset = b.BaseOffset()
	if b.IsLogAppendTime() {
		res.LogAppendTimeMs = b.MaxTimestamp()
	}
	p.g.work.add(p)
}

// noteLocked carries one stored batch over into the partition's state. w may be nil (recovery).
func (p *Partition) noteLocked(w *hot.Write, b record.Batch, nowMs int64) {
	m := &p.mu
	size := int64(len(b))
	if n := len(m.index); n == 0 || m.bytes-m.index[n-1].Bytes >= indexEveryBytes {
		e := hot.IndexEntry{Offset: b.BaseOffset(), Bytes: m.bytes, MaxTimestamp: m.maxTs}
		m.index = append(m.index, e)
		if w != nil {
			w.SetIndex(p.log, e)
		}
	}
	ts := b.MaxTimestamp()
	if m.active.bytes == 0 {
		m.active.openedAtMs, m.active.firstTs = nowMs, ts
	}
	m.producers.note(b, p.g.opts.ProducersPerPartition)
	m.active.bytes += size
	m.active.maxTs = max(m.active.maxTs, ts)
	m.maxTs = max(m.maxTs, ts)
	m.bytes += size
	m.end = b.NextOffset()
	m.unsaved = true
}
