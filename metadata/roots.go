package metadata

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/invariants"
)

// Root is the manifest root of a partition in etcd: which manifest object is current, and its summary.
type Root struct {
	Log       base.LogID       `json:"log"`
	Epoch     base.LeaderEpoch `json:"epoch"` // leader epoch of the writer
	Seq       int64            `json:"seq"`   // version of the manifest, grows with each attempt
	Object    string           `json:"object"`
	Pos       int64            `json:"pos"` // of the manifest within the object
	Len       int64            `json:"len"`
	CRC32C    uint32           `json:"crc"`
	Start     base.Offset      `json:"start"` // log start offset as of this manifest
	TieredEnd base.Offset      `json:"end"`   // offset after the last tiered record
	Bytes     int64            `json:"bytes"`
	Objects   int64            `json:"objects"`
	Rev       int64            `json:"-"` // KV mod revision of the root's key, 0 where it does not exist
}

// ErrIntentGone says that a swap was refused because an intent of it does not exist any more: somebody who sweeps took its
// broker for dead. It comes with kerr.FencedLeaderEpoch, and tells nothing about the leader epoch.
var ErrIntentGone = errors.New("the intent is gone")

// swapIntents is how many intents one swap may compare: that of the round and that of the attempt.
const swapIntents = 2

// rootsPerTxn is how many roots one transaction swaps: two compares each, besides those of the intents.
const rootsPerTxn = (MaxTxnOps - swapIntents) / 2

// Roots lists the manifest roots of all partitions.
func (s *Store) Roots(ctx context.Context) (map[base.LogID]Root, error) {
	kvs, _, err := s.kv.List(ctx, rootPrefix)
	if err != nil {
		return nil, kvError(err, "list manifest roots")
	}
	roots := make(map[base.LogID]Root, len(kvs))
	for _, kv := range kvs {
		root, err := decodeRoot(kv)
		if err != nil {
			return nil, err
		}
		roots[root.Log] = root
	}
	return roots, nil
}

// Root reads one root from the KV, not from the image.
func (s *Store) Root(ctx context.Context, log base.LogID) (Root, bool, error) {
	kv, ok, err := s.kv.Get(ctx, rootKey(log))
	if err != nil || !ok {
		return Root{}, false, wrapKV(err, "read the manifest root of "+log.String())
	}
	root, err := decodeRoot(kv)
	return root, err == nil, err
}

func decodeRoot(kv KeyValue) (Root, error) {
	root, err := decode[Root](kv)
	root.Rev = kv.ModRevision
	return root, err
}

// SwapRoots swaps each root on its own: root.Rev is the revision it replaces (0: none yet). A swap commits only while the
// partition's key still has the leader epoch root.Epoch (I4). errs[i] is nil where root i committed, then roots[i].Rev is
// the new revision; kerr.FencedLeaderEpoch where the epoch or the root moved on, or an intent is gone;
// kerr.UnknownTopicOrPartition where the partition was deleted; any other error means unknown: read the root again before
// going on.
//
// intents, at most two, are the ids of those that name what the roots lead to (I7). A swap commits only while they exist:
// one whose reply was lost cannot be applied after a sweep found its objects without an intent, however late it comes.
func (s *Store) SwapRoots(ctx context.Context, roots []*Root, intents ...string) (errs []error) {
	invariants.Assert(len(intents) <= swapIntents, "%d intents of one swap", len(intents))
	errs = make([]error, len(roots))
	image := s.Image()
	covered := make([]Cmp, len(intents))
	for i, id := range intents {
		covered[i] = Exists(intentKey(id))
	}
	var batch []int
	flush := func() {
		s.swapBatch(ctx, image, roots, batch, covered, errs)
		batch = batch[:0]
	}
	for i := range roots {
		again := slices.ContainsFunc(batch, func(j int) bool { return roots[j].Log == roots[i].Log })
		if again || len(batch) == rootsPerTxn {
			flush()
		}
		batch = append(batch, i)
	}
	flush()
	return errs
}

