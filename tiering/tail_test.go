package tiering_test

import (
	"slices"
	"testing"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/tiering"
	"github.com/varvelog/varve/tiering/tiertest"
)

// TestTail starts a replica over at the tiered end of packed logs, of longer ones, and of those whose old segments are in
// archives, on the leader and on a follower: what it learns is what the leader's hot store had there.
func TestTail(t *testing.T) {
	for name, tune := range map[string]func(*tiering.Options){
		"packs and pieces": nil,
		"archives":         func(o *tiering.Options) { o.SpillEntries = 2 },
		"tiny memory":      func(o *tiering.Options) { o.SpillEntries, o.ManifestBytes, o.FooterBytes = 2, 1, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			c := tiertest.NewCluster(t, 2, tune)
			logs := c.Topic("t", 3, nil)
			for n := range uint64(5) {
				appendAll(c, logs, n)
				c.Drain()
				for _, h := range logs {
					checkTail(t, c, h, 0)
					c.Move(h, c.Brokers[n%2])
				}
			}
			// Retention drops something, and then everything.
			c.Sync()
			leader := c.Brokers[0]
			for _, h := range logs {
				if err := leader.Tier.DropBelow(t.Context(), h.Log, h.End()/2); err != nil {
					t.Fatal(err)
				}
			}
			c.SyncRoots()
			for _, h := range logs {
				checkTail(t, c, h, h.End()/2)
			}
			h := logs[0]
			if err := leader.Tier.DropBelow(t.Context(), h.Log, h.End()); err != nil {
				t.Fatal(err)
			}
			c.SyncRoots()
			got, err := c.Brokers[1].Tier.Reader().Tail(t.Context(), h.Log, h.End())
			if err != nil || got.End != h.End() || got.Start != h.End() || len(got.Producers) != 0 || len(got.Epochs) == 0 || got.Epochs[len(got.Epochs)-1] != lastBelow(h) {
				t.Errorf("of a log of which everything was dropped: %+v %v", got, err)
			}
			if got, err = leader.Tier.Reader().Tail(t.Context(), 12345, 0); err != nil || got.End != 0 || len(got.Epochs) != 0 {
				t.Errorf("of a log without a root: %+v %v", got, err)
			}
			// The log goes on behind what was dropped.
			appendAll(c, logs, 9)
			c.Drain()
			checkTail(t, c, h, h.End())
		})
	}
}

func lastBelow(h *tiertest.History) base.EpochStart {
	all := h.EpochsBelow(h.End())
	return all[len(all)-1]
}

func checkTail(t *testing.T, c *tiertest.Cluster, h *tiertest.History, start base.Offset) {
	t.Helper()
	epochs := h.EpochsBelow(h.End())
	for len(epochs) > 1 && epochs[1].Start <= start {
		epochs = epochs[1:]
	}
	for _, b := range c.Brokers {
		got, err := b.Tier.Reader().Tail(t.Context(), h.Log, h.End())
		if err != nil || got.End != h.End() || string(got.Producers) != string(tiertest.Producers(h.End())) || start < h.End() && !slices.Equal(got.Epochs, epochs) {
			t.Errorf("broker %d, %s: %+v, %q, %v; want the end %d, epochs %v", b.ID, h.TP, got, got.Producers, err, h.End(), epochs)
		}
	}
}

// TestTailOfAnOldRoot asks a broker that has not heard of what was tiered since, and of what was deleted.
func TestTailOfAnOldRoot(t *testing.T) {
	c, one, two, logs := pair(t, nil)
	c.Drain()
	c.Tune = func(o *tiering.Options) { o.OnRoot = nil }
	old := c.NewTiering(two)
	if err := old.LoadRoots(t.Context()); err != nil {
		t.Fatal(err)
	}
	h := logs[2]
	was := h.End()
	appendAll(c, logs, 2)
	c.Drain()
	if got, err := old.Reader().Tail(t.Context(), h.Log, was); err != nil || got.End != was {
		t.Errorf("nobody knows of more than %d: %+v %v", was, got, err)
	}
	if got, err := old.Reader().Tail(t.Context(), h.Log, was+1); err != nil || got.End != h.End() {
		t.Errorf("somebody knows of more than %d: %+v %v", was, got, err)
	}
	if got, err := old.Reader().Tail(t.Context(), h.Log, h.End()+5); err != nil || got.End != h.End() {
		t.Errorf("deleted before it was tiered: %+v %v", got, err)
	}
	// Every segment that it knows, and has not read, is let go of and deleted.
	old = c.NewTiering(two)
	if err := old.LoadRoots(t.Context()); err != nil {
		t.Fatal(err)
	}
	appendAll(c, logs, 3)
	c.Drain()
	known, err := old.Manifest(t.Context(), h.Log)
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Tier.DropBelow(t.Context(), h.Log, known.End); err != nil {
		t.Fatal(err)
	}
	for _, e := range known.Entries {
		if err := c.Mem.Delete(t.Context(), e.Object); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := old.Reader().Tail(t.Context(), h.Log, 0); err != nil || got.End != h.End() || got.Start != known.End {
		t.Errorf("of a root whose segments are gone: %+v %v", got, err)
	}
}

// TestTailThatCannotBeRead damages and loses the footer that it needs.
func TestTailThatCannotBeRead(t *testing.T) {
	c, one, _, logs := pair(t, func(o *tiering.Options) { o.FooterBytes = 1 })
	c.Drain()
	h := logs[2]
	if _, err := one.Tier.Reader().Tail(t.Context(), logs[0].Log, 0); err != nil { // another footer is in memory
		t.Fatal(err)
	}
	m, err := one.Tier.Manifest(t.Context(), h.Log)
	if err != nil {
		t.Fatal(err)
	}
	e := m.Entries[len(m.Entries)-1]
	c.Mem.Corrupt(e.Object, e.Pos+e.Len-e.TailBytes/2)
	if _, err := one.Tier.Reader().Tail(t.Context(), h.Log, 0); !base.IsCorruption(err) || tiering.Missing(err) {
		t.Errorf("damaged: %v", err)
	}
	if err := c.Mem.Delete(t.Context(), e.Object); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Tier.Reader().Tail(t.Context(), h.Log, 0); base.IsCorruption(err) || !tiering.Missing(err) {
		t.Errorf("lost: %v", err)
	}
	one.Faults.Arm(1, tiertest.FailBefore)
	if _, err := one.Tier.Reader().Tail(t.Context(), logs[1].Log, 0); err == nil || base.IsCorruption(err) || tiering.Missing(err) {
		t.Errorf("the bucket is away: %v", err)
	}
}
