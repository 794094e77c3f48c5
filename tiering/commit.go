package tiering

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/tiering/manifest"
	"github.com/varvelog/varve/tiering/segment"
	"github.com/varvelog/varve/tiering/wire"
)

// errNothingToDo is what apply answers where the manifest already is as wanted.
var errNothingToDo = errors.New("nothing to do")

// change is one log's part of a commit.
type change struct {
	log   base.LogID
	epoch base.LeaderEpoch // the fence
	id    manifest.Identity
	// apply makes the next manifest of the current one (nil: none yet). It may be called again after a lost race or an
	// unknown outcome, on what is current then.
	apply   func(ctx context.Context, m *manifest.Manifest) (*manifest.Manifest, manifest.Dropped, error)
	objects []string // written for this change: garbage where it is fenced
	end     base.Offset
	count   int

	done bool
	err  error
	old  metadata.Root
	// oldestTs goes with old; the watch may show the new root before its swap is answered.
	oldestTs int64
	next     *manifest.Manifest
	archive  *manifest.Archive // to be spilled
	dropped  manifest.Dropped
}

// settle ends a change. The error is nil where it is committed.
func (c *change) settle(err error) { c.done, c.err = true, err }

// commitNames are the objects of one attempt to commit, and the intents that name them and what was uploaded for it: the
// swap holds only while those exist.
type commitNames struct {
	manifests, archives string
	intents             []string
}

func (n commitNames) list() []string { return []string{n.manifests, n.archives} }

func (t *Tiering) commitNames() commitNames {
	return commitNames{manifests: t.name(Name{Kind: KindManifest}), archives: t.name(Name{Kind: KindArchive})}
}

// commit makes every change durable: new manifests in one object, then one fenced swap of each root (I4). names stand in
// an intent that is durable. The error joins those of the changes that are not committed.
func (t *Tiering) commit(ctx context.Context, changes []*change, names commitNames) error {
	logs := make([]base.LogID, len(changes))
	for i, c := range changes {
		logs[i] = c.log
	}
	release, err := t.roots.takeTurns(ctx, logs)
	if err != nil {
		return errors.Join(fmt.Errorf("wait for the turn to commit: %w", err), failAll(changes, err))
	}
	defer release()
	pause := t.o.RetryMin
	covered := names.intents
	for attempt := 1; ; attempt++ {
		err := t.attempt(ctx, changes, names)
		if open := countOpen(changes); open == 0 || ctx.Err() != nil || attempt >= t.o.CommitAttempts {
			return errors.Join(failAll(changes, errors.Join(err, ctx.Err())), joinErrors(changes))
		}
		t.sleep(ctx, pause)
		pause = min(2*pause, t.o.RetryMax)
		names = t.commitNames() // a name is never used twice, so another attempt needs another intent
		intent, err := t.putIntent(ctx, names.list())
		if err != nil {
			return errors.Join(failAll(changes, err), joinErrors(changes))
		}
		defer t.finishIntent(context.WithoutCancel(ctx), intent)
		names.intents = append(slices.Clone(covered), intent)
	}
}

// attempt tries all open changes once; those that stay open may be tried again. A log whose manifest cannot be read does
// not keep the others.
func (t *Tiering) attempt(ctx context.Context, changes []*change, names commitNames) error {
	var open []*change
	var errs []error
	for _, c := range changes {
		if c.done {
			continue
		}
		if err := t.prepare(ctx, c); base.IsCorruption(err) {
			t.damaged(c, err)
		} else if err != nil {
			errs = append(errs, err)
		} else if !c.done {
			open = append(open, c)
		}
	}
	if len(open) == 0 {
		return errors.Join(errs...)
	}
	if err := t.writeArchives(ctx, open, names.archives); err != nil {
		return errors.Join(append(errs, err)...)
	}
	swaps, err := t.writeManifests(ctx, open, names.manifests)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for i, err := range t.o.Meta.SwapRoots(ctx, swaps, names.intents...) {
		t.concluded(ctx, open[i], *swaps[i], err)
	}
	return errors.Join(errs...)
}

