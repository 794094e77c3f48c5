package kafka

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// What these tests expect is what Apache Kafka 4.3 with one broker answered to the same requests.

type asked struct {
	topic      string
	partitions []int32
}

func words(s *string) string {
	if s == nil {
		return "<nil>"
	}
	return *s
}

// elect asks for an election and writes the answer as a line.
func (p *probe) elect(version int16, kind int8, topics []asked) string {
	p.t.Helper()
	r := kmsg.NewPtrElectLeadersRequest()
	r.Version, r.ElectionType = version, kind
	if topics != nil {
		r.Topics = []kmsg.ElectLeadersRequestTopic{}
	}
	for _, a := range topics {
		et := kmsg.NewElectLeadersRequestTopic()
		et.Topic, et.Partitions = a.topic, a.partitions
		r.Topics = append(r.Topics, et)
	}
	resp := p.must(r).(*kmsg.ElectLeadersResponse)
	out := fmt.Sprint(resp.ErrorCode)
	for _, x := range resp.Topics {
		out += " [" + x.Topic
		for _, y := range x.Partitions {
			out += fmt.Sprintf(" %d:%d:%s", y.Partition, y.ErrorCode, words(y.ErrorMessage))
		}
		out += "]"
	}
	return out
}

func TestElectLeaders(t *testing.T) {
	e := newEdge(t, nil)
	e.topic("zp", 2, nil)
	p := e.dial()
	const needless = "84:Leader election not needed for topic partition."
	some := []asked{{"zp", []int32{0, 1, 5}}, {"nope", []int32{0}}}
	for _, c := range []struct {
		version int16
		kind    int8
		topics  []asked
		want    string
	}{
		{0, 0, some, "0 [zp 0:" + needless + " 1:" + needless + " 5:3:No such partition as zp-5] [nope 0:3:No such topic as nope]"},
		{2, 1, some, "0 [zp 0:" + needless + " 1:" + needless + " 5:3:No such partition as zp-5] [nope 0:3:No such topic as nope]"},
		{2, 0, nil, "0 [zp]"},
		{2, 0, []asked{}, "0"},
		{2, 7, []asked{}, "0"},
		{2, 7, nil, "42"},
		{1, 7, []asked{{"zp", []int32{0}}}, "42 [zp 0:42:Unknown election type 7]"},
		{2, 0, []asked{{"zp", []int32{0}}, {"zp", []int32{0}}}, "0 [zp 0:" + needless + "] [zp 0:" + needless + "]"},
	} {
		if got := p.elect(c.version, c.kind, c.topics); got != c.want {
			t.Errorf("v%d type %d %v:\n%s\nwant\n%s", c.version, c.kind, c.topics, got, c.want)
		}
	}
}

func TestAlterReplicaLogDirs(t *testing.T) {
	e := newEdge(t, nil)
	e.topic("zp", 2, nil)
	long := strings.Repeat("x", 214)
	e.topic(long, 1, nil)
	p := e.dial()
	ask := func(version int16, dirs ...string) string {
		r := kmsg.NewPtrAlterReplicaLogDirsRequest()
		r.Version = version
		for _, name := range dirs {
			d := kmsg.NewAlterReplicaLogDirsRequestDir()
			d.Dir = name
			for _, a := range []asked{{"zp", []int32{0, 1, 5}}, {"nope", []int32{0}}, {long, []int32{0}}} {
				dt := kmsg.NewAlterReplicaLogDirsRequestDirTopic()
				dt.Topic, dt.Partitions = a.topic, a.partitions
				d.Topics = append(d.Topics, dt)
			}
			r.Dirs = append(r.Dirs, d)
		}
		var out []string
		for _, x := range p.must(r).(*kmsg.AlterReplicaLogDirsResponse).Topics {
			s := x.Topic[:min(4, len(x.Topic))]
			for _, y := range x.Partitions {
				s += fmt.Sprintf(" %d:%d", y.Partition, y.ErrorCode)
			}
			out = append(out, s)
		}
		return strings.Join(out, ", ")
	}
	for dir, want := range map[string]string{
		"/tmp":  "zp 0:0 1:0 5:3, nope 0:3, xxxx 0:17",
		"/tmp/": "zp 0:57 1:57 5:57, nope 0:57, xxxx 0:17",
		"":      "zp 0:57 1:57 5:57, nope 0:57, xxxx 0:17",
	} {
		for version := int16(1); version <= 2; version++ {
			if got := ask(version, dir); got != want {
				t.Errorf("v%d to %q: %s, want %s", version, dir, got, want)
			}
		}
	}
	if got := ask(2, "/tmp", "/nope"); got != "zp 0:57 1:57 5:57, nope 0:57, xxxx 0:17" {
		t.Errorf("two directories: %s", got)
	}
}

// reassign asks to move one partition and writes the answer as a line.
func (p *probe) reassign(otherFactor bool, topic string, partition int32, replicas []int32) string {
	p.t.Helper()
	r := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	r.Version, r.AllowReplicationFactorChange = 1, otherFactor
	at := kmsg.NewAlterPartitionAssignmentsRequestTopic()
	at.Topic = topic
	at.Partitions = []kmsg.AlterPartitionAssignmentsRequestTopicPartition{{Partition: partition, Replicas: replicas}}
	r.Topics = append(r.Topics, at)
	resp := p.must(r).(*kmsg.AlterPartitionAssignmentsResponse)
	if resp.ErrorCode != 0 || resp.ErrorMessage != nil || resp.AllowReplicationFactorChange != otherFactor {
		p.t.Errorf("at the top: %d %s, factor may change: %v", resp.ErrorCode, words(resp.ErrorMessage), resp.AllowReplicationFactorChange)
	}
	got := resp.Topics[0].Partitions[0]
	return fmt.Sprintf("%d %s", got.ErrorCode, words(got.ErrorMessage))
}

