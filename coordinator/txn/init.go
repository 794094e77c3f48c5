package txn

import (
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/runtime"
	"github.com/varvelog/varve/internal/base"
)

// needProducerID is the answer of a step that cannot go on without a new producer id: the caller gets one, which blocks, and
// takes the step again.
type needProducerID struct{}

// initProducerID is one InitProducerId request of a transactional id (KIP-98, KIP-360). fresh is a producer id that was never
// used, or NoProducerID where none was asked for yet.
func (m *machine) initProducerID(fx *runtime.Effects, r *kmsg.InitProducerIDRequest, fresh base.ProducerID, p *runtime.Promise) {
	t, now := m.txns[*r.TransactionalID], fx.Now.UnixMilli()
	switch {
	case t == nil && fresh == base.NoProducerID:
		fx.ReplyNow(p, needProducerID{})
		return
	case t == nil:
		t = &transaction{id: *r.TransactionalID, producerID: fresh, nextID: base.NoProducerID}
		t = t.initialised(fresh, 0, noEpoch, r.TransactionTimeoutMillis, now)
	case t.preparing():
		fx.Reply(p, initFailure(r.Version, codeConcurrent))
		return
	case !ownProducer(t, r):
		fx.Reply(p, initFailure(r.Version, codeFenced))
		return
	case t.state == stateOngoing:
		// Whoever asks takes over: the open transaction is aborted, and the caller comes again when that is done. The epoch of
		// this request is not looked at, as in Kafka (TransactionCoordinator.prepareInitProducerIdTransit).
		if !m.prepare(fx, t, false, version2, fresh) {
			fx.ReplyNow(p, needProducerID{})
			return
		}
		fx.Reply(p, initFailure(r.Version, codeConcurrent))
		return
	default:
		id, epoch, retry, code := nextEpoch(t, r)
		if code == 0 && id == base.NoProducerID {
			if fresh == base.NoProducerID {
				fx.ReplyNow(p, needProducerID{})
				return
			}
			id = fresh
		}
		if code != 0 {
			fx.Reply(p, initFailure(r.Version, code))
			return
		}
		t = t.initialised(id, epoch, retry, r.TransactionTimeoutMillis, now)
	}
	m.put(fx, t)
	resp := initFailure(r.Version, 0)
	resp.ProducerID, resp.ProducerEpoch = int64(t.producerID), t.epoch
	fx.Reply(p, resp)
}

// recovers reports whether the request says which producer it was (KIP-360); otherwise it takes the transactional id over.
func recovers(r *kmsg.InitProducerIDRequest) bool { return r.ProducerID != -1 }

// ownProducer reports whether a request that says which producer it was has the id of the current one, or of the one before
// it, if that had used up its epochs: then the answer that told it so may have been lost.
func ownProducer(t *transaction, r *kmsg.InitProducerIDRequest) bool {
	id := base.ProducerID(r.ProducerID)
	return !recovers(r) || id == t.producerID || (id == t.previousID && exhausted(r.ProducerEpoch))
}

// nextEpoch decides what a producer goes on with where no transaction is open: NoProducerID stands for a new producer id.
func nextEpoch(t *transaction, r *kmsg.InitProducerIDRequest) (id base.ProducerID, epoch, retry, code int16) {
	retry = noEpoch // a takeover: nobody else may come again
	if recovers(r) {
		if r.ProducerEpoch != t.epoch {
			if r.ProducerEpoch == t.retryEpoch {
				return t.producerID, t.epoch, t.retryEpoch, 0 // the answer was lost: the same again
			}
			return 0, 0, 0, codeFenced
		}
		retry = t.epoch
	}
	if exhausted(t.epoch) {
		return base.NoProducerID, 0, retry, 0
	}
	return t.producerID, t.epoch + 1, retry, 0
}

// initFailure is the answer of an InitProducerId request without a producer.
func initFailure(version, code int16) *kmsg.InitProducerIDResponse {
	resp := kmsg.NewPtrInitProducerIDResponse()
	resp.Version, resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch = version, code, -1, noEpoch
	return resp
}
