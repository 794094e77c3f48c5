package kafka

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
)

// created sends one topic of CreateTopics and returns its answer.
func (p *probe) created(version int16, name string, partitions int32, replicas int16, configs map[string]string, validateOnly bool) kmsg.CreateTopicsResponseTopic {
	p.t.Helper()
	r := kmsg.NewPtrCreateTopicsRequest()
	r.Version, r.ValidateOnly, r.TimeoutMillis = version, validateOnly, 5000
	ct := kmsg.NewCreateTopicsRequestTopic()
	ct.Topic, ct.NumPartitions, ct.ReplicationFactor = name, partitions, replicas
	for k, v := range configs {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = k, &v
		ct.Configs = append(ct.Configs, c)
	}
	r.Topics = append(r.Topics, ct)
	return p.must(r).(*kmsg.CreateTopicsResponse).Topics[0]
}

// TestCreateTopics: the lines of probe/expected_kafka41_admin_groups.txt.
func TestCreateTopics(t *testing.T) {
	e := newEdge(t, nil)
	p := e.dial()
	for _, c := range []struct {
		name       string
		partitions int32
		replicas   int16
		configs    map[string]string
		code       int16
		message    string
	}{
		{"ok1", -1, -1, nil, 0, ""},
		{"ok1", 1, 1, nil, 36, "Topic 'ok1' already exists."},
		{"ok_1", 1, 1, nil, 0, ""},
		{"ok.1", 1, 1, nil, 17, "Topic 'ok.1' collides with existing topic: ok_1"},
		{"bad name!", 1, 1, nil, 17, "Topic name is invalid: 'bad name!' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"},
		{"", 1, 1, nil, 17, "Topic name is invalid: the empty string is not allowed"},
		{".", 1, 1, nil, 17, "Topic name is invalid: '.' is not allowed"},
		{"x1", 0, 1, nil, 37, "Number of partitions was set to an invalid non-positive value."},
		{"x1", 1, 0, nil, 38, "Replication factor must be larger than 0, or -1 to use the default value."},
		{"x1", 1, 5, nil, 38, "Unable to replicate the partition 5 time(s): The target replication factor of 5 cannot be reached because only 1 broker(s) are registered or some brokers have all their log directories cordoned."},
		{"x1", 1, 1, map[string]string{"no.such": "1"}, 40, "Unknown topic config name: no.such"},
		{"x1", 1, 1, map[string]string{"retention.ms": "abc"}, 40, "Invalid value abc for configuration retention.ms: Not a number of type LONG"},
		{"x2", 1, 1, map[string]string{"segment.bytes": "1000"}, 40, "Invalid value 1000 for configuration segment.bytes: Value must be at least 1048576"},
	} {
		got := p.created(7, c.name, c.partitions, c.replicas, c.configs, false)
		message := ""
		if got.ErrorMessage != nil {
			message = *got.ErrorMessage
		}
		if got.ErrorCode != c.code || message != c.message {
			t.Errorf("%q %d/%d %v: error %d %q\nwant %d %q", c.name, c.partitions, c.replicas, c.configs, got.ErrorCode, message, c.code, c.message)
		}
		switch {
		case c.code == 0 && (got.NumPartitions != 1 || got.ReplicationFactor != 1 || len(got.Configs) < 33 || got.TopicID == [16]byte{}):
			t.Errorf("%q: %d partitions, %d replicas, %d configs, id %x", c.name, got.NumPartitions, got.ReplicationFactor, len(got.Configs), got.TopicID)
		case c.code != 0 && (got.NumPartitions != -1 || got.ReplicationFactor != -1 || got.TopicID != [16]byte{}):
			t.Errorf("%q: a failed topic is described: %+v", c.name, got)
		}
	}
	if got := p.created(7, "vo", 3, 1, nil, true); got.ErrorCode != 0 || got.NumPartitions != 3 || got.TopicID == [16]byte{} {
		t.Errorf("validate only: error %d, %d partitions, %d configs", got.ErrorCode, got.NumPartitions, len(got.Configs))
	}
	if _, ok := e.meta.Image().Topic("vo"); ok {
		t.Error("a topic was created by a request that only validates")
	}
}