// prepare loads what is current and applies the change to it.
func (t *Tiering) prepare(ctx context.Context, c *change) error {
	st, err := t.current(ctx, c.log, c.epoch)
	if err != nil {
		return err
	}
	if st.root.Object != "" && st.root.Epoch > c.epoch {
		t.roots.fence(c.log, c.epoch)
		t.fenced(c, fmt.Errorf("commit manifest of %s under epoch %d, root has %d: %w", c.log, c.epoch, st.root.Epoch, kerr.FencedLeaderEpoch))
		return nil
	}
	if img := t.o.Meta.Image(); img != nil {
		if _, _, ok := img.Log(c.log); !ok { // before its manifest is written: it would outlive the topic until the next sweep
			t.fenced(c, fmt.Errorf("commit manifest of %s: %w", c.log, kerr.UnknownTopicOrPartition))
			return nil
		}
	}
	m, err := t.manifestAt(ctx, st.root)
	if err != nil {
		return err
	}
	c.old, c.oldestTs = st.root, st.oldestTs
	c.next, c.dropped, err = c.apply(ctx, m)
	switch {
	case errors.Is(err, errNothingToDo):
		c.settle(nil)
	case errors.Is(err, manifest.ErrNotContiguous):
		t.fenced(c, err)
	case err != nil:
		return err
	default:
		c.archive = c.next.Spill(t.o.SpillEntries)
	}
	return nil
}

// fenced ends a change that cannot be committed; what was uploaded for it is garbage. That of a deleted topic is expected.
func (t *Tiering) fenced(c *change, err error) {
	t.garbage.add(t.o.Clock.Now(), c.objects...)
	t.roots.doubt(c.log)
	c.settle(err)
	if c.topicGone() {
		t.o.Logger.Info("the topic was deleted before its manifest was committed", slog.String("log", c.log.String()))
		return
	}
	t.metrics.fenced()
	t.o.Logger.Warn("manifest commit refused", slog.String("log", c.log.String()), slog.Any("error", err))
}

// topicGone reports whether a change ended because its topic was deleted.
func (c *change) topicGone() bool { return errors.Is(c.err, kerr.UnknownTopicOrPartition) }

// damaged ends a change of a log whose manifest or archive cannot be read, and keeps its ranges from being uploaded again
// and again: the log waits for an operator, and is tried again now and then.
func (t *Tiering) damaged(c *change, err error) {
	now := t.o.Clock.Now()
	t.garbage.add(now, c.objects...)
	t.roots.postpone(c.log, now.Add(damagedPause))
	t.o.Logger.Error("the log cannot be tiered", slog.String("log", c.log.String()), slog.Any("error", err))
	c.settle(err)
}

// writeArchives spills the old entries of long manifests into one object.
func (t *Tiering) writeArchives(ctx context.Context, open []*change, name string) error {
	var buf []byte
	var parts []segment.Part
	var spilled []*change
	for _, c := range open {
		if c.archive == nil {
			continue
		}
		b := c.archive.Encode()
		first, last := c.archive.Entries[0], c.archive.Entries[len(c.archive.Entries)-1]
		parts = append(parts, segment.Part{Log: c.log, Pos: int64(len(buf)), Len: int64(len(b)), CRC32C: wire.Checksum(b), First: int64(first.Base), Last: int64(last.End)})
		buf = append(buf, b...)
		spilled = append(spilled, c)
	}
	if len(parts) == 0 {
		return nil
	}
	buf = segment.AppendDirectory(buf, segment.PackArchives, parts)
	if err := t.put(ctx, name, buf); err != nil {
		return err
	}
	for i, c := range spilled {
		p := parts[i]
		next, err := c.next.AddArchive(c.archive, manifest.ArchiveRef{Object: name, ObjectBytes: int64(len(buf)), Pos: p.Pos, Len: p.Len, CRC32C: p.CRC32C})
		if err != nil {
			return fmt.Errorf("spill: %w", err)
		}
		c.next = next
	}
	return nil
}

