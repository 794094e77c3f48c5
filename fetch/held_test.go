package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/varvelog/varve/fetch"
	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
	"github.com/varvelog/varve/record"
)

// leading is broker 1, which leads partitions that broker 2 is to follow and has nothing of. It lives in a bubble: its time passes only
// while everybody waits.
type leading struct {
	t     *testing.T
	meta  *metadata.Store
	in    *ingest.Ingest
	svc   *fetch.Service
	topic base.TopicID

	follower       int64 // its registration epoch
	session, epoch int32
	at             map[int32]base.Offset // where the follower is
	moved          map[int32]bool        // what its next fetch names
	bytes          map[int32]int         // that it was given
}

func (l *leading) check(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

const partitions = 3

// inBubble runs a test with such a leader. Partitions 0 and 1 are listed as throttled, 2 is not.
func inBubble(t *testing.T, f func(t *testing.T, l *leading)) {
	synctest.Test(t, func(t *testing.T) {
		l := &leading{t: t, at: map[int32]base.Offset{}, moved: map[int32]bool{}, bytes: map[int32]int{}}
		kv, ctx := memkv.New(memkv.Options{}), context.Background()
		var err error
		l.meta, err = metadata.Open(ctx, metadata.Options{KV: kv, BrokerID: 1})
		l.check(err)
		_, err = l.meta.RegisterBroker(ctx, metadata.Broker{ID: 1, Host: "h", Port: 1})
		l.check(err)
		other, err := metadata.Open(ctx, metadata.Options{KV: kv, BrokerID: 2})
		l.check(err)
		l.follower, err = other.RegisterBroker(ctx, metadata.Broker{ID: 2, Host: "h", Port: 2})
		l.check(err)
		synctest.Wait()
		store, err := hot.Open(hot.Options{Dir: "hot", FS: vfs.NewMem(), MemTableBytes: 1 << 20, FreeSpace: func() (uint64, error) { return 1 << 40, nil }})
		l.check(err)
		l.in, err = ingest.New(ingest.Options{Store: store, Meta: l.meta, Broker: 1})
		l.check(err)
		l.in.Start()
		defer func() {
			if err := errors.Join(l.in.Stop(), store.Close(), other.Close(), l.meta.Close()); err != nil {
				t.Error(err)
			}
		}()
		l.svc = fetch.New(fetch.Options{Ingest: l.in, Meta: l.meta})
		both := []base.BrokerID{1, 2}
		topic, err := l.meta.CreateTopic(ctx, metadata.TopicSpec{
			Name: "t", Partitions: -1, ReplicationFactor: -1, Assignment: map[int32][]base.BrokerID{0: both, 1: both, 2: both},
			Configs: map[string]string{"leader.replication.throttled.replicas": "0:1,1:1,2:2"},
		}, false)
		l.check(err)
		l.topic = topic.ID
		synctest.Wait()
		for i := range int32(partitions) {
			l.moved[i] = true
		}
		f(t, l)
	})
}

// rate sets the leader's rate; empty: none.
func (l *leading) rate(bytesPerSecond string) {
	l.t.Helper()
	op := metadata.ConfigOp{Name: "leader.replication.throttled.rate", Value: &bytesPerSecond}
	if bytesPerSecond == "" {
		op = metadata.ConfigOp{Name: op.Name, Op: 1}
	}
	l.check(l.meta.IncrementalAlterConfigs(context.Background(), metadata.Resource{Type: metadata.ResourceBroker, Name: "1"}, []metadata.ConfigOp{op}, false))
	synctest.Wait()
}

const batchBytes = 10_000

// fill appends n batches of about batchBytes to a partition.
func (l *leading) fill(partition int32, n int) {
	l.t.Helper()
	for range n {
		b, err := record.Build(record.BuildHeader{ProducerID: -1, BaseSequence: -1}, []record.Record{{Timestamp: 1, Value: []byte(strings.Repeat("x", batchBytes-70))}})
		l.check(err)
		r := l.in.Append(context.Background(), 1, 5000, []ingest.AppendRequest{{TP: base.TopicPartition{Topic: "t", Partition: partition}, Records: b}})
		<-r.Done()
		l.check(r.Results()[0].Err)
	}
}

// fetch is the follower's next fetch: it names what has moved.
func (l *leading) fetch(ctx context.Context, wait time.Duration) (given map[int32]int) {
	l.t.Helper()
	r := &fetch.FollowerRequest{
		Follower: 2, BrokerEpoch: l.follower, SessionID: l.session, SessionEpoch: l.epoch, NewSession: 7,
		MaxWaitMs: int32(wait.Milliseconds()), MaxBytes: 10 << 20,
	}
	for i := range int32(partitions) {
		if l.moved[i] {
			state, _ := l.meta.Image().Partition(base.TopicPartition{Topic: "t", Partition: i})
			last := base.NoLeaderEpoch
			if l.at[i] > 0 {
				last = state.LeaderEpoch
			}
			r.Partitions = append(r.Partitions, fetch.FollowerPartition{
				FollowerKey: fetch.FollowerKey{Topic: l.topic, Partition: i}, Offset: l.at[i], MaxBytes: 1 << 20,
				CurrentEpoch: state.LeaderEpoch, LastEpoch: last,
			})
		}
	}
	clear(l.moved)
	session, out, err := l.svc.FetchFollower(ctx, r)
	l.check(err)
	l.session, l.epoch = session, l.epoch+1
	given = map[int32]int{}
	for _, p := range out {
		l.check(p.Err)
		if len(p.Batches) > 0 {
			given[p.Partition] = p.Bytes
			l.bytes[p.Partition] += p.Bytes
			l.at[p.Partition], l.moved[p.Partition] = p.Batches[len(p.Batches)-1].NextOffset(), true
		}
	}
	return given
}

// What is throttled is left out of an answer, what is not goes on; a fetch that waits is woken when there is room again, and the
// rate is kept.
func TestLeaderHoldsItsRate(t *testing.T) {
	inBubble(t, func(t *testing.T, l *leading) {
		for i := range int32(partitions) {
			l.fill(i, 20)
		}
		l.rate("100000")
		began := time.Now()
		if given := l.fetch(t.Context(), time.Minute); len(given) != 1 || given[2] < 20*batchBytes*9/10 {
			t.Fatalf("first answer: %v", given)
		}
		fetches := 0
		for l.at[0] < 20 || l.at[1] < 20 {
			if given := l.fetch(t.Context(), time.Minute); given[0]+given[1] > 2*batchBytes {
				t.Fatalf("given %v at once", given)
			}
			if fetches++; fetches == 15 && (l.at[0] == 0 || l.at[1] == 0) {
				t.Fatalf("one partition is starved: %v", l.at)
			}
		}
		sum := l.bytes[0] + l.bytes[1]
		least := time.Duration(float64(sum-batchBytes) / 100_000 * float64(time.Second))
		if took := time.Since(began); took < least || took > 2*least {
			t.Errorf("%d bytes at 100 KB/s took %v", sum, took)
		}
		if fetches > 60 {
			t.Errorf("%d fetches", fetches)
		}
	})
}

// Who has caught up is waited for, or is about to be: it is not held back, though what it reads counts.
func TestLeaderDoesNotHoldWhoIsAwaited(t *testing.T) {
	inBubble(t, func(t *testing.T, l *leading) {
		l.fetch(t.Context(), 0) // nothing there: it has everything
		l.rate("100000")
		for range 5 {
			l.fill(0, 20)
			if given := l.fetch(t.Context(), 0); given[0] < 20*batchBytes*9/10 {
				t.Fatalf("given %v", given)
			}
		}
		if _, wait, _ := l.in.LeaderQuota().Room(time.Now()); wait < 9*time.Second {
			t.Errorf("what it read is not counted: room in %v", wait)
		}
	})
}

// A fetch that waits for a quota of nothing goes on at once when the quota, or the list of what it counts, changes.
func TestChangesOfTheQuotaWake(t *testing.T) {
	for name, change := range map[string]func(l *leading){
		"rate": func(l *leading) { l.rate("") },
		"list": func(l *leading) {
			list := "0:1,2:1"
			l.check(l.meta.IncrementalAlterConfigs(context.Background(), metadata.Resource{Type: metadata.ResourceTopic, Name: "t"},
				[]metadata.ConfigOp{{Name: "leader.replication.throttled.replicas", Value: &list}}, false))
		},
	} {
		inBubble(t, func(t *testing.T, l *leading) {
			l.rate("0")
			l.fill(1, 1)
			began, given := time.Now(), make(chan map[int32]int, 1)
			go func() { given <- l.fetch(context.Background(), time.Hour) }()
			time.Sleep(time.Minute)
			if len(given) != 0 {
				t.Fatalf("%s: %v passed a quota of nothing", name, <-given)
			}
			change(l)
			if got := <-given; len(got) != 1 || got[1] == 0 || time.Since(began) > time.Minute+time.Second {
				t.Errorf("%s: given %v after %v", name, got, time.Since(began))
			}
		})
	}
}

// A session forgets what it held back of a partition that is fetched no more.
func TestForgottenWhileHeld(t *testing.T) {
	inBubble(t, func(t *testing.T, l *leading) {
		l.rate("100000")
		l.fill(0, 1)
		l.fetch(t.Context(), 0)
		r := &fetch.FollowerRequest{
			Follower: 2, BrokerEpoch: l.follower, SessionID: l.session, SessionEpoch: l.epoch, MaxWaitMs: 5000, MaxBytes: 1 << 20,
			Forgotten: []fetch.FollowerKey{{Topic: l.topic, Partition: 0}},
		}
		if _, out, err := l.svc.FetchFollower(t.Context(), r); err != nil || len(out) > 0 {
			t.Errorf("answered %s, %v", fmt.Sprint(maps.Collect(func(yield func(int32, int) bool) {
				for _, p := range out {
					yield(p.Partition, p.Bytes)
				}
			})), err)
		}
	})
}

// A follower that may read nothing is given a batch.
func TestFollowerReadsABatchAtLeast(t *testing.T) {
	inBubble(t, func(t *testing.T, l *leading) {
		l.fill(0, 2)
		state, _ := l.meta.Image().Partition(base.TopicPartition{Topic: "t"})
		_, out, err := l.svc.FetchFollower(t.Context(), &fetch.FollowerRequest{
			Follower: 2, BrokerEpoch: l.follower, NewSession: 7, MaxBytes: 0, Partitions: []fetch.FollowerPartition{{
				FollowerKey: fetch.FollowerKey{Topic: l.topic}, CurrentEpoch: state.LeaderEpoch, LastEpoch: -1, MaxBytes: 1 << 20,
			}},
		})
		l.check(err)
		if len(out) != 1 || len(out[0].Batches) != 1 {
			t.Errorf("answered %+v", out)
		}
	})
}
