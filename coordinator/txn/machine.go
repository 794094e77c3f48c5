package txn

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/varvelog/varve/coordinator/runtime"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/invariants"
	"github.com/varvelog/varve/record"
)

// machine is the state of one partition of __transaction_state: its transactional ids. It is a runtime.Machine: pure,
// single-threaded, told the time by its Effects.
type machine struct {
	opts  *Options
	inst  *instruments
	log   *slog.Logger
	epoch base.LeaderEpoch // of the partition
	slow  slowWork

	txns    map[string]*transaction
	spareID base.ProducerID // for a timed-out transaction whose epochs are used up
	waiting bool            // for a spareID
}

// slowWork is what a machine has done outside of its shard's goroutine. Both return at once.
type slowWork interface {
	// markers has the markers of a transaction in Prepare* written and then calls complete in the shard.
	markers(m *machine, t *transaction)
	// spareID gets a producer id, or NoProducerID where there is none now, and calls gotSpareID in the shard.
	spareID(m *machine)
}

var _ runtime.Machine = (*machine)(nil)

func newMachine(o *Options, inst *instruments, partition int32, epoch base.LeaderEpoch, slow slowWork) *machine {
	return &machine{
		opts: o, inst: inst, epoch: epoch, slow: slow, log: o.Logger.With(slog.Int("partition", int(partition))),
		txns: map[string]*transaction{}, spareID: base.NoProducerID,
	}
}

// put makes a transition of a transactional id, or the first state of a new one.
func (m *machine) put(fx *runtime.Effects, t *transaction) {
	old := m.txns[t.id]
	invariants.Assert(old == nil || mayFollow(old.state, t.state), "transaction %q goes from %v to %v", t.id, old, t)
	m.txns[t.id] = t
	fx.Append(recordKey(t.id), recordValue(t))
	m.undo(fx, t.id, old)
}

// drop forgets a transactional id.
func (m *machine) drop(fx *runtime.Effects, t *transaction) {
	delete(m.txns, t.id)
	fx.Append(recordKey(t.id), nil)
	m.undo(fx, t.id, t)
}

func (m *machine) undo(fx *runtime.Effects, id string, old *transaction) {
	fx.OnUndo(func() {
		if old == nil {
			delete(m.txns, id)
		} else {
			m.txns[id] = old
		}
	})
}

// Loaded implements runtime.Machine: what was decided is carried out.
func (m *machine) Loaded(fx *runtime.Effects) {
	n := 0
	for _, t := range m.sorted() {
		if t.preparing() {
			m.slow.markers(m, t)
			n++
		}
	}
	m.scheduleTimeouts(fx)
	m.scheduleExpiry(fx)
	m.log.Info("transactions loaded", slog.Int("ids", len(m.txns)), slog.Int("to_complete", n))
}

// sorted are all transactions in the order of their ids, so that a step is a function of its input.
func (m *machine) sorted() []*transaction {
	out := slices.Collect(maps.Values(m.txns))
	slices.SortFunc(out, func(a, b *transaction) int { return strings.Compare(a.id, b.id) })
	return out
}

// Replay implements runtime.Machine.
func (m *machine) Replay(b record.Batch) error {
	if b.IsControl() {
		return nil
	}
	var bad error
	err := b.Each(func(r record.Record) bool {
		if bad = m.replayRecord(r); bad != nil {
			bad = base.MarkCorruption(fmt.Errorf("transaction record at offset %d: %w", r.Offset, bad))
		}
		return bad == nil
	})
	if err != nil {
		return fmt.Errorf("transaction records from offset %d: %w", b.BaseOffset(), err)
	}
	return bad
}

func (m *machine) replayRecord(r record.Record) error {
	id, known, err := parseKey(r.Key)
	if err != nil || !known {
		return err
	}
	if r.Value == nil {
		delete(m.txns, id)
		return nil
	}
	t, err := parseValue(id, r.Value)
	if err != nil {
		return err
	}
	m.txns[id] = t
	return nil
}

func (m *machine) count(fx *runtime.Effects, c counter, n int) {
	fx.OnSettled(func(_ *runtime.Effects, err error) {
		if err == nil {
			c.Add(context.Background(), int64(n))
		}
	})
}
