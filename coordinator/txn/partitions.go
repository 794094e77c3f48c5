package txn

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/runtime"
	"github.com/varvelog/varve/internal/base"
)

// producer is who a request says it comes from.
type producer struct {
	txnID string
	id    base.ProducerID
	epoch int16
}

// check compares a producer with its transactional id's. An unknown one is a wrong mapping, as in Kafka.
func (t *transaction) check(p producer) int16 {
	switch {
	case t == nil || t.producerID != p.id:
		return codeInvalidMapping
	case t.epoch != p.epoch:
		return codeFenced
	}
	return 0
}

// addPartitions adds partitions to a transaction, which begins with the first; the answer is an error code.
func (m *machine) addPartitions(fx *runtime.Effects, who producer, add []base.TopicPartition, version int16, p *runtime.Promise) {
	t := m.txns[who.txnID]
	code := t.check(who)
	if t != nil && t.preparing() {
		code = codeConcurrent // before all else: the producer may already know the id and epoch that it will have then
	}
	if code == 0 && (t.state != stateOngoing || slices.ContainsFunc(add, func(tp base.TopicPartition) bool { return !t.has(tp) })) {
		m.put(fx, t.with(add, version, fx.Now.UnixMilli()))
	}
	fx.Reply(p, code)
}

// verifyPartitions tells which partitions are part of the open transaction (KIP-890): an error code for each.
func (m *machine) verifyPartitions(fx *runtime.Effects, who producer, ask []base.TopicPartition, p *runtime.Promise) {
	t := m.txns[who.txnID]
	code := t.check(who)
	if code == 0 && t.preparing() {
		code = codeConcurrent
	}
	out := make([]int16, len(ask))
	for i, tp := range ask {
		switch {
		case code != 0:
			out[i] = code
		case !t.has(tp):
			out[i] = codeAbortable
		}
	}
	fx.Reply(p, out)
}

// partitionsOf lists the partitions of a request, in its order.
func partitionsOf(topics []kmsg.AddPartitionsToTxnRequestTopic) []base.TopicPartition {
	var out []base.TopicPartition
	for i := range topics {
		for _, p := range topics[i].Partitions {
			out = append(out, base.TopicPartition{Topic: topics[i].Topic, Partition: p})
		}
	}
	return out
}

// missing gives the partitions that do not exist their error; if there is one, the others are not attempted (nil: all exist).
func (o *Options) missing(ps []base.TopicPartition) []int16 {
	gone := func(tp base.TopicPartition) bool { return !o.PartitionExists(tp.Topic, tp.Partition) }
	if !slices.ContainsFunc(ps, gone) {
		return nil
	}
	out := make([]int16, len(ps))
	for i, tp := range ps {
		if out[i] = codeNotAttempted; gone(tp) {
			out[i] = codeUnknownTopicOrPart
		}
	}
	return out
}