// swapBatch swaps several roots in one transaction, as the image knows their partitions. Where that does not hold as a
// whole, which says for certain that nothing was written, each goes alone.
func (s *Store) swapBatch(ctx context.Context, image *Image, roots []*Root, batch []int, covered []Cmp, errs []error) {
	cmps := slices.Clone(covered)
	var ops []Op
	var in []int
	for _, i := range batch {
		p, _, ok := image.Log(roots[i].Log)
		if !ok || p.LeaderEpoch != roots[i].Epoch {
			errs[i] = s.swapAlone(ctx, roots[i], covered)
			continue
		}
		in = append(in, i)
		cmps = append(cmps, Unchanged(partitionKey(p.TopicID, p.TP.Partition), p.Rev), Unchanged(rootKey(p.Log), roots[i].Rev))
		ops = append(ops, Put(rootKey(p.Log), encode(roots[i])))
	}
	if len(in) == 0 {
		return
	}
	started := s.opts.Clock.Now()
	res, err := s.kv.Txn(ctx, cmps, ops)
	s.recorder.txn(ctx, "swap roots", s.opts.Clock.Now().Sub(started), res, err)
	for _, i := range in {
		switch {
		case err != nil:
			errs[i] = kvError(err, "swap the manifest root of %s", roots[i].Log)
		case res.Committed:
			roots[i].Rev = res.Revision
		default:
			errs[i] = s.swapAlone(ctx, roots[i], covered)
		}
	}
}

// swapAlone swaps one root against the partition's key as the KV has it: the image may be behind, and a change of the key
// that leaves the leader epoch as it is (of the ISR) is no reason to refuse.
func (s *Store) swapAlone(ctx context.Context, root *Root, covered []Cmp) error {
	key, ok := s.Image().partitionKeyOf(root.Log)
	if !ok {
		return fmt.Errorf("swap the manifest root of %s: %w", root.Log, kerr.UnknownTopicOrPartition)
	}
	for range casAttempts {
		kv, ok, err := s.kv.Get(ctx, key)
		if err != nil {
			return kvError(err, "swap the manifest root of %s", root.Log)
		}
		if !ok {
			return fmt.Errorf("swap the manifest root of %s: %w", root.Log, kerr.UnknownTopicOrPartition)
		}
		p, err := decode[partitionRecord](kv)
		if err != nil {
			return err
		}
		if p.LeaderEpoch != root.Epoch || p.Log != root.Log {
			return fmt.Errorf("swap the manifest root of %s: leader epoch %d, not %d: %w", root.Log, p.LeaderEpoch, root.Epoch, kerr.FencedLeaderEpoch)
		}
		current, _, err := s.kv.Get(ctx, rootKey(root.Log))
		if err != nil {
			return kvError(err, "swap the manifest root of %s", root.Log)
		}
		if current.ModRevision != root.Rev {
			return fmt.Errorf("swap the manifest root of %s: it moved on: %w", root.Log, kerr.FencedLeaderEpoch)
		}
		if err := s.stillCovered(ctx, covered); err != nil {
			return fmt.Errorf("swap the manifest root of %s: %w", root.Log, err)
		}
		res, err := s.kv.Txn(ctx,
			append([]Cmp{Unchanged(key, kv.ModRevision), Unchanged(rootKey(root.Log), root.Rev)}, covered...),
			[]Op{Put(rootKey(root.Log), encode(root))})
		if err != nil {
			return kvError(err, "swap the manifest root of %s", root.Log)
		}
		if res.Committed {
			root.Rev = res.Revision
			return nil
		}
	}
	return fmt.Errorf("swap the manifest root of %s: %w", root.Log, errLostRace)
}

// stillCovered tells whether the intents of a swap exist. Before their writer takes them away only a sweep does, and only
// where their broker has registered anew or is not registered any more (Intent.Dead).
func (s *Store) stillCovered(ctx context.Context, covered []Cmp) error {
	for _, c := range covered {
		_, ok, err := s.kv.Get(ctx, c.Key)
		if err != nil {
			return kvError(err, "read %s", c.Key)
		}
		if !ok {
			return fmt.Errorf("%s: %w: %w", c.Key, ErrIntentGone, kerr.FencedLeaderEpoch)
		}
	}
	return nil
}

