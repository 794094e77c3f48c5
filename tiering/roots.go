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
	// verified is a leader epoch that had begun when root was read, committed, or seen by the watch: nobody of an older epoch
	// can have swapped it since. NoLeaderEpoch: read it again before building on it.
	verified base.LeaderEpoch
	// doubtful says that the outcome of a swap from here is unknown: root may be older than the one that it made, whatever the
	// watch has shown. Only reading it settles that.
	doubtful bool
	// fenced is the newest leader epoch of which a commit was refused because a newer one had begun: none of it succeeds any
	// more, and what is uploaded for it is garbage. The image tells that only a little later.
	fenced   base.LeaderEpoch
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
		// seen is the revision up to which the watch has shown every change (follow.go), 0 without a watch.
		seen int64
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
		st = &logState{turn: make(chan struct{}, 1), verified: base.NoLeaderEpoch, fenced: base.NoLeaderEpoch, oldestTs: unknownTs}
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
		return logState{verified: base.NoLeaderEpoch, fenced: base.NoLeaderEpoch, oldestTs: unknownTs}, false
	}
	return *p, p.root.Object != ""
}

// set records a root that was read or committed under an epoch, unless a newer one is known.
func (r *roots) set(root metadata.Root, verified base.LeaderEpoch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.state(root.Log)
	// What is new here and not to the watch is a root that came and went.
	if root.Rev <= st.root.Rev || root.Rev > r.mu.seen {
		st.replace(root)
	}
	st.verified, st.doubtful = max(st.verified, verified), false
}

// replace makes root the log's, unless a newer one is known. It needs the lock for writing.
func (st *logState) replace(root metadata.Root) {
	if root.Rev < st.root.Rev {
		return
	}
	if root.Object != st.root.Object {
		st.oldestTs = unknownTs
	}
	st.root = root
	st.lastSeq = max(st.lastSeq, root.Seq)
}

// observe takes over what the watch shows.
func (r *roots) observe(u metadata.RootUpdate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range u.Changes {
		if c.Gone {
			r.drop(c.Log)
		} else {
			r.state(c.Log).replace(c.Root)
		}
	}
	r.mu.seen = max(r.mu.seen, u.Revision)
}

// prove reports whether what is known of a log was so under a leader epoch that had begun at a revision, or later: whatever
// leaders of older epochs committed, they did below that revision, where the compare of SwapRoots with the partition's key
// (I4) still held, and the watch has shown it.
func (r *roots) prove(log base.LogID, epoch base.LeaderEpoch, began int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.seen < began {
		return false
	}
	st := r.state(log)
	if !st.doubtful {
		st.verified = max(st.verified, epoch)
	}
	return !st.doubtful
}

// doubt makes the next committer read the root again.
func (r *roots) doubt(log base.LogID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.state(log)
	st.verified, st.doubtful = base.NoLeaderEpoch, true
}

// fence notes that no commit of a leader epoch succeeds any more.
func (r *roots) fence(log base.LogID, epoch base.LeaderEpoch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.state(log)
	st.fenced = max(st.fenced, epoch)
}

// postpone keeps a log from being archived for a while.
func (r *roots) postpone(log base.LogID, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state(log).retryAt = until
}

// forget removes the root of a log that was found to have none, unless it got another one than that of a revision meanwhile.
func (r *roots) forget(log base.LogID, rev int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if st, ok := r.mu.logs[log]; ok && st.root.Rev == rev {
		st.root, st.oldestTs = metadata.Root{}, unknownTs
	}
}

