package tiering

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/tiering/manifest"
	"github.com/varvelog/varve/tiering/wire"
)

// logState is what is known of one log's root.
type logState struct {
	turn chan struct{} // one slot: whoever put into it is the log's only committer; held across I/O, unlike a mutex
	root metadata.Root // zero Object: the log has no root
	// verified is the leader epoch under which root was read or committed: nobody of an older epoch can have swapped it
	// since. NoLeaderEpoch: read it again before building on it.
	verified base.LeaderEpoch
	lastSeq  int64     // the highest that was ever attempted
	oldestTs int64     // largest timestamp of the oldest segment, unknownTs before its manifest was seen
	retryAt  time.Time // nothing is archived before; set where the manifest is damaged
}

// damagedPause is how long a log with a damaged manifest waits before it is tried again.
const damagedPause = time.Minute

// unknownTs marks a timestamp that was not looked up yet.
const unknownTs = int64(-1) << 62

// roots holds the roots of all logs in memory. Its lock is never held across I/O.
type roots struct {
	mu struct {
		sync.RWMutex
		logs map[base.LogID]*logState
	}
}

func newRoots() *roots {
	r := &roots{}
	r.mu.logs = map[base.LogID]*logState{}
	return r
}

// state needs the lock for writing.
func (r *roots) state(log base.LogID) *logState {
	st, ok := r.mu.logs[log]
	if !ok {
		st = &logState{turn: make(chan struct{}, 1), verified: base.NoLeaderEpoch, oldestTs: unknownTs}
		r.mu.logs[log] = st
	}
	return st
}

// get answers what is known; ok is false where the log has no root.
func (r *roots) get(log base.LogID) (st logState, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	p, ok := r.mu.logs[log]
	if !ok {
		return logState{verified: base.NoLeaderEpoch, oldestTs: unknownTs}, false
	}
	return *p, p.root.Object != ""
}

// set records a root that was read or committed under an epoch, unless a newer one is known.
func (r *roots) set(root metadata.Root, verified base.LeaderEpoch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.state(root.Log)
	if root.Rev >= st.root.Rev {
		if root.Object != st.root.Object {
			st.oldestTs = unknownTs
		}
		st.root, st.verified = root, max(st.verified, verified)
		st.lastSeq = max(st.lastSeq, root.Seq)
	}
}

// doubt makes the next committer read the root again.
func (r *roots) doubt(log base.LogID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state(log).verified = base.NoLeaderEpoch
}

// postpone keeps a log from being archived for a while.
func (r *roots) postpone(log base.LogID, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state(log).retryAt = until
}

// forget removes a log whose root is gone.
func (r *roots) forget(log base.LogID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if st, ok := r.mu.logs[log]; ok {
		st.root, st.verified = metadata.Root{}, base.NoLeaderEpoch
	}
}

// nextSeq hands out a sequence number above every one attempted here. Between incarnations of a writer within one leader
// epoch the clock keeps it growing.
func (r *roots) nextSeq(log base.LogID, nowMicros int64) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.state(log)
	st.lastSeq = max(st.lastSeq+1, nowMicros)
	return st.lastSeq
}

func (r *roots) setOldest(log base.LogID, object string, ts int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if st, ok := r.mu.logs[log]; ok && st.root.Object == object {
		st.oldestTs = ts
	}
}

// takeTurns makes the caller the only committer of the logs. Turns are taken in log order, so that two takers of several
// cannot wait for each other.
func (r *roots) takeTurns(ctx context.Context, logs []base.LogID) (release func(), err error) {
	slices.Sort(logs)
	var held []chan struct{}
	release = func() {
		for _, c := range held {
			<-c
		}
	}
	for _, log := range slices.Compact(logs) {
		r.mu.Lock()
		turn := r.state(log).turn
		r.mu.Unlock()
		select {
		case turn <- struct{}{}:
			held = append(held, turn)
		case <-ctx.Done():
			release()
			return nil, ctx.Err()
		}
	}
	return release, nil
}