func TestCreateTopicsTwice(t *testing.T) {
	e := newEdge(t, nil)
	r := kmsg.NewPtrCreateTopicsRequest()
	r.Version, r.TimeoutMillis = 5, 5000
	for _, name := range []string{"a", "b", "a"} {
		ct := kmsg.NewCreateTopicsRequestTopic()
		ct.Topic, ct.NumPartitions, ct.ReplicationFactor = name, 1, 1
		r.Topics = append(r.Topics, ct)
	}
	got := e.dial().must(r).(*kmsg.CreateTopicsResponse).Topics
	if len(got) != 2 || got[0].ErrorCode != 42 || *got[0].ErrorMessage != "Duplicate topic name." || got[1].ErrorCode != 0 {
		t.Errorf("answer: %+v", got)
	}
}

func describe(topics []kmsg.MetadataResponseTopic) string {
	var out []string
	for _, x := range topics {
		name := "<nil>"
		if x.Topic != nil {
			name = *x.Topic
		}
		out = append(out, fmt.Sprintf("%s err=%d parts=%d internal=%v ops=%d", name, x.ErrorCode, len(x.Partitions), x.IsInternal, x.AuthorizedOperations))
	}
	return strings.Join(out, "; ")
}

// TestMetadata: traps 13 and 14, and the lines of the probe.
func TestMetadata(t *testing.T) {
	e := newEdge(t, nil)
	topic := e.topic("ok1", 2, nil)
	if _, err := e.meta.EnsureInternalTopic(t.Context(), metadata.ConsumerOffsetsTopic); err != nil {
		t.Fatal(err)
	}
	p := e.dial()
	ask := func(version int16, auto bool, names ...string) *kmsg.MetadataResponse {
		r := metadataRequest(version)
		r.AllowAutoTopicCreation = auto
		r.Topics = []kmsg.MetadataRequestTopic{}
		for _, n := range names {
			mt := kmsg.NewMetadataRequestTopic()
			mt.Topic = &n
			r.Topics = append(r.Topics, mt)
		}
		return p.must(r).(*kmsg.MetadataResponse)
	}
	if got := ask(0, false); len(got.Topics) != 2 {
		t.Errorf("v0, empty: %d topics, want all", len(got.Topics))
	}
	if got := p.must(metadataRequest(1)).(*kmsg.MetadataResponse); len(got.Topics) != 2 {
		t.Errorf("v1, null: %d topics, want all", len(got.Topics))
	}
	if got := ask(1, false); len(got.Topics) != 0 || len(got.Brokers) != 1 || got.ControllerID != 1 {
		t.Errorf("v1, empty: %d topics, want none; %d brokers, controller %d", len(got.Topics), len(got.Brokers), got.ControllerID)
	}
	want := "ok1 err=0 parts=2 internal=false ops=-2147483648; __consumer_offsets err=0 parts=4 internal=true ops=-2147483648; " +
		"missing err=3 parts=0 internal=false ops=-2147483648; bad name! err=17 parts=0 internal=false ops=-2147483648"
	if got := describe(ask(12, false, "ok1", "missing", "bad name!", "__consumer_offsets").Topics); got != want {
		t.Errorf("v12:\n%s\nwant\n%s", got, want)
	}
	byID := metadataRequest(12)
	byID.Topics = []kmsg.MetadataRequestTopic{{TopicID: topic.ID}, {TopicID: [16]byte{1, 2, 3}}}
	if got := describe(p.must(byID).(*kmsg.MetadataResponse).Topics); got != "ok1 err=0 parts=2 internal=false ops=-2147483648; <nil> err=100 parts=0 internal=false ops=-2147483648" {
		t.Errorf("by id: %s", got)
	}
	ops := metadataRequest(10)
	ops.IncludeClusterAuthorizedOperations, ops.IncludeTopicAuthorizedOperations = true, true
	if got := p.must(ops).(*kmsg.MetadataResponse); got.AuthorizedOperations != 8096 || got.Topics[0].AuthorizedOperations != 3576 {
		t.Errorf("operations: cluster %d, topic %d", got.AuthorizedOperations, got.Topics[0].AuthorizedOperations)
	}
}