// writeManifests writes the new manifests as one object and answers the roots that name them.
func (t *Tiering) writeManifests(ctx context.Context, open []*change, name string) ([]*metadata.Root, error) {
	var buf []byte
	parts := make([]segment.Part, len(open))
	swaps := make([]*metadata.Root, len(open))
	now := t.o.Clock.Now()
	for i, c := range open {
		m := c.next.With(c.epoch, t.roots.nextSeq(c.log, now.UnixMicro()), now.UnixMilli())
		c.next = m
		b := m.Encode()
		p := segment.Part{Log: c.log, Pos: int64(len(buf)), Len: int64(len(b)), CRC32C: wire.Checksum(b), First: int64(m.Epoch), Last: m.Seq}
		parts[i] = p
		buf = append(buf, b...)
		swaps[i] = &metadata.Root{Log: c.log, Epoch: m.Epoch, Seq: m.Seq, Object: name, Pos: p.Pos, Len: p.Len, CRC32C: p.CRC32C, Start: m.LogStart, TieredEnd: m.End, Bytes: m.Bytes(), Objects: m.Segments(), Rev: c.old.Rev}
	}
	buf = segment.AppendDirectory(buf, segment.PackManifests, parts)
	return swaps, t.put(ctx, name, buf)
}

// concluded handles the outcome of one swap.
func (t *Tiering) concluded(ctx context.Context, c *change, root metadata.Root, err error) {
	switch {
	case err == nil:
		t.committed(c, root)
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		t.fenced(c, fmt.Errorf("commit manifest of %s: %w", c.log, err))
	default: // fenced, or unknown: the root tells
		t.roots.doubt(c.log)
		current, ok, rerr := t.o.Meta.Root(ctx, c.log)
		switch {
		case rerr != nil: // it stays open
		case ok && current.Object == root.Object && current.Pos == root.Pos:
			t.committed(c, current)
		case errors.Is(err, kerr.FencedLeaderEpoch) && (!ok || current.Rev == c.old.Rev || current.Epoch > c.epoch):
			if !errors.Is(err, metadata.ErrIntentGone) { // then it is the leader epoch that moved on
				t.roots.fence(c.log, c.epoch)
			}
			t.fenced(c, fmt.Errorf("commit manifest of %s under epoch %d: %w", c.log, c.epoch, err))
		}
	}
}

// committed records a durable commit and what it let go of.
func (t *Tiering) committed(c *change, root metadata.Root) {
	t.roots.set(root, c.epoch)
	t.manifests.put(manifest.ArchiveKey{Object: root.Object, Pos: root.Pos}, c.next)
	switch {
	case len(c.next.Archives) == 0 && len(c.next.Entries) > 0:
		t.roots.setOldest(c.log, root.Object, c.next.Entries[0].MaxTimestamp)
	case len(c.dropped.Entries) == 0:
		t.roots.setOldest(c.log, root.Object, c.oldestTs)
	}
	now := t.o.Clock.Now()
	if c.old.Object != "" {
		t.garbage.add(now, c.old.Object)
		t.manifests.remove(manifest.ArchiveKey{Object: c.old.Object, Pos: c.old.Pos})
	}
	for _, e := range c.dropped.Entries {
		t.garbage.add(now, e.Object)
	}
	for _, a := range c.dropped.Archives {
		t.garbage.add(now, a.Object)
	}
	t.metrics.committed()
	c.settle(nil)
}

func countOpen(changes []*change) int {
	n := 0
	for _, c := range changes {
		if !c.done {
			n++
		}
	}
	return n
}

// failAll ends the changes that are still open and returns err if there were any.
func failAll(changes []*change, err error) error {
	open := countOpen(changes)
	if open == 0 {
		return nil
	}
	if err == nil {
		err = errors.New("attempts to commit are used up")
	}
	for _, c := range changes {
		if !c.done {
			c.settle(err)
		}
	}
	return err
}

func joinErrors(changes []*change) error {
	var errs []error
	for _, c := range changes {
		if c.err != nil && c.done {
			errs = append(errs, c.err)
		}
	}
	return errors.Join(errs...)
}