// partitionKeyOf finds the key of a log's partition, of a visible topic or not.
func (i *Image) partitionKeyOf(log base.LogID) (string, bool) {
	ref, ok := i.logs.get(log)
	if !ok {
		return "", false
	}
	return partitionKey(ref.topic, ref.index), true
}

// Intent is an upload that is under way (I7): while it exists no sweep touches the objects that it names.
type Intent struct {
	ID      string        `json:"id"`
	Broker  base.BrokerID `json:"broker"`
	Epoch   int64         `json:"epoch"` // the broker's registration epoch
	Objects []string      `json:"objects"`
	Rev     int64         `json:"-"` // KV mod revision of the intent's key, of those that Intents lists
}

// Dead reports whether the incarnation of the broker that wrote the intent is over, as far as the image can tell: it has registered
// anew, or is not registered any more. A broker that is fenced is not dead, it may be in the middle of an upload. The
// image may be behind; what it says of the past is final all the same: epochs only grow, and a broker puts an intent after
// its registration, so where the image is as new as the intent and does not show the broker, the broker is gone.
//
// To delete a dead intent is safe whatever its writer still does: no swap commits without it (SwapRoots).
func (in *Intent) Dead(image *Image) bool {
	b, registered := image.BrokerByID(in.Broker)
	if registered {
		return b.Epoch > in.Epoch
	}
	return in.Rev > 0 && in.Rev <= image.Revision()
}

// PutIntent records an intent; it is durable when this returns.
func (s *Store) PutIntent(ctx context.Context, in Intent) error {
	_, err := s.kv.Txn(ctx, nil, []Op{Put(intentKey(in.ID), encode(in))})
	return wrapKV(err, "write intent "+in.ID)
}

// DeleteIntents removes intents; those that do not exist are no error.
func (s *Store) DeleteIntents(ctx context.Context, ids ...string) error {
	for len(ids) > 0 {
		n := min(len(ids), MaxTxnOps)
		ops := make([]Op, n)
		for i, id := range ids[:n] {
			ops[i] = Delete(intentKey(id))
		}
		if _, err := s.kv.Txn(ctx, nil, ops); err != nil {
			return kvError(err, "delete intents")
		}
		ids = ids[n:]
	}
	return nil
}

// Intents lists all intents, of all brokers, by id.
func (s *Store) Intents(ctx context.Context) ([]Intent, error) {
	kvs, _, err := s.kv.List(ctx, intentPrefix)
	if err != nil {
		return nil, kvError(err, "list intents")
	}
	out := make([]Intent, 0, len(kvs))
	for _, kv := range kvs {
		in, err := decode[Intent](kv)
		if err != nil {
			return nil, err
		}
		in.Rev = kv.ModRevision
		out = append(out, in)
	}
	return out, nil
}

// DeletedLog is a partition of a deleted topic whose objects are still to be deleted.
type DeletedLog struct {
	Log     base.LogID
	TopicID base.TopicID
	Topic   string
}

// DeletedLogs lists the tombstones. No root of such a log can be swapped any more.
func (s *Store) DeletedLogs(ctx context.Context) ([]DeletedLog, error) {
	kvs, _, err := s.kv.List(ctx, deletedPrefix)
	if err != nil {
		return nil, kvError(err, "list deleted logs")
	}
	out := make([]DeletedLog, 0, len(kvs))
	for _, kv := range kvs {
		r, err := decode[deletedRecord](kv)
		if err != nil {
			return nil, err
		}
		log, err := base.ParseLogID(kv.Key[len(deletedPrefix):])
		if err != nil {
			return nil, base.MarkCorruption(err)
		}
		out = append(out, DeletedLog{Log: log, TopicID: r.TopicID, Topic: r.Topic})
	}
	return out, nil
}

// ForgetLog removes the last trace of a deleted log (its root and its tombstone) once no object is left. A log that has no
// tombstone keeps its root.
func (s *Store) ForgetLog(ctx context.Context, log base.LogID) error {
	_, err := s.kv.Txn(ctx, []Cmp{Exists(deletedKey(log))}, []Op{Delete(rootKey(log)), Delete(deletedKey(log))})
	return wrapKV(err, "forget log "+log.String())
}