func TestAlterPartitionReassignments(t *testing.T) {
	e := newEdge(t, nil)
	e.topic("zp", 2, nil)
	p := e.dial()
	const manual = "39 The manual partition assignment includes "
	for _, c := range []struct {
		topic     string
		partition int32
		replicas  []int32
		want      string
	}{
		{"zp", 0, []int32{1}, "0 <nil>"},
		{"zp", 1, []int32{2}, manual + "broker 2, but no such broker is registered."},
		{"zp", 1, []int32{-1}, manual + "broker -1, but no such broker is registered."},
		{"zp", 0, []int32{1, 1}, manual + "the broker 1 more than once."},
		{"zp", 0, []int32{}, manual + "an empty replica list."},
		{"zp", 0, nil, "85 <nil>"},
		{"zp", 5, nil, "3 Unable to find partition zp:5."},
		{"nope", 0, []int32{1}, "3 Unable to find a topic named nope."},
	} {
		if got := p.reassign(false, c.topic, c.partition, c.replicas); got != c.want {
			t.Errorf("%s-%d to %v: %s\nwant %s", c.topic, c.partition, c.replicas, got, c.want)
		}
	}
	empty := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	empty.Version, empty.AllowReplicationFactorChange = 1, false
	if got := p.must(empty).(*kmsg.AlterPartitionAssignmentsResponse); got.ErrorCode != 0 || words(got.ErrorMessage) != "" || !got.AllowReplicationFactorChange {
		t.Errorf("nothing: %+v", got)
	}
}

func TestDescribeQuorum(t *testing.T) {
	e := newEdge(t, nil)
	p := e.dial()
	ask := func(version int16, topics ...asked) *kmsg.DescribeQuorumResponse {
		r := kmsg.NewPtrDescribeQuorumRequest()
		r.Version = version
		for _, a := range topics {
			qt := kmsg.NewDescribeQuorumRequestTopic()
			qt.Topic = a.topic
			for _, index := range a.partitions {
				qp := kmsg.NewDescribeQuorumRequestTopicPartition()
				qp.Partition = index
				qt.Partitions = append(qt.Partitions, qp)
			}
			r.Topics = append(r.Topics, qt)
		}
		return p.must(r).(*kmsg.DescribeQuorumResponse)
	}
	for version := int16(0); version <= 2; version++ {
		revision := e.meta.Image().Revision()
		got := ask(version, asked{clusterMetadataTopic, []int32{0}})
		if got.ErrorCode != 0 || len(got.Topics) != 1 || len(got.Topics[0].Partitions) != 1 {
			t.Fatalf("v%d: %+v", version, got)
		}
		q := got.Topics[0].Partitions[0]
		if q.ErrorCode != 0 || q.LeaderID != 1 || q.LeaderEpoch != 1 || q.HighWatermark != revision || len(q.Observers) != 0 ||
			len(q.CurrentVoters) != 1 || q.CurrentVoters[0].ReplicaID != 1 || q.CurrentVoters[0].LogEndOffset != revision {
			t.Errorf("v%d: %+v; revision %d", version, q, revision)
		}
		if at := q.CurrentVoters[0].LastCaughtUpTimestamp; (version >= 1) != (at > 0) {
			t.Errorf("v%d: caught up at %d", version, at)
		}
		if version == 2 && (len(got.Nodes) != 1 || got.Nodes[0].Listeners[0].Port != 9092 || words(got.ErrorMessage) != "" || words(q.ErrorMessage) != "") {
			t.Errorf("v2: nodes %+v, messages %s, %s", got.Nodes, words(got.ErrorMessage), words(q.ErrorMessage))
		}
	}
	for _, topics := range [][]asked{
		{{clusterMetadataTopic, []int32{1}}}, {{clusterMetadataTopic, []int32{0, 1}}}, {{"zp", []int32{0}}},
		{{clusterMetadataTopic, []int32{0}}, {"zp", []int32{0}}},
	} {
		got := ask(2, topics...)
		if got.ErrorCode != 0 || len(got.Topics) != len(topics) || len(got.Nodes) != 0 {
			t.Errorf("%v: %+v", topics, got)
		}
		for _, x := range got.Topics {
			for _, y := range x.Partitions {
				if y.ErrorCode != 3 || words(y.ErrorMessage) != "This server does not host this topic-partition." || len(y.CurrentVoters) != 0 {
					t.Errorf("%v: %s-%d: %+v", topics, x.Topic, y.Partition, y)
				}
			}
		}
	}
	if got := ask(2); got.ErrorCode != 0 || len(got.Topics) != 0 {
		t.Errorf("nothing: %+v", got)
	}
}

// TestProduceLogStart: what the log refuses carries its start, what is refused before it does not (facts/protocol.md, 3.1).
func TestProduceLogStart(t *testing.T) {
	e := newEdge(t, nil)
	topic := e.topic("p", 1, nil)
	p := e.dial()
	for withLogStart, want := range map[bool]int64{true: 0, false: -1} {
		e.ingest.mu.Lock()
		e.ingest.errs[base.TopicPartition{Topic: "p"}] = &record.InvalidError{Err: kerr.InvalidRecord, WithLogStart: withLogStart}
		e.ingest.mu.Unlock()
		if got := p.produced(produceRequest(9, topic.ID, "p", -1, []byte{1})); got.ErrorCode != 87 || got.LogStartOffset != want {
			t.Errorf("with log start %v: error %d, log start %d", withLogStart, got.ErrorCode, got.LogStartOffset)
		}
	}
}
