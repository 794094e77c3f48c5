package e2e

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// deleteRecords asks t's leader to delete below an offset.
func deleteRecords(t *testing.T, cl *kgo.Client, below int64, timeoutMs int32) (low int64, err error) {
	t.Helper()
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.TimeoutMillis = timeoutMs
	topic := kmsg.NewDeleteRecordsRequestTopic()
	topic.Topic = "t"
	p := kmsg.NewDeleteRecordsRequestTopicPartition()
	p.Offset = below
	topic.Partitions = append(topic.Partitions, p)
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	got := resp.Topics[0].Partitions[0]
	return got.LowWatermark, kerr.ErrorForCode(got.ErrorCode)
}

// DeleteRecords is answered once the logs of all live replicas start there: not while one of them stands still.
func TestDeleteRecordsAwaitsReplicas(t *testing.T) {
	c := startCluster(t, "broker.session.timeout.ms=60000")
	cl := connect(t, c, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	createOn(t, cl, untiered, []int32{1, 2})
	produceNumbers(t, cl, "t", 0, 100)
	if low, err := deleteRecords(t, cl, 30, 30_000); low != 30 || err != nil {
		t.Fatalf("low watermark %d, %v", low, err)
	}
	follower := c.Node(2)
	if err := follower.Pause(); err != nil {
		t.Fatal(err)
	}
	if low, err := deleteRecords(t, cl, 60, 1000); low != 30 || err != kerr.RequestTimedOut {
		t.Errorf("while a replica stands still: low watermark %d, %v", low, err)
	}
	if err := follower.Cont(); err != nil {
		t.Fatal(err)
	}
	if low, err := deleteRecords(t, cl, 50, 30_000); low != 60 || err != nil {
		t.Errorf("afterwards: low watermark %d, %v", low, err)
	}
}

// A replica that is added begins with the batch that the log start lies in, whole: what was deleted of it is not served.
func TestReplicaStartsWithinABatch(t *testing.T) {
	c := startCluster(t, "varve.tail.bytes=1")
	cl := connect(t, c, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	createOn(t, cl, untiered, []int32{1, 2})
	adm := kadm.NewClient(cl)
	alter(t, map[string]string{"segment.bytes": "1048576"}, func(ctx context.Context, ops []kadm.AlterConfig) (kadm.AlterConfigsResponses, error) {
		return adm.AlterTopicConfigs(ctx, ops, "t")
	})
	var rs []*kgo.Record
	for range 5000 {
		rs = append(rs, &kgo.Record{Topic: "t", Value: bytes.Repeat([]byte("x"), 1000)})
	}
	if err := cl.ProduceSync(t.Context(), rs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if low, err := deleteRecords(t, cl, 3333, 30_000); low != 3333 || err != nil {
		t.Fatalf("low watermark %d, %v", low, err)
	}
	within := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !ok(); <-time.After(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("never: %s", what)
			}
		}
	}
	within("the deleted ranges are trimmed", func() bool {
		s, err := c.Node(1).Topic(t.Context(), "t")
		return err == nil && s.Partitions[0].HotBytes < 3_000_000
	})
	var req kadm.AlterPartitionAssignmentsReq
	req.Assign("t", 0, []int32{3, 2})
	if answers, err := adm.AlterPartitionAssignments(t.Context(), req); err != nil || answers.Error() != nil {
		t.Fatal(err, answers.Error())
	}
	within("the new replica leads", func() bool {
		topics, err := adm.ListTopics(t.Context(), "t")
		p := topics["t"].Partitions[0]
		return err == nil && slices.Equal(p.Replicas, []int32{3, 2}) && p.Leader == 3
	})
	starts, err := adm.ListStartOffsets(t.Context(), "t")
	if o, _ := starts.Lookup("t", 0); err != nil || o.Offset != 3333 {
		t.Errorf("the new leader's log starts at %d, %v", o.Offset, err)
	}
}
