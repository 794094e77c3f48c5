package kafka

import (
	"context"
	"sort"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeTopicPartitions (75), version 0 (KIP-966).
//
//   - Topics are sorted by name; an empty list means all. Authorised operations are always filled.
//   - At most min(2000, limit) partitions come in one answer; the cursor says where the next one starts (inclusive). Where topics are
//     named, the cursor's must be one of them (42).
//   - A name that does not exist is 3, one that cannot be is 17. Nothing is created.
//   - A partition without a leader has leader -1 and, unlike in Metadata, no error. The last known ELR is never kept.
func handleDescribeTopicPartitions(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.DescribeTopicPartitionsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeTopicPartitionsResponse)
	img := s.deps.meta.Image()
	names, all, ok := namesToDescribe(img, req)
	if !ok {
		for _, name := range names {
			resp.Topics = append(resp.Topics, missingPartitions(name, r.code(kerr.InvalidRequest), noOperations))
		}
		return resp, nil
	}
	limit := max(min(int(req.ResponsePartitionLimit), maxDescribedPartitions), 1)
	for _, name := range names {
		from := 0
		if req.Cursor != nil {
			switch {
			case name < req.Cursor.Topic:
				continue
			case name == req.Cursor.Topic:
				from = int(req.Cursor.Partition)
			}
		}
		topic, found := img.Topic(name)
		if !found {
			code := kerr.UnknownTopicOrPartition.Code
			if invalidTopicName(name) {
				code = kerr.InvalidTopicException.Code
			}
			r.note(code)
			if !all {
				resp.Topics = append(resp.Topics, missingPartitions(name, code, topicOperations))
			}
			continue
		}
		if limit == 0 {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name}
			break
		}
		to := min(len(topic.Partitions), from+limit)
		resp.Topics = append(resp.Topics, describePartitions(img, topic, from, to))
		limit -= max(to-from, 0)
		if to < len(topic.Partitions) {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name, Partition: int32(to)}
			break
		}
	}
	return resp, nil
}

// maxDescribedPartitions is max.request.partition.size.limit.
const maxDescribedPartitions = 2000

// namesToDescribe lists the topics in order. ok is false where the cursor does not belong to the request.
func namesToDescribe(img image, req *kmsg.DescribeTopicPartitionsRequest) (names []string, all, ok bool) {
	if req.Cursor != nil && req.Cursor.Partition < 0 {
		return []string{req.Cursor.Topic}, false, false
	}
	if len(req.Topics) == 0 {
		for _, t := range img.Topics() {
			names = append(names, t.Name)
		}
		return names, true, true
	}
	ok = req.Cursor == nil
	seen := map[string]bool{}
	for _, t := range req.Topics {
		if !seen[t.Topic] {
			seen[t.Topic] = true
			names = append(names, t.Topic)
		}
		ok = ok || t.Topic == req.Cursor.Topic
	}
	sort.Strings(names)
	return names, false, ok
}

func missingPartitions(name string, code int16, operations int32) kmsg.DescribeTopicPartitionsResponseTopic {
	t := kmsg.NewDescribeTopicPartitionsResponseTopic()
	t.Topic, t.ErrorCode, t.AuthorizedOperations = text(name), code, operations
	return t
}

func describePartitions(img image, topic *metadataTopic, from, to int) kmsg.DescribeTopicPartitionsResponseTopic {
	t := kmsg.NewDescribeTopicPartitionsResponseTopic()
	t.Topic, t.TopicID, t.IsInternal, t.AuthorizedOperations = text(topic.Name), topic.ID, topic.Internal, topicOperations
	live := liveBrokers(img)
	for i := from; i < to; i++ {
		p := &topic.Partitions[i]
		out := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
		out.Partition, out.LeaderID, out.LeaderEpoch = int32(i), int32(p.Leader), int32(p.LeaderEpoch)
		out.Replicas, out.ISR = brokerIDs(p.Replicas), brokerIDs(p.ISR)
		out.EligibleLeaderReplicas, out.LastKnownELR = brokerIDs(p.ELR), []int32{}
		out.OfflineReplicas = offline(live, p.Replicas)
		if p.Leader < 0 || !live[p.Leader] {
			out.LeaderID = -1
		}
		t.Partitions = append(t.Partitions, out)
	}
	return t
}
