package txn

import (
	"regexp"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/runtime"
)

// describe is one transactional id of a DescribeTransactions request (KIP-664).
func (m *machine) describe(fx *runtime.Effects, id string, p *runtime.Promise) {
	t := m.txns[id]
	if t == nil {
		fx.ReplyNow(p, describeFailure(id, codeNotFound))
		return
	}
	out := describeFailure(id, 0)
	out.State, out.TimeoutMillis, out.StartTimestamp = t.state.String(), t.timeoutMs, t.startMs
	out.ProducerID, out.ProducerEpoch = int64(t.producerID), t.epoch
	for i, tp := range t.partitions {
		if i == 0 || tp.Topic != t.partitions[i-1].Topic {
			topic := kmsg.NewDescribeTransactionsResponseTransactionStateTopic()
			topic.Topic = tp.Topic
			out.Topics = append(out.Topics, topic)
		}
		last := &out.Topics[len(out.Topics)-1]
		last.Partitions = append(last.Partitions, tp.Partition)
	}
	fx.ReplyNow(p, out)
}

func describeFailure(id string, code int16) *kmsg.DescribeTransactionsResponseTransactionState {
	out := kmsg.NewDescribeTransactionsResponseTransactionState()
	out.TransactionalID, out.ErrorCode = id, code
	return &out
}

// filter is what a ListTransactions request lets pass.
type filter struct {
	states     []state // with anyState unset
	anyState   bool
	producers  []int64 // empty: all
	durationMs int64   // negative: all
	pattern    *regexp.Regexp
}

// filterOf reads a request. States that do not exist are named in the answer and match nothing; bad says that the pattern is no
// regular expression.
func filterOf(r *kmsg.ListTransactionsRequest) (f filter, unknown []string, bad error) {
	f = filter{anyState: len(r.StateFilters) == 0, producers: r.ProducerIDFilters, durationMs: -1}
	all := kmsg.TransactionStateStrings()
	for _, name := range r.StateFilters {
		if i := slices.Index(all, name); i >= 0 {
			f.states = append(f.states, state(i))
		} else {
			unknown = append(unknown, name)
		}
	}
	if r.Version >= 1 {
		f.durationMs = r.DurationFilterMillis
	}
	if r.Version >= 2 && r.TransactionalIDPattern != nil && *r.TransactionalIDPattern != "" {
		if f.pattern, bad = regexp.Compile(*r.TransactionalIDPattern); bad == nil {
			f.pattern, bad = regexp.Compile(`\A(?:` + *r.TransactionalIDPattern + `)\z`) // it has to match the whole id
		}
	}
	return f, unknown, bad
}

// passes applies the filter. A transactional id without a transaction counts as running since the beginning of time: so in Kafka
// (TransactionStateManager.listTransactionStates).
func (f *filter) passes(t *transaction, nowMs int64) bool {
	return (f.anyState || slices.Contains(f.states, t.state)) &&
		(len(f.producers) == 0 || slices.Contains(f.producers, int64(t.producerID))) &&
		(f.durationMs < 0 || nowMs-t.startMs > f.durationMs) &&
		(f.pattern == nil || f.pattern.MatchString(t.id))
}

// list is this shard's part of a ListTransactions request.
func (m *machine) list(fx *runtime.Effects, f *filter, p *runtime.Promise) {
	out := []kmsg.ListTransactionsResponseTransactionState{}
	for _, t := range m.sorted() {
		if f.passes(t, fx.Now.UnixMilli()) {
			s := kmsg.NewListTransactionsResponseTransactionState()
			s.TransactionalID, s.ProducerID, s.TransactionState = t.id, int64(t.producerID), t.state.String()
			out = append(out, s)
		}
	}
	fx.ReplyNow(p, out)
}
