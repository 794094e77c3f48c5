package kafka

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/fetch"
	"github.com/varvelog/varve/internal/base"
)

// followerFetch is what broker 2 sends that follows so many partitions of a topic.
func followerFetch(id base.TopicID, partitions int) *kmsg.FetchRequest {
	r := kmsg.NewPtrFetchRequest()
	r.Version, r.MaxWaitMillis, r.MinBytes, r.MaxBytes = 17, 500, 1, 10<<20
	r.ReplicaState.ID, r.ReplicaState.Epoch = 2, 5
	ft := kmsg.NewFetchRequestTopic()
	ft.TopicID = id
	for i := range partitions {
		fp := kmsg.NewFetchRequestTopicPartition()
		fp.Partition, fp.PartitionMaxBytes = int32(i), 1<<20
		ft.Partitions = append(ft.Partitions, fp)
	}
	r.Topics = append(r.Topics, ft)
	return r
}

func (a *admission) waiting() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.mu.waiters)
}

// Produces that wait for a follower hold all memory that produces may have. The heartbeat of that follower is answered
// nevertheless, and so is its Fetch, by which they end.
func TestFollowerPassesWhatWaitsForIt(t *testing.T) {
	for _, c := range []struct {
		lane              string
		batch, partitions int
	}{
		{"small", 16 << 10, 1},
		{"medium", 512 << 10, 60},
	} {
		t.Run(c.lane, func(t *testing.T) {
			e := newEdge(t, func(o *Options) { o.Limits.RequestMemoryBytes = 8 << 20 })
			topic := e.topic("t", 1, nil)
			e.ingest.hold()
			e.fetch.follow = func(*fetch.FollowerRequest) (int32, []fetch.FollowerResponse, error) {
				e.ingest.release() // what it says moves the high watermark
				return 1, nil, nil
			}
			const producers, each = 3, 64
			answered := make(chan error, producers)
			for range producers {
				p := e.dial()
				frame := p.encode(produceRequest(9, topic.ID, "t", -1, make([]byte, c.batch)))
				go func() {
					for range each {
						if _, err := p.nc.Write(frame); err != nil {
							return // then its answers do not come either
						}
					}
				}()
				go func() {
					var err error
					for i := 0; i < each && err == nil; i++ {
						if _, _, err = p.receive(); err != nil {
							err = fmt.Errorf("answer %d: %w", i, err)
						}
					}
					answered <- err
				}()
			}
			lane := e.s.requests.patient.of(int64(c.batch))
			waitFor(t, "all producers wait for memory", func() bool { return lane.waiting() == producers })
			alive := kmsg.NewPtrBrokerHeartbeatRequest()
			alive.Version, alive.BrokerID = 1, 2
			e.dial().must(alive)
			if n := lane.waiting(); n != producers {
				t.Fatalf("%d producers wait: the follower is to find the lane full", n)
			}
			if resp := e.dial().must(followerFetch(topic.ID, c.partitions)).(*kmsg.FetchResponse); resp.ErrorCode != 0 || resp.SessionID != 1 {
				t.Errorf("the follower's fetch: error %d, session %d", resp.ErrorCode, resp.SessionID)
			}
			for range producers {
				if err := <-answered; err != nil {
					t.Error(err)
				}
			}
			waitFor(t, "all memory is given back", func() bool { return e.s.requests.inUse()+e.s.parked.inUse() == 0 })
		})
	}
}

// Slow consumers hold all fetch memory: followers go on, with little at a time.
func TestSlowConsumersDoNotStopFollowers(t *testing.T) {
	e := newEdge(t, func(o *Options) { o.Limits.FetchMemoryBytes = 8 << 20 })
	topic := e.topic("t", 1, nil)
	asked := make(chan int32, 1)
	e.fetch.follow = func(r *fetch.FollowerRequest) (int32, []fetch.FollowerResponse, error) {
		asked <- r.MaxBytes
		return 1, nil, nil
	}
	p := e.dial()
	for _, c := range []struct {
		held       int64
		want, gets int32
	}{{0, 10 << 20, 4 << 20}, {0, 2 << 20, 2 << 20}, {8 << 20, 10 << 20, followerBytes}, {9 << 20, 10 << 20, followerBytes}, {8 << 20, 1 << 10, 1 << 10}} {
		e.s.fetched.used.Add(c.held)
		r := followerFetch(topic.ID, 1)
		r.MaxBytes = c.want
		p.must(r)
		if got := <-asked; got != c.gets {
			t.Errorf("consumers hold %d, a follower wants %d: it may read %d, want %d", c.held, c.want, got, c.gets)
		}
		e.s.fetched.used.Add(-c.held)
	}
}

// What stands behind a waiting Produce on its connection waits as long as that, whatever it is: it has no memory of the prompt
// lanes. The connection is prompt again once the Produce is answered.
func TestBehindProduceIsNotPrompt(t *testing.T) {
	e := newEdge(t, nil)
	topic := e.topic("t", 1, nil)
	e.ingest.hold()
	p := e.dial()
	p.write(p.encode(produceRequest(9, topic.ID, "t", -1, []byte("batch"))))
	waitFor(t, "it waits", func() bool { return e.ingest.appends() == 1 })
	before := e.s.requests.patient.inUse()
	const fetches = 10
	for range fetches {
		p.write(p.encode(fetchRequest(12, topic.ID, "t", 0)))
	}
	p.write(p.encode(produceRequest(9, topic.ID, "t", -1, []byte("batch"))))
	waitFor(t, "all are read", func() bool { return e.ingest.appends() == 2 })
	if n := e.s.requests.prompt.inUse(); n != 0 {
		t.Errorf("%d bytes of the prompt lanes wait for a produce", n)
	}
	if n := e.s.requests.patient.inUse() - before; n < fetches*50 {
		t.Errorf("%d requests hold %d bytes", fetches+1, n)
	}
	e.ingest.release()
	for range fetches + 2 {
		if _, _, err := p.receive(); err != nil {
			t.Fatal(err)
		}
	}
	all, err := e.s.requests.patient.small.acquire(t.Context(), e.s.requests.patient.small.limit, func() {})
	if err != nil {
		t.Fatal(err)
	}
	p.must(fetchRequest(12, topic.ID, "t", 0))
	all.release()
}
