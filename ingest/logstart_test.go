package ingest_test

import (
	"context"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
	"github.com/varvelog/varve/record"
)

// led is broker 1, which leads a partition that broker 2 follows.
type led struct {
	*env
	tp       base.TopicPartition
	reign    int64 // controller epoch
	follower int64 // registration epoch of broker 2
}

func newLed(t *testing.T) *led {
	t.Helper()
	e := &env{t: t, fs: vfs.NewCrashableMem(), kv: memkv.New(memkv.Options{})}
	e.open()
	t.Cleanup(e.close)
	l := &led{env: e, tp: base.TopicPartition{Topic: "t"}}
	other, err := metadata.Open(t.Context(), metadata.Options{KV: e.kv, BrokerID: followerID})
	e.check(err)
	t.Cleanup(func() { e.check(other.Close()) })
	l.follower, err = other.RegisterBroker(t.Context(), metadata.Broker{ID: followerID, Host: "localhost", Port: 9093})
	e.check(err)
	l.reign, err = e.meta.ClaimController(t.Context())
	e.check(err)
	e.check(e.meta.UnfenceBroker(t.Context(), l.reign, followerID, l.follower))
	l.untilFenced(false)
	_, err = e.meta.CreateTopic(t.Context(), metadata.TopicSpec{
		Name: "t", Partitions: -1, ReplicationFactor: -1, Assignment: map[int32][]base.BrokerID{0: {1, followerID}},
	}, false)
	e.check(err)
	l.until("the partition's leader waits for the follower", func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		low, err := l.AwaitLowWatermark(ctx, l.tp, 0)
		return low == base.NoOffset && isCode(err, kerr.RequestTimedOut)
	})
	return l
}

func (l *led) untilFenced(fenced bool) {
	l.t.Helper()
	l.until("the leader sees the follower's state", func() bool {
		b, ok := l.meta.Image().BrokerByID(followerID)
		return ok && b.Fenced == fenced
	})
}

// fetched is a fetch of the follower.
func (l *led) fetched(offset, logStart base.Offset) {
	l.t.Helper()
	p := l.part(l.tp)
	last := base.NoLeaderEpoch
	if offset > 0 {
		last = p.Status().LeaderEpoch
	}
	_, err := p.Fetched(ingest.FollowerFetch{
		Follower: followerID, BrokerEpoch: l.follower, CurrentEpoch: p.Status().LeaderEpoch, Offset: offset, LastEpoch: last, LogStart: logStart,
	})
	l.check(err)
}

// filled appends n records and waits until the follower, whose log starts at logStart, has them.
func (l *led) filled(n int, logStart base.Offset) {
	l.t.Helper()
	r := l.Append(l.t.Context(), 1, 5000, []ingest.AppendRequest{{TP: l.tp, Records: batch(l.t, n, nowTs, record.BuildHeader{})}})
	<-r.Done()
	l.check(r.Results()[0].Err)
	l.fetched(base.Offset(n), logStart)
}

// lowWatermark is an answer to AwaitLowWatermark.
type lowWatermark struct {
	low base.Offset
	err error
}

func (l *led) await(ctx context.Context, goal base.Offset) <-chan lowWatermark {
	c := make(chan lowWatermark, 1)
	go func() {
		low, err := l.AwaitLowWatermark(ctx, l.tp, goal)
		c <- lowWatermark{low, err}
	}()
	return c
}

func (l *led) waits(c <-chan lowWatermark) {
	l.t.Helper()
	select {
	case got := <-c:
		l.t.Fatalf("answered with %+v", got)
	default:
	}
}

// Records are deleted once the logs of all live replicas start behind them (Kafka: DelayedDeleteRecords).
func TestDeleteRecordsAwaitsFollowers(t *testing.T) {
	l := newLed(t)
	l.fetched(0, 0)
	feed := ingest.NewFeed()
	l.filled(100, 0)
	feed.Join(l.part(l.tp))
	goal, err := l.DeleteRecords(l.tp, 40)
	l.check(err)
	if goal != 40 || len(feed.Take()) != 1 {
		t.Fatalf("goal %d, or the follower is not told at once", goal)
	}
	c := l.await(t.Context(), 40)
	l.fetched(100, 39)
	l.waits(c)
	l.fetched(100, 40)
	if got := <-c; got.low != 40 || got.err != nil {
		t.Fatalf("%+v", got)
	}
	for _, c := range []struct{ to, want base.Offset }{{-1, 100}, {10, 10}} {
		if goal, err := l.DeleteRecords(l.tp, c.to); goal != c.want || err != nil {
			t.Errorf("delete to %d: goal %d, %v", c.to, goal, err)
		}
	}
}

func TestDeleteRecordsGivesUp(t *testing.T) {
	l := newLed(t)
	l.filled(100, 7)
	goal, err := l.DeleteRecords(l.tp, 40)
	l.check(err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := <-l.await(ctx, goal); got.low != 7 || !isCode(got.err, kerr.RequestTimedOut) {
		t.Errorf("timed out: %+v", got)
	}
	// Nobody waits for a broker that is fenced.
	c := l.await(t.Context(), goal)
	l.waits(c)
	l.check(l.meta.FenceBroker(t.Context(), l.reign, followerID, l.follower))
	if got := <-c; got.low != 40 || got.err != nil {
		t.Errorf("fenced: %+v", got)
	}
	// Nor does who is not the leader any more.
	l.check(l.meta.UnfenceBroker(t.Context(), l.reign, followerID, l.follower))
	l.untilFenced(false)
	c = l.await(t.Context(), 50)
	l.Resign()
	if got := <-c; !isCode(got.err, kerr.NotLeaderForPartition) {
		t.Errorf("resigned: %+v", got)
	}
}
