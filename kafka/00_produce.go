package kafka

import (
	"context"
	"errors"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.opentelemetry.io/otel/trace"

	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// Produce (0), versions 3-13; 0-2 are advertised and close the connection.
//
//   - acks must be -1, 0 or 1, else 21 for each partition. acks=0 has no response; an error closes the connection.
//   - Internal topics are refused with 17, unless the client id is __admin_client (Kafka: KafkaApis.handleProduceRequest).
//   - A partition that is named twice is appended once, with its last records (Kafka collects into a map).
//   - A null records field is 87 (the 4.1 broker never answers it).
//   - A transactional id is refused with 48: there is no transaction coordinator yet.
//
// v5 LogStartOffset; v7 zstd; v8 RecordErrors and ErrorMessage (KIP-467); v10 CurrentLeader and NodeEndpoints on error 6
// (KIP-951); v13 topic ids (KIP-516), unknown ones are 100.

// adminClientID may write to internal topics.
const adminClientID = "__admin_client"

// produceSlot says where the result of an append goes.
type produceSlot struct{ topic, partition int }

// beginProduce orders the batches; the finisher waits for them.
func beginProduce(s *Server, r *request) finisher {
	req := r.Request.(*kmsg.ProduceRequest)
	resp := req.ResponseKind().(*kmsg.ProduceResponse)
	appends, slots := s.splitProduce(r, req, resp)
	var rec receipt
	if len(appends) > 0 {
		// The append outlives the connection: what was ordered is finished whoever still listens.
		ctx := s.goroot.Context()
		if r.span != nil {
			ctx = trace.ContextWithSpan(ctx, r.span)
		}
		rec = s.deps.ingest.Append(ctx, req.Acks, req.TimeoutMillis, appends)
	}
	req.Topics = nil
	return func(ctx context.Context, r *request) (kmsg.Response, error) {
		if rec != nil {
			select {
			case <-rec.Done():
				results := rec.Results()
				s.confirmProduce(ctx, appends, results)
				s.fillProduce(r, resp, appends, slots, results)
			case <-s.goroot.Context().Done():
				return nil, errDraining
			}
		}
		if req.Acks == 0 {
			if r.failure != 0 {
				return nil, kerr.ErrorForCode(r.failure)
			}
			return nil, nil
		}
		return resp, nil
	}
}

// confirmProduce makes sure of what would make an idempotent producer start anew with what it has in flight, and so write it twice: a broker
// that was deposed and has not heard of it does not know what its successor has.
func (s *Server) confirmProduce(ctx context.Context, appends []ingest.AppendRequest, results []ingest.AppendResult) {
	for i := range results {
		err := results[i].Err
		if errors.Is(err, kerr.OutOfOrderSequenceNumber) || errors.Is(err, kerr.InvalidProducerEpoch) {
			if err := s.deps.ingest.Confirm(ctx, appends[i].TP); err != nil {
				results[i] = ingest.AppendResult{BaseOffset: base.NoOffset, LogAppendTimeMs: -1, LogStart: base.NoOffset, Err: err}
			}
		}
	}
}

// splitProduce prepares the response and returns what is to be appended.
func (s *Server) splitProduce(r *request, req *kmsg.ProduceRequest, resp *kmsg.ProduceResponse) ([]ingest.AppendRequest, []produceSlot) {
	img := s.deps.meta.Image()
	appends := make([]ingest.AppendRequest, 0, 1)
	slots := make([]produceSlot, 0, 1)
	var seen map[base.TopicPartition]int
	resp.Topics = make([]kmsg.ProduceResponseTopic, 0, len(req.Topics))
	for i := range req.Topics {
		t := &req.Topics[i]
		name, refused := s.produceTopic(img, r, req, t)
		out := kmsg.NewProduceResponseTopic()
		out.Topic, out.TopicID = t.Topic, t.TopicID
		out.Partitions = make([]kmsg.ProduceResponseTopicPartition, 0, len(t.Partitions))
		for j := range t.Partitions {
			p := &t.Partitions[j]
			tp := base.TopicPartition{Topic: name, Partition: p.Partition}
			if len(req.Topics) > 1 || len(t.Partitions) > 1 {
				if seen == nil {
					seen = map[base.TopicPartition]int{}
				}
				if at, dup := seen[tp]; dup && refused == nil {
					appends[at].Records = p.Records
					continue
				}
			}
			op := kmsg.NewProduceResponseTopicPartition()
			op.Partition, op.BaseOffset = p.Partition, -1
			err := refused
			if err == nil && p.Records == nil {
				err = kerr.InvalidRecord
			}
			if err != nil {
				op.ErrorCode = r.code(err)
			} else {
				if seen != nil {
					seen[tp] = len(appends)
				}
				appends = append(appends, ingest.AppendRequest{TP: tp, TopicID: base.TopicID(t.TopicID), Records: p.Records, ZstdAllowed: req.Version >= 7})
				slots = append(slots, produceSlot{len(resp.Topics), len(out.Partitions)})
			}
			out.Partitions = append(out.Partitions, op)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return appends, slots
}

// produceTopic resolves a topic's name and says why all its partitions are refused, if they are.
func (s *Server) produceTopic(img image, r *request, req *kmsg.ProduceRequest, t *kmsg.ProduceRequestTopic) (string, error) {
	name := t.Topic
	var topic *metadataTopic
	var ok bool
	if req.Version >= 13 {
		if topic, ok = img.TopicByID(base.TopicID(t.TopicID)); !ok {
			return "", kerr.UnknownTopicID
		}
		name = topic.Name
	} else if topic, ok = img.Topic(name); !ok {
		return name, kerr.UnknownTopicOrPartition
	}
	switch {
	case req.TransactionID != nil:
		return name, kerr.InvalidTxnState
	case req.Acks < -1 || req.Acks > 1:
		return name, kerr.InvalidRequiredAcks
	case topic.Internal && r.clientID != adminClientID:
		return name, kerr.InvalidTopicException
	}
	return name, nil
}

// fillProduce puts the results of the appends into the response.
func (s *Server) fillProduce(r *request, resp *kmsg.ProduceResponse, appends []ingest.AppendRequest, slots []produceSlot, results []ingest.AppendResult) {
	for i := range results {
		res, at := &results[i], slots[i]
		p := &resp.Topics[at.topic].Partitions[at.partition]
		p.LogStartOffset = int64(res.LogStart)
		if res.Err == nil {
			p.BaseOffset, p.LogAppendTime = int64(res.BaseOffset), res.LogAppendTimeMs
			continue
		}
		p.ErrorCode = r.code(res.Err)
		var invalid *record.InvalidError
		if errors.As(res.Err, &invalid) {
			fillRecordErrors(p, invalid, appends[i].TP)
			p.LogStartOffset = s.logStartOf(invalid, appends[i].TP, res.LogStart)
		}
		if p.ErrorCode == kerr.NotLeaderForPartition.Code && resp.Version >= 10 {
			s.nameLeader(appends[i].TP, func(leader metadataBroker, id base.BrokerID, epoch base.LeaderEpoch) {
				p.CurrentLeader.LeaderID, p.CurrentLeader.LeaderEpoch = int32(id), int32(epoch)
				b := kmsg.NewProduceResponseBroker()
				b.NodeID, b.Host, b.Port, b.Rack = int32(leader.ID), leader.Host, leader.Port, leader.Rack
				if !hasBroker(resp.Brokers, b.NodeID) {
					resp.Brokers = append(resp.Brokers, b)
				}
			})
		}
	}
}

// logStartOf is what Kafka shows as log start offset of a refused batch: what the log's own checks refuse carries it, what is
// refused before them carries -1 (facts/protocol.md, 3.1). A batch that ingest refused before it looked at the log is told here.
func (s *Server) logStartOf(invalid *record.InvalidError, tp base.TopicPartition, known base.Offset) int64 {
	if !invalid.WithLogStart {
		return -1
	}
	if known < 0 {
		if st, err := s.deps.ingest.Status(tp); err == nil {
			known = st.LogStart
		}
	}
	return int64(known)
}

func hasBroker(brokers []kmsg.ProduceResponseBroker, id int32) bool {
	for i := range brokers {
		if brokers[i].NodeID == id {
			return true
		}
	}
	return false
}

// fillRecordErrors tells which records were refused, in Kafka's words: where a key is missing it names the partition, which
// package record does not know.
func fillRecordErrors(p *kmsg.ProduceResponseTopicPartition, invalid *record.InvalidError, tp base.TopicPartition) {
	if invalid.Message != "" {
		p.ErrorMessage = text(invalid.Message)
	}
	for _, e := range invalid.Records {
		out := kmsg.NewProduceResponseTopicPartitionErrorRecord()
		out.RelativeOffset = e.Index
		if e.Message != "" {
			out.ErrorMessage = text(e.Message)
		}
		if strings.HasSuffix(e.Message, "without key") {
			out.ErrorMessage = text(e.Message + " in topic partition " + tp.String())
		}
		p.ErrorRecords = append(p.ErrorRecords, out)
	}
}

// nameLeader calls fn with the partition's leader where it is another, live broker (KIP-951).
func (s *Server) nameLeader(tp base.TopicPartition, fn func(b metadataBroker, leader base.BrokerID, epoch base.LeaderEpoch)) {
	img := s.deps.meta.Image()
	p, ok := img.Partition(tp)
	if !ok || p.Leader < 0 {
		return
	}
	for _, b := range img.Brokers() {
		if b.ID == p.Leader {
			fn(b, p.Leader, p.LeaderEpoch)
			return
		}
	}
}