// TestAutoCreation: the first answer is 3, then the topic is there; a request may forbid it, and so may the broker.
func TestAutoCreation(t *testing.T) {
	e := newEdge(t, nil)
	p := e.dial()
	ask := func(version int16, auto bool, name string) int16 {
		r := metadataRequest(version)
		r.AllowAutoTopicCreation = auto
		r.Topics = []kmsg.MetadataRequestTopic{{Topic: &name}}
		return p.must(r).(*kmsg.MetadataResponse).Topics[0].ErrorCode
	}
	exists := func(name string) func() bool {
		return func() bool { _, ok := e.meta.Image().Topic(name); return ok }
	}
	for version, name := range map[int16]string{12: "auto12", 3: "auto3"} {
		if got := ask(version, true, name); got != 3 {
			t.Errorf("first answer of v%d: %d, want 3", version, got)
		}
		waitFor(t, name+" is created", exists(name))
		if got := ask(version, true, name); got != 0 {
			t.Errorf("second answer of v%d: %d", version, got)
		}
	}
	if got := ask(12, false, "forbidden"); got != 3 {
		t.Errorf("forbidden by the request: %d", got)
	}
	ops := []metadata.ConfigOp{{Name: "auto.create.topics.enable", Value: text("false")}}
	if err := e.meta.IncrementalAlterConfigs(t.Context(), metadata.Resource{Type: metadata.ResourceBroker}, ops, false); err == nil {
		if got := ask(12, true, "off"); got != 3 {
			t.Errorf("forbidden by the broker: %d", got)
		}
		if exists("off")() {
			t.Error("created although auto.create.topics.enable is false")
		}
	}
	if exists("forbidden")() {
		t.Error("created although the request forbids it")
	}
	if got := ask(12, true, metadata.ConsumerOffsetsTopic); got != 3 {
		t.Errorf("offsets topic: %d", got)
	}
	waitFor(t, "the offsets topic is created", exists(metadata.ConsumerOffsetsTopic))
}

// TestFindCoordinator: 15 until the topic is there (which this request creates), then this broker.
func TestFindCoordinator(t *testing.T) {
	e := newEdge(t, nil)
	p := e.dial()
	ask := func(version int16, kind int8, keys ...string) *kmsg.FindCoordinatorResponse {
		r := kmsg.NewPtrFindCoordinatorRequest()
		r.Version, r.CoordinatorType, r.CoordinatorKeys, r.CoordinatorKey = version, kind, keys, keys[0]
		return p.must(r).(*kmsg.FindCoordinatorResponse)
	}
	first := ask(4, 0, "g").Coordinators[0]
	if first.ErrorCode != 15 || first.NodeID != -1 || first.Port != -1 || first.Key != "g" {
		t.Errorf("first answer: %+v", first)
	}
	waitFor(t, "the offsets topic is created", func() bool { _, ok := e.meta.Image().Topic(metadata.ConsumerOffsetsTopic); return ok })
	both := ask(4, 0, "g", "h").Coordinators
	if len(both) != 2 || both[0].ErrorCode != 0 || both[1].NodeID != 1 || both[1].Host != "127.0.0.1" || both[1].Port != 9092 {
		t.Errorf("v4: %+v", both)
	}
	if old := ask(0, 0, "g"); old.ErrorCode != 0 || old.NodeID != 1 {
		t.Errorf("v0: %+v", old)
	}
	if got := ask(4, 1, "tx").Coordinators[0]; got.ErrorCode != 35 {
		t.Errorf("transaction coordinator: error %d, want 35", got.ErrorCode)
	}
	if got := ask(4, 2, "share").Coordinators[0]; got.ErrorCode != 42 {
		t.Errorf("share coordinator in v4: error %d, want 42", got.ErrorCode)
	}
}

