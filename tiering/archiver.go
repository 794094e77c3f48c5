package tiering

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/tiering/manifest"
)

// run takes rounds until the group stops. An error never ends it: the bucket or the metadata store may be away for days,
// the ranges stay sealed in the hot store (I13).
func (t *Tiering) run(ctx context.Context) {
	pause := t.o.RetryMin
	for ctx.Err() == nil {
		n, err := t.RunOnce(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			t.o.Logger.Warn("tiering round failed", slog.Any("error", err), slog.Duration("retryIn", pause))
			t.sleep(ctx, pause)
			pause = min(2*pause, t.o.RetryMax)
		case n == 0:
			pause = t.o.RetryMin
			t.buffers.drop()
			t.await(ctx)
		default:
			pause = t.o.RetryMin
		}
	}
}

// await blocks until there may be more to do, and a little longer where that is little, so that it shares an object.
func (t *Tiering) await(ctx context.Context) {
	timer := t.o.Clock.NewTimer(t.o.RetryMax)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
	case <-t.o.Source.SealedC():
	}
	var bytes int64
	for _, r := range t.o.Source.Sealed(t.o.PackBelowBytes) {
		bytes += r.Bytes
	}
	if bytes > 0 && bytes < t.o.PackBelowBytes && t.o.PackLinger > 0 {
		t.sleep(ctx, t.o.PackLinger)
	}
}

