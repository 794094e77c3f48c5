package e2e

import (
	"testing"

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
	createOn(t, cl, []int32{1, 2})
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