// TestInitProducerID: ids are never used twice; transactional ids are refused.
func TestInitProducerID(t *testing.T) {
	e := newEdge(t, nil)
	p := e.dial()
	ask := func(txid *string, pid int64, epoch int16) *kmsg.InitProducerIDResponse {
		r := kmsg.NewPtrInitProducerIDRequest()
		r.Version, r.TransactionalID, r.ProducerID, r.ProducerEpoch, r.TransactionTimeoutMillis = 5, txid, pid, epoch, 60000
		return p.must(r).(*kmsg.InitProducerIDResponse)
	}
	seen := map[int64]bool{}
	for range 10 {
		got := ask(nil, -1, -1)
		if got.ErrorCode != 0 || got.ProducerEpoch != 0 || seen[got.ProducerID] {
			t.Fatalf("answer %+v", got)
		}
		seen[got.ProducerID] = true
	}
	empty, tx := "", "tx"
	for name, got := range map[string]*kmsg.InitProducerIDResponse{"empty": ask(&empty, -1, -1), "id alone": ask(nil, 5, -1), "epoch alone": ask(nil, -1, 5)} {
		if got.ErrorCode != 42 || got.ProducerID != -1 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := ask(&tx, -1, -1); got.ErrorCode != 35 {
		t.Errorf("transactional: error %d, want 35", got.ErrorCode)
	}
}

// TestDeleteTopics by name and by id.
func TestDeleteTopics(t *testing.T) {
	e := newEdge(t, nil)
	a, b := e.topic("a", 1, nil), e.topic("b", 1, nil)
	r := kmsg.NewPtrDeleteTopicsRequest()
	r.Version, r.TimeoutMillis = 6, 5000
	r.Topics = []kmsg.DeleteTopicsRequestTopic{{Topic: text("nosuch")}, {Topic: text("a")}, {TopicID: b.ID}, {TopicID: [16]byte{7}}, {}, {Topic: text("x"), TopicID: b.ID}}
	got := e.dial().must(r).(*kmsg.DeleteTopicsResponse).Topics
	codes := []int16{3, 0, 0, 100, 42, 42}
	for i, want := range codes {
		if got[i].ErrorCode != want {
			t.Errorf("topic %d: error %d, want %d", i, got[i].ErrorCode, want)
		}
	}
	if got[1].TopicID != a.ID || *got[2].Topic != "b" || *got[0].ErrorMessage != "This server does not host this topic-partition." {
		t.Errorf("answer: %+v", got)
	}
	if n := len(e.meta.Image().Topics()); n != 0 {
		t.Errorf("%d topics are left", n)
	}
}

// TestIncrementalAlterConfigs: the lines of the probe.
func TestIncrementalAlterConfigs(t *testing.T) {
	e := newEdge(t, nil)
	e.topic("ok1", 1, nil)
	p := e.dial()
	sp := func(s string) *string { return &s }
	for _, c := range []struct {
		kind    kmsg.ConfigResourceType
		name    string
		key     string
		op      kmsg.IncrementalAlterConfigOp
		value   *string
		code    int16
		message string
	}{
		{2, "ok1", "retention.ms", 0, sp("5000"), 0, ""},
		{2, "ok1", "retention.ms", 0, nil, 42, "Null value not supported for : retention.ms"},
		{2, "ok1", "retention.ms", 1, nil, 0, ""},
		{2, "ok1", "retention.ms", 2, sp("1"), 40, "Can't APPEND to key retention.ms because its type is not LIST."},
		{2, "ok1", "cleanup.policy", 2, sp("compact"), 0, ""},
		{2, "ok1", "bogus", 0, sp("1"), 40, "Unknown topic config name: bogus"},
		{2, "missing", "retention.ms", 0, sp("1"), 3, "The topic 'missing' does not exist."},
		{4, "1", "log.retention.ms", 0, sp("5000"), 0, ""},
		{4, "1", "log.dirs", 0, sp("/x"), 42, "Cannot update these configs dynamically: [log.dirs]"},
		{4, "", "log.retention.ms", 0, sp("5000000"), 0, ""},
		{4, "9", "log.retention.ms", 0, sp("5000"), 42, "Unexpected broker id, expected 1, but received 9"},
		{4, "1", "unknown.custom", 0, sp("5000"), 0, ""},
		{99, "mm", "interval.ms", 0, sp("10"), 42, "Unknown resource type 99"},
	} {
		r := kmsg.NewPtrIncrementalAlterConfigsRequest()
		r.Version = 1
		res := kmsg.NewIncrementalAlterConfigsRequestResource()
		res.ResourceType, res.ResourceName = c.kind, c.name
		cfg := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		cfg.Name, cfg.Op, cfg.Value = c.key, c.op, c.value
		res.Configs = append(res.Configs, cfg)
		r.Resources = append(r.Resources, res)
		got := p.must(r).(*kmsg.IncrementalAlterConfigsResponse).Resources[0]
		message := ""
		if got.ErrorMessage != nil {
			message = *got.ErrorMessage
		}
		if got.ErrorCode != c.code || !strings.EqualFold(message, c.message) {
			t.Errorf("%v/%s %s op %d: error %d %q, want %d %q", c.kind, c.name, c.key, c.op, got.ErrorCode, message, c.code, c.message)
		}
	}
}

// TestDescribeConfigs: a topic's entries, synonyms only where asked for, another broker's refused.
func TestDescribeConfigs(t *testing.T) {
	e := newEdge(t, nil)
	e.topic("t", 1, map[string]string{"segment.bytes": "2097152"})
	p := e.dial()
	ask := func(kind kmsg.ConfigResourceType, name string, synonyms bool, names ...string) kmsg.DescribeConfigsResponseResource {
		r := kmsg.NewPtrDescribeConfigsRequest()
		r.Version, r.IncludeSynonyms = 4, synonyms
		r.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kind, ResourceName: name, ConfigNames: names}}
		return p.must(r).(*kmsg.DescribeConfigsResponse).Resources[0]
	}
	one := ask(2, "t", true, "segment.bytes")
	if one.ErrorCode != 0 || len(one.Configs) != 1 || *one.Configs[0].Value != "2097152" || one.Configs[0].Source != 1 || len(one.Configs[0].ConfigSynonyms) < 2 {
		t.Errorf("segment.bytes: %+v", one)
	}
	if all := ask(2, "t", false); len(all.Configs) < 33 || len(all.Configs[0].ConfigSynonyms) != 0 {
		t.Errorf("all: %d entries", len(all.Configs))
	}
	if got := ask(2, "nope", false); got.ErrorCode != 3 {
		t.Errorf("unknown topic: %d", got.ErrorCode)
	}
	if got := ask(4, "9", false); got.ErrorCode != 42 || *got.ErrorMessage != "Unexpected broker id, expected 1 or empty string, but received 9" {
		t.Errorf("another broker: %+v", got)
	}
	if got := ask(4, "1", false); got.ErrorCode != 0 || len(got.Configs) < 200 {
		t.Errorf("broker: error %d, %d entries", got.ErrorCode, len(got.Configs))
	}
}

