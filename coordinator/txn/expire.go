package txn

import (
	"log/slog"
	"time"

	"github.com/varvelog/varve/coordinator/runtime"
	"github.com/varvelog/varve/internal/base"
)

// minRound keeps a setting from making a shard do nothing else.
const minRound = 10 * time.Millisecond

// scheduleTimeouts arranges for the next look at transactions that take too long.
func (m *machine) scheduleTimeouts(fx *runtime.Effects) {
	after := max(m.opts.Config().TimeoutCheck, minRound)
	fx.SetTimer(runtime.TimerKey{Kind: "timeouts"}, after, func(fx *runtime.Effects) {
		m.abortTimedOut(fx)
		m.scheduleTimeouts(fx)
	})
}

// abortTimedOut aborts the transactions that take longer than their producer said: each in a step of its own, so that what is
// lost with one batch leaves the others decided.
func (m *machine) abortTimedOut(fx *runtime.Effects) {
	now := fx.Now.UnixMilli()
	for _, t := range m.sorted() {
		if t.state == stateOngoing && t.startMs+int64(t.timeoutMs) < now {
			fx.SetTimer(runtime.TimerKey{Kind: "timeout", Group: t.id}, 0, func(fx *runtime.Effects) { m.timeOut(fx, t) })
		}
	}
}

// timeOut aborts a transaction and fences its producer. One whose epochs are used up waits for a new producer id.
func (m *machine) timeOut(fx *runtime.Effects, t *transaction) {
	if m.txns[t.id] != t {
		return // it went on meanwhile
	}
	if !m.prepare(fx, t, false, version2, m.spareID) {
		m.askSpareID()
		return
	}
	if exhausted(t.epoch) {
		m.spareID = base.NoProducerID
	}
	m.log.Info("transaction timed out", slog.String("txn", t.id), slog.Int64("producer", int64(t.producerID)),
		slog.Int("epoch", int(t.epoch)))
	m.count(fx, m.inst.timedOut, 1)
}

func (m *machine) askSpareID() {
	if !m.waiting {
		m.waiting = true
		m.slow.spareID(m)
	}
}

// gotSpareID goes on with what waited for a producer id, if there is one; otherwise the next round asks again.
func (m *machine) gotSpareID(fx *runtime.Effects, id base.ProducerID) {
	m.waiting, m.spareID = false, id
	if id != base.NoProducerID {
		m.abortTimedOut(fx)
	}
}

// scheduleExpiry arranges for the next look at transactional ids that nobody uses any more.
func (m *machine) scheduleExpiry(fx *runtime.Effects) {
	after := max(m.opts.Config().IDExpirationCheck, minRound)
	fx.SetTimer(runtime.TimerKey{Kind: "expiry"}, after, func(fx *runtime.Effects) {
		m.expireIDs(fx)
		m.scheduleExpiry(fx)
	})
}

func (m *machine) expireIDs(fx *runtime.Effects) {
	fx.Split()
	before, n := fx.Now.Add(-m.opts.Config().IDExpiration).UnixMilli(), 0
	for _, t := range m.sorted() {
		if t.state != stateOngoing && !t.preparing() && t.updateMs <= before {
			m.drop(fx, t)
			n++
		}
	}
	m.count(fx, m.inst.expired, n)
	if n > 0 {
		m.log.Info("transactional ids expired", slog.Int("ids", n))
	}
}