// drop removes a deleted log. It needs the lock for writing.
func (r *roots) drop(log base.LogID) {
	switch st, ok := r.mu.logs[log]; {
	case !ok:
	case len(st.turn) == 0:
		delete(r.mu.logs, log)
	default: // a committer is about to be refused
		st.root, st.oldestTs = metadata.Root{}, unknownTs
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
	t.roots.drop(log)
}

// Root returns the root of a log from memory; ok is false where it has none. The watch keeps it current (Follow).
func (t *Tiering) Root(log base.LogID) (root metadata.Root, ok bool) {
	st, ok := t.roots.get(log)
	return st.root, ok
}

// Refresh reads the root of a log again, under a leader epoch that has begun, or NoLeaderEpoch where none is known to have.
func (t *Tiering) Refresh(ctx context.Context, log base.LogID, epoch base.LeaderEpoch) error {
	before, _ := t.roots.get(log)
	root, ok, err := t.o.Meta.Root(ctx, log)
	if err != nil {
		return fmt.Errorf("read manifest root of %s: %w", log, err)
	}
	t.readAgain(log, before.root.Rev, root, ok, epoch)
	return nil
}

// readAgain records what a log's root was found to be; before is the revision of the one known then.
func (t *Tiering) readAgain(log base.LogID, before int64, root metadata.Root, ok bool, epoch base.LeaderEpoch) {
	if !ok {
		root = metadata.Root{}
		t.roots.forget(log, before)
	}
	root.Log = log
	t.roots.set(root, epoch)
}

// current answers what is known of a log whose leader is of an epoch. It is read again where leaders before it may have
// committed since.
func (t *Tiering) current(ctx context.Context, log base.LogID, epoch base.LeaderEpoch) (logState, error) {
	if !t.verified(log, epoch) {
		if err := t.Refresh(ctx, log, epoch); err != nil {
			return logState{}, err
		}
	}
	st, _ := t.roots.get(log)
	return st, nil
}

// verified reports whether no leader older than an epoch can have committed since what is known of the log was so.
func (t *Tiering) verified(log base.LogID, epoch base.LeaderEpoch) bool {
	if st, _ := t.roots.get(log); st.verified >= epoch {
		return true
	}
	img := t.o.Meta.Image()
	if img == nil {
		return false
	}
	p, _, ok := img.Log(log)
	return ok && p.LeaderEpoch >= epoch && t.roots.prove(log, p.LeaderEpoch, p.Rev)
}

// refreshOneByOne is how many roots are read each with its own request; of more, all are listed at once: leadership of
// thousands of partitions may come in one moment.
const refreshOneByOne = 8

// refreshMany reads the roots of logs again, each under its epoch.
func (t *Tiering) refreshMany(ctx context.Context, epochs map[base.LogID]base.LeaderEpoch) error {
	if len(epochs) <= refreshOneByOne {
		for log, epoch := range epochs {
			if err := t.Refresh(ctx, log, epoch); err != nil {
				return err
			}
		}
		return nil
	}
	before := map[base.LogID]int64{}
	for log := range epochs {
		st, _ := t.roots.get(log)
		before[log] = st.root.Rev
	}
	all, err := t.o.Meta.Roots(ctx)
	if err != nil {
		return fmt.Errorf("read manifest roots of %d logs: %w", len(epochs), err)
	}
	for log, epoch := range epochs {
		root, ok := all[log]
		t.readAgain(log, before[log], root, ok, epoch)
	}
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
	b, err := t.fetchPart(ctx, readManifest, root.Object, root.Pos, root.Len, root.CRC32C)
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
	b, err := t.fetchPart(ctx, readArchive, ref.Object, ref.Pos, ref.Len, ref.CRC32C)
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

// get reads a range of an object past the block cache, exactly, and counts it.
func (t *Tiering) get(ctx context.Context, kind readKind, object string, off, length int64) ([]byte, error) {
	b, err := t.o.Bucket.Get(ctx, object, off, length)
	if err == nil {
		t.metrics.read(ctx, kind, int64(len(b)))
	}
	return b, err
}

// fetchPart reads and verifies one part of an object, past the block cache.
func (t *Tiering) fetchPart(ctx context.Context, kind readKind, object string, pos, length int64, crc uint32) ([]byte, error) {
	b, err := t.get(ctx, kind, object, pos, length)
	if err != nil {
		return nil, fmt.Errorf("get %s at %d: %w", object, pos, err)
	}
	if c := wire.Checksum(b); c != crc {
		return nil, base.MarkCorruption(fmt.Errorf("%s at %d: checksum %08x, want %08x", object, pos, c, crc))
	}
	return b, nil
}