// TestDescribeTopicPartitions: order, pages, cursors (facts/protocol.md 3.18).
func TestDescribeTopicPartitions(t *testing.T) {
	e := newEdge(t, nil)
	e.topic("a", 3, nil)
	e.topic("b", 2, nil)
	p := e.dial()
	ask := func(limit int32, cursor *kmsg.DescribeTopicPartitionsRequestCursor, names ...string) *kmsg.DescribeTopicPartitionsResponse {
		r := kmsg.NewPtrDescribeTopicPartitionsRequest()
		r.ResponsePartitionLimit, r.Cursor = limit, cursor
		for _, n := range names {
			r.Topics = append(r.Topics, kmsg.DescribeTopicPartitionsRequestTopic{Topic: n})
		}
		return p.must(r).(*kmsg.DescribeTopicPartitionsResponse)
	}
	// Page through everything, two partitions at a time.
	var seen []string
	var cursor *kmsg.DescribeTopicPartitionsRequestCursor
	for range 10 {
		got := ask(2, cursor)
		for _, x := range got.Topics {
			if x.AuthorizedOperations != 3576 {
				t.Errorf("operations %d", x.AuthorizedOperations)
			}
			for _, part := range x.Partitions {
				seen = append(seen, fmt.Sprintf("%s%d", *x.Topic, part.Partition))
			}
		}
		if got.NextCursor == nil {
			break
		}
		cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: got.NextCursor.Topic, Partition: got.NextCursor.Partition}
	}
	if got := strings.Join(seen, " "); got != "a0 a1 a2 b0 b1" {
		t.Errorf("pages: %s", got)
	}
	got := ask(2000, nil, "b", "missing", "bad!", "a")
	if len(got.Topics) != 4 || *got.Topics[0].Topic != "a" || got.Topics[2].ErrorCode != 17 || got.Topics[3].ErrorCode != 3 || got.NextCursor != nil {
		t.Errorf("named: %+v", got)
	}
	if got := ask(2000, &kmsg.DescribeTopicPartitionsRequestCursor{Topic: "a"}, "b"); got.Topics[0].ErrorCode != 42 {
		t.Errorf("a cursor of another topic: %+v", got)
	}
}