func (t *Tiering) sleep(ctx context.Context, d time.Duration) {
	timer := t.o.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// RunOnce takes one round: what is sealed now, up to UploadBytes, goes to the bucket and is committed. It answers how many
// ranges were settled. With an error some may still have been committed.
func (t *Tiering) RunOnce(ctx context.Context) (int, error) {
	t.deleteDoneIntents(ctx)
	ranges, settled, err := t.admit(ctx, t.o.Source.Sealed(t.o.UploadBytes))
	if err != nil || len(ranges) == 0 {
		return settled, err
	}
	jobs := plan(ranges, t.o.PackBelowBytes, t.o.packBytes(), t.o.MaxObjectBytes, t.name)
	logs := map[base.LogID]bool{}
	for _, r := range ranges {
		logs[r.Log] = true
	}
	var names []commitNames
	var objects []string
	for range (len(logs)-1)/t.o.ManifestsPerCommit + 1 {
		n := t.commitNames()
		names, objects = append(names, n), append(objects, n.list()...)
	}
	for _, j := range jobs {
		objects = append(objects, j.names...)
	}
	intent, err := t.putIntent(ctx, objects)
	if err != nil {
		return settled, err
	}
	for i := range names {
		names[i].intents = []string{intent}
	}
	n, err := t.uploadAndCommit(ctx, jobs, names)
	if ctx.Err() == nil { // else the next incarnation finds the intent
		t.finishIntent(ctx, intent)
	}
	return settled + n, err
}

// uploadAndCommit does the work of a round whose intent is durable.
func (t *Tiering) uploadAndCommit(ctx context.Context, jobs []job, names []commitNames) (int, error) {
	results := make([][]uploaded, len(jobs))
	errs := make([]error, len(jobs))
	var wg sync.WaitGroup
	for i, j := range jobs {
		select {
		case t.workers <- struct{}{}:
		case <-ctx.Done():
			errs[i] = ctx.Err()
			continue
		}
		wg.Go(func() {
			defer func() { <-t.workers }()
			results[i], errs[i] = t.upload(ctx, j)
		})
	}
	wg.Wait()
	firsts := map[base.LogID]base.Offset{} // where the round begins, of each log
	for _, j := range jobs {
		for _, r := range j.ranges {
			if first, ok := firsts[r.Log]; !ok || r.Base < first {
				firsts[r.Log] = r.Base
			}
		}
	}
	var all []uploaded
	for _, r := range results {
		all = append(all, r...)
	}
	n, err := t.commitUploads(ctx, all, firsts, names)
	return n, errors.Join(append(errs, err)...)
}

// commitUploads commits, of each log, the ranges that continue its manifest without a gap: those from its first offset on.
func (t *Tiering) commitUploads(ctx context.Context, all []uploaded, firsts map[base.LogID]base.Offset, names []commitNames) (int, error) {
	slices.SortFunc(all, func(a, b uploaded) int {
		return cmp.Or(cmp.Compare(a.from.Log, b.from.Log), cmp.Compare(a.from.Base, b.from.Base))
	})
	var errs []error
	settled := 0
	changes := t.addChanges(all, firsts)
	for chunk := range slices.Chunk(changes, t.o.ManifestsPerCommit) {
		err := t.commit(ctx, chunk, names[0])
		names = names[1:]
		if slices.ContainsFunc(chunk, func(c *change) bool { return c.err != nil && !c.topicGone() }) {
			errs = append(errs, err)
		}
		for _, c := range chunk {
			if c.err == nil {
				settled += c.count
				t.o.Source.Tiered(c.log, c.epoch, c.end)
			}
		}
	}
	return settled, errors.Join(errs...)
}

// addChanges makes one change for each log of uploads that are sorted by log and offset. What lies behind a range whose upload
// did not succeed, the log's first one too, is not committed.
func (t *Tiering) addChanges(all []uploaded, firsts map[base.LogID]base.Offset) []*change {
	var changes []*change
	for len(all) > 0 {
		n, next := 0, firsts[all[0].from.Log]
		for n < len(all) && all[n].from.Log == all[0].from.Log && all[n].from.Base == next {
			next = all[n].from.End
			n++
		}
		if n > 0 {
			changes = append(changes, t.addChange(all[:n]))
		}
		rest := all[n:]
		for len(rest) > 0 && rest[0].from.Log == all[0].from.Log {
			t.discard(rest[0])
			rest = rest[1:]
		}
		all = rest
	}
	return changes
}

// addChange is the change that adds uploaded ranges of one log.
func (t *Tiering) addChange(ups []uploaded) *change {
	last := ups[len(ups)-1].from
	first := ups[0].from
	c := &change{log: last.Log, epoch: last.LeaderEpoch, end: last.End, count: len(ups)}
	c.id = manifest.Identity{Cluster: t.cluster(), Log: last.Log, TopicID: last.TopicID, TP: last.TP}
	for _, u := range ups {
		c.objects = append(c.objects, u.objects...)
	}
	c.apply = func(ctx context.Context, m *manifest.Manifest) (*manifest.Manifest, manifest.Dropped, error) {
		var dropped manifest.Dropped
		if m == nil {
			m = manifest.New(c.id, last.LogStart)
		}
		if holds(m, ups) {
			return m, dropped, errNothingToDo
		}
		if end := max(m.End, m.LogStart, last.LogStart); first.Base > end {
			// NB: an empty manifest takes any first segment, and what lies before it would be trimmed as tiered.
			return nil, dropped, fmt.Errorf("add [%d, %d) to %s behind %d: %w", first.Base, last.End, last.TP, end, manifest.ErrNotContiguous)
		}
		if !m.Empty() && first.Base > m.End && last.LogStart >= m.End { // DeleteRecords passed over what is between
			var err error
			if m, dropped, err = t.dropBelow(ctx, m, last.LogStart); err != nil {
				return nil, dropped, err
			}
		}
		entries := entriesAbove(ups, m.LogStart)
		if len(entries) == 0 { // the log start passed over all of it meanwhile
			t.garbage.add(t.o.Clock.Now(), c.objects...)
			return m, dropped, errNothingToDo
		}
		next, err := m.Add(entries, last.Epochs)
		return next, dropped, err
	}
	return c
}

// entriesAbove lists the uploaded segments that hold something at or above the log start.
func entriesAbove(ups []uploaded, logStart base.Offset) (out []manifest.Entry) {
	for _, u := range ups {
		for _, e := range u.entries {
			if e.End > logStart {
				out = append(out, e)
			}
		}
	}
	return out
}

// holds reports whether the manifest names exactly these uploads already.
func holds(m *manifest.Manifest, ups []uploaded) bool {
	for _, u := range ups {
		for _, e := range u.entries {
			if !slices.Contains(m.Entries, e) {
				return false
			}
		}
	}
	return true
}

// cluster is the id of the cluster, which stands in every manifest.
func (t *Tiering) cluster() string {
	if img := t.o.Meta.Image(); img != nil {
		return img.ClusterID()
	}
	return ""
}

// discard leaves the objects of an upload that will not be committed to compaction.
func (t *Tiering) discard(u uploaded) {
	t.garbage.add(t.o.Clock.Now(), u.objects...)
}

// name completes a name with what is this broker's.
func (t *Tiering) name(n Name) string {
	n.Broker, n.ID = t.o.BrokerID, t.o.NewID()
	return n.String()
}

// putIntent makes the names of objects that are about to be written known (I7). After an error the intent may exist: it is
// deleted later.
func (t *Tiering) putIntent(ctx context.Context, objects []string) (id string, err error) {
	in := metadata.Intent{ID: t.o.NewID(), Broker: t.o.BrokerID, Epoch: t.o.BrokerEpoch, Objects: objects}
	if err := t.o.Meta.PutIntent(ctx, in); err != nil {
		t.intents.Lock()
		defer t.intents.Unlock()
		if len(t.intents.done) < t.o.PendingIntents {
			t.intents.done = append(t.intents.done, in.ID)
		}
		return "", fmt.Errorf("put intent: %w", err)
	}
	return in.ID, nil
}

// finishIntent deletes an intent, now or in a later round.
func (t *Tiering) finishIntent(ctx context.Context, id string) {
	t.intents.Lock()
	if len(t.intents.done) < t.o.PendingIntents {
		t.intents.done = append(t.intents.done, id)
	}
	t.intents.Unlock()
	t.deleteDoneIntents(ctx)
}

func (t *Tiering) deleteDoneIntents(ctx context.Context) {
	t.intents.Lock()
	ids := t.intents.done
	t.intents.done = nil
	t.intents.Unlock()
	if len(ids) == 0 {
		return
	}
	if err := t.o.Meta.DeleteIntents(ctx, ids...); err != nil {
		t.o.Logger.Warn("intents are left for later", slog.Int("count", len(ids)), slog.Any("error", err))
		t.intents.Lock()
		t.intents.done = append(t.intents.done, ids...)
		t.intents.Unlock()
	}
}
