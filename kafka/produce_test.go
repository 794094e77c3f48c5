package kafka

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/record"
)

// produced sends one partition's records and returns its answer.
func (p *probe) produced(r *kmsg.ProduceRequest) kmsg.ProduceResponseTopicPartition {
	p.t.Helper()
	resp := p.must(r).(*kmsg.ProduceResponse)
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		p.t.Fatalf("answer has the wrong shape: %+v", resp)
	}
	return resp.Topics[0].Partitions[0]
}

// TestProduceErrors: what the edge itself decides, with the codes of a real broker (probe/expected_kafka41_produce_validation.txt).
func TestProduceErrors(t *testing.T) {
	e := newEdge(t, nil)
	topic := e.topic("p", 1, nil)
	if _, err := e.meta.EnsureInternalTopic(t.Context(), metadata.ConsumerOffsetsTopic); err != nil {
		t.Fatal(err)
	}
	e.ingest.errs[base.TopicPartition{Topic: "p", Partition: 0}] = nil
	p := e.dial()
	id := "tx"
	txn := produceRequest(9, topic.ID, "p", -1, []byte{1})
	txn.TransactionID = &id
	missing := produceRequest(9, base.TopicID{}, "p", 1, []byte{1})
	missing.Topics[0].Partitions[0].Partition = 7
	for _, c := range []struct {
		name string
		req  *kmsg.ProduceRequest
		want int16
	}{
		{"ok v9", produceRequest(9, base.TopicID{}, "p", 1, []byte{1}), 0},
		{"ok v3", produceRequest(3, base.TopicID{}, "p", 1, []byte{1}), 0},
		{"ok v13", produceRequest(13, topic.ID, "", -1, []byte{1}), 0},
		{"null records", produceRequest(9, base.TopicID{}, "p", 1, nil), 87},
		{"acks=2", produceRequest(9, base.TopicID{}, "p", 2, []byte{1}), 21},
		{"acks=-2", produceRequest(9, base.TopicID{}, "p", -2, []byte{1}), 21},
		{"unknown topic", produceRequest(9, base.TopicID{}, "nope", 1, []byte{1}), 3},
		{"unknown partition", missing, 3},
		{"unknown topic id", produceRequest(13, base.TopicID{1, 2}, "", 1, []byte{1}), 100},
		{"internal topic", produceRequest(9, base.TopicID{}, metadata.ConsumerOffsetsTopic, 1, []byte{1}), 17},
		{"transactional", txn, 48},
	} {
		got := p.produced(c.req)
		if got.ErrorCode != c.want || (c.want != 0 && got.BaseOffset != -1) {
			t.Errorf("%s: error %d, base offset %d; want error %d", c.name, got.ErrorCode, got.BaseOffset, c.want)
		}
		if got.LogAppendTime != -1 {
			t.Errorf("%s: log append time %d", c.name, got.LogAppendTime)
		}
	}
	p.clientID = adminClientID
	if got := p.produced(produceRequest(9, base.TopicID{}, metadata.ConsumerOffsetsTopic, 1, []byte{1})); got.ErrorCode != 0 {
		t.Errorf("internal topic from %s: error %d", adminClientID, got.ErrorCode)
	}
}

// TestProduceErrorDetails: record errors (KIP-467), the leader (KIP-951), corruption and unknown errors.
func TestProduceErrorDetails(t *testing.T) {
	e := newEdge(t, nil)
	topic := e.topic("p", 1, nil)
	tp := base.TopicPartition{Topic: "p", Partition: 0}
	p := e.dial()
	fail := func(err error, version int16) kmsg.ProduceResponseTopicPartition {
		e.ingest.mu.Lock()
		e.ingest.errs[tp] = err
		e.ingest.mu.Unlock()
		return p.produced(produceRequest(version, topic.ID, "p", -1, []byte{1}))
	}
	invalid := &record.InvalidError{Err: kerr.InvalidTimestamp, Message: "One or more records have been rejected", Records: []record.RecordError{{Index: 2, Message: "too late"}}}
	got := fail(invalid, 9)
	if got.ErrorCode != 32 || got.ErrorMessage == nil || *got.ErrorMessage != invalid.Message || len(got.ErrorRecords) != 1 ||
		got.ErrorRecords[0].RelativeOffset != 2 || *got.ErrorRecords[0].ErrorMessage != "too late" {
		t.Errorf("record errors: %+v", got)
	}
	if got := fail(invalid, 7); got.ErrorCode != 32 || got.ErrorMessage != nil {
		t.Errorf("record errors in v7: %+v", got)
	}
	got = fail(kerr.NotLeaderForPartition, 12)
	part, _ := e.meta.Image().Partition(tp)
	if got.ErrorCode != 6 || got.CurrentLeader.LeaderID != 1 || got.CurrentLeader.LeaderEpoch != int32(part.LeaderEpoch) {
		t.Errorf("not leader: %+v", got)
	}
	for _, refused := range []*kerr.Error{kerr.OutOfOrderSequenceNumber, kerr.InvalidProducerEpoch} {
		for deposed, want := range map[bool]int16{false: refused.Code, true: 6} { // whose successor knows what it does not
			e.ingest.deposed.Store(deposed)
			if got := fail(refused, 12); got.ErrorCode != want || got.BaseOffset != -1 {
				t.Errorf("%v, deposed %v: %+v", refused, deposed, got)
			}
		}
	}
	if got := fail(base.MarkCorruption(errors.New("bad block")), 12); got.ErrorCode != 56 {
		t.Errorf("corruption: error %d, want 56", got.ErrorCode)
	}
	if got := fail(errors.New("something else"), 12); got.ErrorCode != -1 {
		t.Errorf("unknown: error %d, want -1", got.ErrorCode)
	}
	waitFor(t, "the unknown error is logged", func() bool {
		return e.logs.has("request failed with an unexpected error") && e.logs.has("something else")
	})
}

// TestProduceDuplicatePartitions: the last records of a partition count, and it is answered once.
func TestProduceDuplicatePartitions(t *testing.T) {
	e := newEdge(t, nil)
	e.topic("p", 2, nil)
	r := produceRequest(9, base.TopicID{}, "p", 1, []byte("first"))
	second, other := kmsg.NewProduceRequestTopicPartition(), kmsg.NewProduceRequestTopicPartition()
	second.Records, other.Records, other.Partition = []byte("second"), []byte("other"), 1
	r.Topics[0].Partitions = append(r.Topics[0].Partitions, other, second)
	resp := e.dial().must(r).(*kmsg.ProduceResponse)
	if len(resp.Topics[0].Partitions) != 2 {
		t.Errorf("%d partitions are answered, want 2", len(resp.Topics[0].Partitions))
	}
	e.ingest.mu.Lock()
	defer e.ingest.mu.Unlock()
	if log := e.ingest.logs[base.TopicPartition{Topic: "p"}]; len(log) != 1 || string(log[0]) != "second" {
		t.Errorf("partition 0 holds %q", log)
	}
}