// TestDescribeCluster: endpoint types (KIP-919) and operations.
func TestDescribeCluster(t *testing.T) {
	e := newEdge(t, nil)
	p := e.dial()
	r := kmsg.NewPtrDescribeClusterRequest()
	r.Version, r.EndpointType, r.IncludeClusterAuthorizedOperations = 2, 1, true
	got := p.must(r).(*kmsg.DescribeClusterResponse)
	if got.ErrorCode != 0 || len(got.ClusterID) != 22 || got.ControllerID != 1 || len(got.Brokers) != 1 || got.ClusterAuthorizedOperations != 8096 {
		t.Errorf("answer: %+v", got)
	}
	r.EndpointType = 2
	got = p.must(r).(*kmsg.DescribeClusterResponse)
	if got.ErrorCode != 114 || *got.ErrorMessage != "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER" || got.ControllerID != -1 {
		t.Errorf("controllers: %+v", got)
	}
}

// TestDeleteRecords: what the edge refuses, and what ingest says.
func TestDeleteRecords(t *testing.T) {
	e := newEdge(t, nil)
	e.topic("t", 1, nil)
	e.topic("cmp", 1, map[string]string{"cleanup.policy": "compact"})
	for range 3 {
		e.appendBatch("t", 0, "x")
	}
	p := e.dial()
	timeout := int32(30_000)
	ask := func(topic string, offset int64) (int16, int64) {
		r := kmsg.NewPtrDeleteRecordsRequest()
		r.Version, r.TimeoutMillis = 2, timeout
		dt := kmsg.NewDeleteRecordsRequestTopic()
		dt.Topic = topic
		dt.Partitions = []kmsg.DeleteRecordsRequestTopicPartition{{Offset: offset}}
		r.Topics = append(r.Topics, dt)
		got := p.must(r).(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0]
		return got.ErrorCode, got.LowWatermark
	}
	for _, c := range []struct {
		topic  string
		offset int64
		code   int16
		low    int64
	}{
		{"t", 2, 0, 2}, {"t", -1, 0, 3}, {"t", 9999, 1, -1}, {"t", -2, 1, -1}, {"cmp", 0, 44, -1},
		{metadata.TransactionStateTopic, 0, 17, -1}, {"nope", 0, 3, -1},
	} {
		if code, low := ask(c.topic, c.offset); code != c.code || low != c.low {
			t.Errorf("%s to %d: error %d, low watermark %d; want %d, %d", c.topic, c.offset, code, low, c.code, c.low)
		}
	}
	e.ingest.lagging.Store(true)
	timeout = 50
	for offset, want := range map[int64]int16{1: 0, 2: 7} {
		if code, low := ask("t", offset); code != want || low != 1 {
			t.Errorf("to %d where a follower stays at 1: error %d, low watermark %d; want %d, 1", offset, code, low, want)
		}
	}
}

