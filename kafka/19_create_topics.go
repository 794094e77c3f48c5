package kafka

import (
	"context"
	"sort"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
)

// CreateTopics (19), versions 2-7.
//
//   - -1 partitions and -1 replicas mean the broker's defaults (KIP-464). With an assignment both must be -1.
//   - A name that stands twice in the request is 42 for each; the others are created.
//   - ValidateOnly answers what would be created, with an id that is not kept.
//   - v5: partitions, replication factor and all configs of the new topic (KIP-525); v7: its id.
func handleCreateTopics(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.CreateTopicsRequest)
	resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
	ctx, cancel := s.requestTimeout(req.TimeoutMillis)
	defer cancel()
	times := map[string]int{}
	for i := range req.Topics {
		times[req.Topics[i].Topic]++
	}
	for i := range req.Topics {
		t := &req.Topics[i]
		if times[t.Topic] == 0 {
			continue // a duplicate that was answered
		}
		out := kmsg.NewCreateTopicsResponseTopic()
		out.Topic, out.NumPartitions, out.ReplicationFactor = t.Topic, -1, -1
		var topic *metadataTopic
		var err error
		if times[t.Topic] > 1 {
			err = refuse(kerr.InvalidRequest, "Duplicate topic name.")
			times[t.Topic] = 0
		} else {
			topic, err = s.createTopic(ctx, t, req.ValidateOnly)
		}
		if err != nil {
			out.ErrorCode, out.ErrorMessage = r.code(err), messageOf(err)
		} else {
			s.fillCreated(&out, topic, req)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

// minAdminTimeout is what an admin request gets whatever it asked for, so that a timeout of 0 does not always fail.
const minAdminTimeout = time.Second

// requestTimeout bounds a change by the timeout that its request names. A change that was begun goes on when the client goes
// away, as in Kafka.
func (s *Server) requestTimeout(timeoutMs int32) (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.goroot.Context(), max(time.Duration(timeoutMs)*time.Millisecond, minAdminTimeout))
}

func (s *Server) createTopic(ctx context.Context, t *kmsg.CreateTopicsRequestTopic, validateOnly bool) (*metadataTopic, error) {
	spec := metadata.TopicSpec{Name: t.Topic, Partitions: t.NumPartitions, ReplicationFactor: t.ReplicationFactor}
	if len(t.ReplicaAssignment) > 0 {
		switch {
		case t.ReplicationFactor != -1:
			return nil, refuse(kerr.InvalidRequest, "A manual partition assignment was specified, but replication factor was not set to -1.")
		case t.NumPartitions != -1:
			return nil, refuse(kerr.InvalidRequest, "A manual partition assignment was specified, but numPartitions was not set to -1.")
		}
		spec.Assignment = map[int32][]base.BrokerID{}
		for _, a := range t.ReplicaAssignment {
			if _, dup := spec.Assignment[a.Partition]; dup {
				return nil, refuse(kerr.InvalidReplicaAssignment, "Found multiple manual partition assignments for partition "+itoa(a.Partition))
			}
			spec.Assignment[a.Partition] = toBrokerIDs(a.Replicas)
		}
	}
	for _, c := range t.Configs {
		if c.Value == nil {
			return nil, refuse(kerr.InvalidConfig, "Null value not supported for topic configs: "+c.Name)
		}
		if spec.Configs == nil {
			spec.Configs = map[string]string{}
		}
		spec.Configs[c.Name] = *c.Value
	}
	return s.deps.meta.CreateTopic(ctx, spec, validateOnly)
}

func toBrokerIDs(ids []int32) []base.BrokerID {
	out := make([]base.BrokerID, len(ids))
	for i, id := range ids {
		out[i] = base.BrokerID(id)
	}
	return out
}

// fillCreated describes a created topic.
func (s *Server) fillCreated(out *kmsg.CreateTopicsResponseTopic, topic *metadataTopic, req *kmsg.CreateTopicsRequest) {
	out.TopicID = topic.ID
	if req.Version < 5 {
		return
	}
	out.NumPartitions = int32(len(topic.Partitions))
	if len(topic.Partitions) > 0 {
		out.ReplicationFactor = int16(len(topic.Partitions[0].Replicas))
	}
	out.Configs = []kmsg.CreateTopicsResponseTopicConfig{}
	entries, err := s.deps.meta.DescribeConfigs(metadata.Resource{Type: metadata.ResourceTopic, Name: topic.Name}, nil)
	if err != nil {
		// Validated only, or deleted again: what it sets is all that can be told.
		entries = entries[:0]
		for name, value := range topic.Overrides {
			entries = append(entries, metadata.ConfigEntry{Name: name, Value: text(value), Source: 1})
		}
		sort.Slice(entries, func(i, j int) bool { return entries[i].Name < entries[j].Name })
	}
	for _, e := range entries {
		c := kmsg.NewCreateTopicsResponseTopicConfig()
		c.Name, c.Value, c.ReadOnly, c.Source, c.IsSensitive = e.Name, e.Value, e.ReadOnly, e.Source, e.Sensitive
		out.Configs = append(out.Configs, c)
	}
}
