package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	throttleRate = 2_000_000 // bytes per second
	movedBytes   = 8 << 20
	// A quota keeps what one second left unused, and a follower asks for a MiB of a partition at a time.
	unthrottledBytes = throttleRate + 1<<20
)

// alter sets or, where the value is empty, deletes settings.
func alter(t *testing.T, configs map[string]string, send func(context.Context, []kadm.AlterConfig) (kadm.AlterConfigsResponses, error)) {
	t.Helper()
	var ops []kadm.AlterConfig
	for name, v := range configs {
		op := kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: &v}
		if v == "" {
			op = kadm.AlterConfig{Op: kadm.DeleteConfig, Name: name}
		}
		ops = append(ops, op)
	}
	answers, err := send(t.Context(), ops)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range answers {
		if a.Err != nil {
			t.Fatalf("%s: %v %s", a.Name, a.Err, a.ErrMessage)
		}
	}
}

// untiered is for topics of which a replica that is added has to copy all.
var untiered = map[string]string{"remote.storage.enable": "false", "min.insync.replicas": "2"}

// createOn creates t, with a partition for each set of replicas.
func createOn(t *testing.T, cl *kgo.Client, configs map[string]string, replicas ...[]int32) {
	t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 30_000
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "t", -1, -1
	for p, ids := range replicas {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = int32(p), ids
		topic.ReplicaAssignment = append(topic.ReplicaAssignment, a)
	}
	for name, v := range configs {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = name, &v
		topic.Configs = append(topic.Configs, c)
	}
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(t.Context(), cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// produceMoved fills t's partition 0 with movedBytes.
func produceMoved(t *testing.T, cl *kgo.Client) {
	t.Helper()
	value := make([]byte, 64<<10)
	_, _ = rand.Read(value) // never fails
	for range movedBytes / len(value) {
		cl.Produce(t.Context(), &kgo.Record{Topic: "t", Value: bytes.Clone(value)}, nil)
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// moveThrottled moves t's one partition from brokers 1 and 2 to others, with the quota of one side, as kafka-reassign-partitions --throttle
// does. It returns how long that took. Producers go on meanwhile, and nobody leaves the ISR who is to stay.
func moveThrottled(t *testing.T, cl *kgo.Client, side, replicas string, to []int32) time.Duration {
	t.Helper()
	adm := kadm.NewClient(cl)
	rate := side + ".replication.throttled.rate"
	alter(t, map[string]string{rate: fmt.Sprint(throttleRate)}, func(ctx context.Context, ops []kadm.AlterConfig) (kadm.AlterConfigsResponses, error) {
		return adm.AlterBrokerConfigs(ctx, ops, 1, 2, 3)
	})
	alter(t, map[string]string{side + ".replication.throttled.replicas": replicas}, func(ctx context.Context, ops []kadm.AlterConfig) (kadm.AlterConfigsResponses, error) {
		return adm.AlterTopicConfigs(ctx, ops, "t")
	})
	began := time.Now()
	var req kadm.AlterPartitionAssignmentsReq
	req.Assign("t", 0, to)
	if answers, err := adm.AlterPartitionAssignments(t.Context(), req); err != nil || answers.Error() != nil {
		t.Fatal(err, answers.Error())
	}
	for n := 0; ; n++ {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: []byte("meanwhile")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		topics, err := adm.ListTopics(t.Context(), "t")
		if err != nil {
			t.Fatal(err)
		}
		p := topics["t"].Partitions[0]
		if len(p.ISR) < 2 {
			t.Fatalf("after %v the ISR is %v", time.Since(began), p.ISR)
		}
		if slices.Equal(p.Replicas, to) {
			break
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatalf("not moved: %+v", p)
		}
	}
	took := time.Since(began)
	t.Logf("%s's side: %v", side, took)
	alter(t, map[string]string{rate: ""}, func(ctx context.Context, ops []kadm.AlterConfig) (kadm.AlterConfigsResponses, error) {
		return adm.AlterBrokerConfigs(ctx, ops, 1, 2, 3)
	})
	return took
}

// A reassignment is no faster than its throttle, whichever side keeps it (KIP-73).
func TestThrottledReassignment(t *testing.T) {
	c := startCluster(t)
	cl := connect(t, c, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	createOn(t, cl, untiered, []int32{1, 2})
	produceMoved(t, cl)
	least := time.Duration(float64(movedBytes-unthrottledBytes) / throttleRate * float64(time.Second))
	for _, move := range []struct {
		side, replicas string
		to             []int32
	}{{"leader", "0:1,0:2", []int32{1, 3}}, {"follower", "0:2", []int32{1, 2}}, {"leader", "*", []int32{1, 3}}} {
		if took := moveThrottled(t, cl, move.side, move.replicas, move.to); took < least {
			t.Errorf("%s's side: %d bytes moved in %v, at %d bytes a second that is %v", move.side, movedBytes, took, throttleRate, least)
		}
	}
}