// TestOffsetsByTopicID: the edge resolves ids (v10) and refuses partitions that do not exist, before the coordinator.
func TestOffsetsByTopicID(t *testing.T) {
	e := newEdge(t, nil)
	topic := e.topic("ok1", 1, nil)
	p := e.dial()
	commit := func(version int16, name string, id base.TopicID) *kmsg.OffsetCommitResponse {
		r := kmsg.NewPtrOffsetCommitRequest()
		r.Version, r.Group, r.Generation = version, "g", -1
		ct := kmsg.NewOffsetCommitRequestTopic()
		ct.Topic, ct.TopicID = name, id
		ct.Partitions = []kmsg.OffsetCommitRequestTopicPartition{{Partition: 0, Offset: 5}, {Partition: 9, Offset: 5}}
		r.Topics = append(r.Topics, ct)
		return p.must(r).(*kmsg.OffsetCommitResponse)
	}
	for _, got := range []*kmsg.OffsetCommitResponse{commit(9, "ok1", base.TopicID{}), commit(10, "", topic.ID)} {
		parts := got.Topics[0].Partitions
		if len(got.Topics) != 1 || len(parts) != 2 || parts[0].Partition != 9 || parts[0].ErrorCode != 3 || parts[1].ErrorCode != 0 {
			t.Errorf("v%d: %+v", got.Version, got.Topics)
		}
		if got.Version == 10 && got.Topics[0].TopicID != topic.ID {
			t.Errorf("v10 answers id %x", got.Topics[0].TopicID)
		}
		e.groups.mu.Lock()
		asked := e.groups.committed.Topics
		e.groups.mu.Unlock()
		if len(asked) != 1 || asked[0].Topic != "ok1" || len(asked[0].Partitions) != 1 {
			t.Errorf("the coordinator was asked %+v", asked)
		}
	}
	if got := commit(10, "", base.TopicID{3}); got.Topics[0].Partitions[0].ErrorCode != 100 || got.Topics[0].TopicID != [16]byte{3} {
		t.Errorf("unknown id: %+v", got)
	}
	r := kmsg.NewPtrOffsetFetchRequest()
	r.Version = 10
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = "g"
	g.Topics = []kmsg.OffsetFetchRequestGroupTopic{{TopicID: topic.ID, Partitions: []int32{0}}, {TopicID: [16]byte{3}, Partitions: []int32{4}}}
	r.Groups = append(r.Groups, g)
	got := p.must(r).(*kmsg.OffsetFetchResponse).Groups[0].Topics
	if len(got) != 2 || got[0].TopicID != topic.ID || got[0].Partitions[0].Offset != 7 || got[1].Partitions[0].ErrorCode != 100 || got[1].Partitions[0].Offset != -1 {
		t.Errorf("offset fetch: %+v", got)
	}
}

// TestGroupClient: the coordinator learns who asks, as Kafka shows it.
func TestGroupClient(t *testing.T) {
	e := newEdge(t, nil)
	r := kmsg.NewPtrJoinGroupRequest()
	r.Version, r.Group = 5, "g"
	e.dial().must(r)
	e.groups.mu.Lock()
	c := e.groups.client
	e.groups.mu.Unlock()
	if c.ID != "probe" || c.Host != "/127.0.0.1" {
		t.Errorf("client %+v", c)
	}
	d := kmsg.NewPtrDescribeGroupsRequest()
	d.Version, d.Groups, d.IncludeAuthorizedOperations = 5, []string{"g"}, true
	if got := e.dial().must(d).(*kmsg.DescribeGroupsResponse).Groups[0]; got.AuthorizedOperations != 3400 {
		t.Errorf("operations %d", got.AuthorizedOperations)
	}
}

