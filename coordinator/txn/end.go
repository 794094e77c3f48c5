package txn

import (
	"log/slog"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/runtime"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/invariants"
)

// endVersion2 is the first version of EndTxn that bumps the epoch (KIP-890).
const endVersion2 = 5

// verdict is what an EndTxn request comes to.
type verdict struct {
	code    int16
	prepare bool // else nothing changes
}

// endTxn is one EndTxn request. fresh is as in initProducerID.
func (m *machine) endTxn(fx *runtime.Effects, r *kmsg.EndTxnRequest, fresh base.ProducerID, p *runtime.Promise) {
	t := m.txns[r.TransactionalID]
	who := producer{r.TransactionalID, base.ProducerID(r.ProducerID), r.ProducerEpoch}
	v, version := endVersionOne(t, who, r.Commit), int16(version0)
	if r.Version >= endVersion2 {
		v, version = endVersionTwo(t, who, r.Commit), version2
	}
	if v.prepare && !m.prepare(fx, t, r.Commit, version, fresh) {
		fx.ReplyNow(p, needProducerID{})
		return
	}
	resp := endFailure(r.Version, v.code)
	if v.code == 0 && version == version2 {
		end := m.txns[r.TransactionalID]
		if end.preparing() {
			end = end.completed(0) // what the producer will have when its markers are written
		}
		resp.ProducerID, resp.ProducerEpoch = int64(end.producerID), end.epoch
	}
	fx.Reply(p, resp)
}

// endVersionOne judges EndTxn 0 to 4: the epoch stays, so a retry looks like the request that it repeats.
func endVersionOne(t *transaction, who producer, commit bool) verdict {
	code := t.check(who)
	switch {
	case code != 0:
	case t.preparing():
		code = codeConcurrent
	case t.state == stateOngoing:
		return verdict{prepare: true}
	case t.state != completeOf(commit):
		code = codeInvalidState
	}
	return verdict{code: code}
}

// endVersionTwo judges EndTxn 5. A retry has the epoch before the bump, or the last one of the producer id before; the current
// epoch is a new request, which may abort a transaction without partitions.
func endVersionTwo(t *transaction, who producer, commit bool) verdict {
	switch {
	case t == nil:
		return verdict{code: codeInvalidMapping}
	case t.preparing():
		return verdict{code: codeConcurrent}
	}
	complete := t.state == stateCompleteCommit || t.state == stateCompleteAbort
	overflowed := who.id == t.previousID && who.id != t.producerID && who.epoch == lastEpoch && t.epoch == 0
	bumped := who.id == t.producerID && int(who.epoch)+1 == int(t.epoch)
	if complete && (overflowed || bumped) {
		if t.state == completeOf(commit) {
			return verdict{}
		}
		return verdict{code: codeInvalidState}
	}
	if overflowed {
		return verdict{code: codeFenced} // it has begun anew since
	}
	if code := t.check(who); code != 0 {
		return verdict{code: code}
	}
	if commit && t.state != stateOngoing {
		return verdict{code: codeInvalidState}
	}
	return verdict{prepare: true}
}

func completeOf(commit bool) state {
	if commit {
		return stateCompleteCommit
	}
	return stateCompleteAbort
}

// prepare decides how a transaction ends and, once that is committed, has its markers written. It reports false, and has done
// nothing, where it needs a fresh producer id.
func (m *machine) prepare(fx *runtime.Effects, t *transaction, commit bool, version int16, fresh base.ProducerID) bool {
	next := base.NoProducerID
	if version >= version2 && exhausted(t.epoch) {
		if fresh == base.NoProducerID {
			return false
		}
		next = fresh
	}
	n := t.prepared(commit, version, next, fx.Now.UnixMilli())
	m.put(fx, n)
	fx.OnSettled(func(_ *runtime.Effects, err error) {
		if err == nil {
			m.slow.markers(m, n)
		}
	})
	ended := m.inst.aborted
	if commit {
		ended = m.inst.committed
	}
	m.count(fx, ended, 1)
	return true
}

// complete follows when the markers of a prepared transaction are written. Nothing but this changes such a transaction.
func (m *machine) complete(fx *runtime.Effects, t *transaction) {
	invariants.Assert(m.txns[t.id] == t, "markers of transaction %q: %v is now %v", t.id, t, m.txns[t.id])
	m.put(fx, t.completed(fx.Now.UnixMilli()))
	fx.OnSettled(func(next *runtime.Effects, err error) {
		if err == nil {
			return
		}
		m.log.Warn("transaction not completed", slog.String("txn", t.id), slog.Any("error", err))
		key := runtime.TimerKey{Kind: "complete", Group: t.id}
		next.SetTimer(key, m.opts.MarkerBackoff, func(fx *runtime.Effects) { m.complete(fx, t) })
	})
}

// endFailure is the answer of an EndTxn request without a producer.
func endFailure(version, code int16) *kmsg.EndTxnResponse {
	resp := kmsg.NewPtrEndTxnResponse()
	resp.Version, resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch = version, code, -1, noEpoch
	return resp
}
