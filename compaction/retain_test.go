package compaction_test

import (
	"context"
	"testing"

	"github.com/varvelog/varve/compaction"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/tiering/tiertest"
)

// asked does something when the standing of a partition is asked for.
type asked struct {
	owner
	hook func()
}

func (a *asked) Standing(tp base.TopicPartition) (compaction.Standing, error) {
	if a.hook != nil {
		a.hook()
		a.hook = nil
	}
	return a.owner.Standing(tp)
}

// TestRetentionIsRaisedDuringAPass makes a topic keep everything while retention is at its first partition: from the answer
// on nothing more of it goes.
func TestRetentionIsRaisedDuringAPass(t *testing.T) {
	e := tiertest.New(t, nil)
	logs := e.Topic("t", 3, map[string]string{"retention.ms": "-1", "retention.bytes": "1"})
	for i := range uint64(3) {
		fill(e, logs, i)
		e.Drain()
	}
	o := &asked{owner: owner{e: e}}
	o.hook = func() {
		keep := "-1"
		ops := []metadata.ConfigOp{{Name: "retention.bytes", Value: &keep}}
		e.Check(e.Store.IncrementalAlterConfigs(context.Background(), metadata.Resource{Type: metadata.ResourceTopic, Name: "t"}, ops, false))
	}
	r, err := compaction.New(compaction.Options{Bucket: e.Bucket, Tiering: e.Tier, Meta: e.Store, Owner: o, BrokerID: 1, BrokerEpoch: e.Epoch, Clock: e.Clock})
	e.Check(err)
	e.Check(r.RunOnce(context.Background()))
	if o.moves != 0 {
		t.Fatalf("the log start of %d partitions was moved after the configuration was changed", o.moves)
	}
	e.CheckReads(2000, logs...)
}