// TestDescribeLogDirs: one directory, the sizes of the hot store, the disk's space from v4.
func TestDescribeLogDirs(t *testing.T) {
	e := newEdge(t, nil)
	e.topic("a", 2, nil)
	e.topic("b", 1, nil)
	e.appendBatch("a", 1, "x")
	p := e.dial()
	r := kmsg.NewPtrDescribeLogDirsRequest()
	r.Version = 4
	all := p.must(r).(*kmsg.DescribeLogDirsResponse)
	if all.ErrorCode != 0 || len(all.Dirs) != 1 || all.Dirs[0].Dir != "/tmp" || len(all.Dirs[0].Topics) != 2 || all.Dirs[0].TotalBytes <= 0 || all.Dirs[0].UsableBytes <= 0 {
		t.Fatalf("all: %+v", all)
	}
	if got := all.Dirs[0].Topics[0].Partitions[1].Size; got != 100 {
		t.Errorf("size %d, want 100", got)
	}
	peer := NewPeer(e.dial().nc, "balance") // as the controller asks
	sizes, err := peer.HotBytes(time.Now().Add(20 * time.Second))
	if err != nil || fmt.Sprint(sizes) != "map[a-0:0 a-1:100 b-0:0]" {
		t.Errorf("hot bytes %v %v", sizes, err)
	}
	r.Topics = []kmsg.DescribeLogDirsRequestTopic{{Topic: "a", Partitions: []int32{1, 7}}, {Topic: "none", Partitions: []int32{0}}}
	some := p.must(r).(*kmsg.DescribeLogDirsResponse)
	if len(some.Dirs[0].Topics) != 1 || len(some.Dirs[0].Topics[0].Partitions) != 1 {
		t.Errorf("some: %+v", some)
	}
}

// TestListConfigResources: v0 knows client metrics only, v1 all types (KIP-1142).
func TestListConfigResources(t *testing.T) {
	e := newEdge(t, nil)
	e.topic("t", 1, nil)
	p := e.dial()
	r := kmsg.NewPtrListConfigResourcesRequest()
	if got := p.must(r).(*kmsg.ListConfigResourcesResponse); len(got.ConfigResources) != 0 {
		t.Errorf("v0: %+v", got)
	}
	r.Version = 1
	if got := p.must(r).(*kmsg.ListConfigResourcesResponse); len(got.ConfigResources) != 3 { // topic t, broker 1, its loggers
		t.Errorf("v1: %+v", got)
	}
	r.ResourceTypes = []int8{2, 99}
	if got := p.must(r).(*kmsg.ListConfigResourcesResponse); got.ErrorCode != 35 || len(got.ConfigResources) != 0 {
		t.Errorf("unknown type: %+v", got)
	}
}

// TestOffsetDelete: a partition that the topic does not have is refused (Kafka 4.3, kafka-consumer-groups --delete-offsets).
func TestOffsetDelete(t *testing.T) {
	e := newEdge(t, nil)
	e.topic("t", 2, nil)
	r := kmsg.NewPtrOffsetDeleteRequest()
	r.Group = "g"
	topic := kmsg.NewOffsetDeleteRequestTopic()
	topic.Topic = "t"
	for _, p := range []int32{1, 2, -1} {
		part := kmsg.NewOffsetDeleteRequestTopicPartition()
		part.Partition = p
		topic.Partitions = append(topic.Partitions, part)
	}
	r.Topics = append(r.Topics, topic)
	resp := e.dial().must(r).(*kmsg.OffsetDeleteResponse)
	var got []string
	for _, p := range resp.Topics[0].Partitions {
		got = append(got, fmt.Sprintf("%d: %d", p.Partition, p.ErrorCode))
	}
	if have := strings.Join(got, ", "); have != "2: 3, -1: 3, 1: 0" {
		t.Errorf("partitions and codes %s", have)
	}
}