// LoadRoots reads all roots in one request. What the image said before that request began tells under which epoch each
// was read.
func (t *Tiering) LoadRoots(ctx context.Context) error {
	img := t.o.Meta.Image()
	all, err := t.o.Meta.Roots(ctx)
	if err != nil {
		return fmt.Errorf("load manifest roots: %w", err)
	}
	for log, root := range all {
		t.roots.set(root, t.ledEpoch(img, log))
	}
	return nil
}

// ledEpoch is the leader epoch of a log that this broker leads by the image, else NoLeaderEpoch.
func (t *Tiering) ledEpoch(img *metadata.Image, log base.LogID) base.LeaderEpoch {
	if img == nil {
		return base.NoLeaderEpoch
	}
	if p, _, ok := img.Log(log); ok && p.Leader == t.o.BrokerID {
		return p.LeaderEpoch
	}
	return base.NoLeaderEpoch
}

// Forget removes a deleted log from memory.
func (t *Tiering) Forget(log base.LogID) {
	t.roots.mu.Lock()
	defer t.roots.mu.Unlock()
	if st, ok := t.roots.mu.logs[log]; ok && len(st.turn) == 0 { // else a committer is about to be refused
		delete(t.roots.mu.logs, log)
	}
}

// Refresh reads the root of a log again. The broker calls it when it becomes the log's leader, with the new epoch, before
// it serves the log.
func (t *Tiering) Refresh(ctx context.Context, log base.LogID, epoch base.LeaderEpoch) error {
	root, ok, err := t.o.Meta.Root(ctx, log)
	if err != nil {
		return fmt.Errorf("read manifest root of %s: %w", log, err)
	}
	if !ok {
		root = metadata.Root{Log: log}
		t.roots.forget(log)
	}
	root.Log = log
	t.roots.set(root, epoch)
	return nil
}

// manifestAt loads the manifest that a root names. A log without a root has none: nil.
func (t *Tiering) manifestAt(ctx context.Context, root metadata.Root) (*manifest.Manifest, error) {
	if root.Object == "" {
		return nil, nil
	}
	key := manifest.ArchiveKey{Object: root.Object, Pos: root.Pos}
	if m, ok := t.manifests.get(key); ok {
		return m, nil
	}
	b, err := t.fetchPart(ctx, root.Object, root.Pos, root.Len, root.CRC32C)
	if err != nil {
		return nil, fmt.Errorf("load manifest of %s: %w", root.Log, err)
	}
	m, err := manifest.Decode(b)
	if err != nil {
		return nil, fmt.Errorf("load manifest %s: %w", root.Object, err)
	}
	if m.Log != root.Log || m.Epoch != root.Epoch || m.Seq != root.Seq {
		return nil, base.MarkCorruption(fmt.Errorf("manifest %s at %d is of log %s, epoch %d, seq %d, want %s, %d, %d", root.Object, root.Pos, m.Log, m.Epoch, m.Seq, root.Log, root.Epoch, root.Seq))
	}
	t.manifests.put(key, m)
	return m, nil
}

// archiveAt loads an archive.
func (t *Tiering) archiveAt(ctx context.Context, ref manifest.ArchiveRef) (*manifest.Archive, error) {
	if a, ok := t.archives.get(ref.Key()); ok {
		return a, nil
	}
	b, err := t.fetchPart(ctx, ref.Object, ref.Pos, ref.Len, ref.CRC32C)
	if err != nil {
		return nil, fmt.Errorf("load archive: %w", err)
	}
	a, err := manifest.DecodeArchive(b)
	if err != nil {
		return nil, fmt.Errorf("load archive %s: %w", ref.Object, err)
	}
	t.archives.put(ref.Key(), a)
	return a, nil
}

// fetchPart reads and verifies one part of an object, past the block cache.
func (t *Tiering) fetchPart(ctx context.Context, object string, pos, length int64, crc uint32) ([]byte, error) {
	b, err := t.o.Bucket.Get(ctx, object, pos, length)
	if err != nil {
		return nil, fmt.Errorf("get %s at %d: %w", object, pos, err)
	}
	if c := wire.Checksum(b); c != crc {
		return nil, base.MarkCorruption(fmt.Errorf("%s at %d: checksum %08x, want %08x", object, pos, c, crc))
	}
	return b, nil
}
