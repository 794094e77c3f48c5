package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const memberGroup = "members"

// quietAfter is how long after a cut an old coordinator may still believe in itself, and answer what it knows: as in Kafka, an
// OffsetFetch asks nobody else. Answers are held against the commits only where none can be.
const quietAfter = 10 * time.Second

// register is a group without members whose offset for one partition is used as a number that grows: what was committed and
// answered is never less afterwards (I15: a coordinator that has not replayed its log would not know it).
type register struct {
	c     *cluster
	group string
	adm   *kadm.Client
	acked int64 // the highest commit that was answered
	tried int64
	open  map[int64]bool // commits without an answer: they may come into force at any later time
}

func (c *cluster) keepRegister(ctx context.Context, name string, rng *rand.Rand) {
	cl, err := kgo.NewClient(c.client()...)
	if err != nil {
		c.fail(err)
		return
	}
	defer cl.Close()
	r := &register{c: c, group: name, adm: kadm.NewClient(cl), open: map[int64]bool{}}
	for pause(ctx, time.Duration(20+rng.IntN(300))*time.Millisecond) {
		if rng.IntN(3) > 0 {
			r.commit(ctx)
		} else {
			r.look(ctx)
		}
	}
	c.mu.Lock()
	c.registers = append(c.registers, r)
	c.mu.Unlock()
}

func (r *register) commit(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r.tried++
	var o kadm.Offsets
	o.AddOffset(topic, 0, r.tried, -1)
	resp, err := r.adm.CommitOffsets(ctx, r.group, o)
	if err == nil && resp.Error() == nil {
		r.acked = r.tried
		r.c.count("commits", 1)
	} else {
		r.open[r.tried] = true
	}
}

// look compares the committed offset with what was answered.
func (r *register) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := r.adm.FetchOffsets(ctx, r.group)
	if err != nil || resp.Error() != nil || !r.c.quiet() {
		return
	}
	at := int64(0)
	if o, ok := resp.Lookup(topic, 0); ok {
		at = o.At
	}
	r.c.count("looks", 1)
	if at < r.acked && !r.open[at] || at > r.tried {
		r.c.failf("group %s: offset %d after %d was committed (tried: %d)", r.group, at, r.acked, r.tried)
	}
}

// consumers is a group with members who come, commit and go: whoever gets a partition starts at what was committed.
type consumers struct {
	c     *cluster
	mu    sync.Mutex
	acked []int64
}

// member consumes in the group until ctx ends, over and over, for a while each time.
func (g *consumers) member(ctx context.Context, rng *rand.Rand) {
	for ctx.Err() == nil {
		life, cancel := context.WithTimeout(ctx, time.Duration(5+rng.IntN(30))*time.Second)
		if err := g.live(life); err != nil {
			g.c.fail(err)
		}
		cancel()
	}
}

func (g *consumers) live(ctx context.Context) error {
	at := map[int32]int64{} // of the partitions that were assigned: the next offset
	floor := map[int32]int64{}
	cl, err := kgo.NewClient(g.c.client(
		kgo.ConsumerGroup(memberGroup), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(200*time.Millisecond), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(time.Second), kgo.RebalanceTimeout(8*time.Second),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, m map[string][]int32) {
			g.mu.Lock()
			defer g.mu.Unlock()
			for _, p := range m[topic] {
				floor[p] = g.acked[p]
			}
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, m map[string][]int32) { g.forget(at, m[topic]) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, m map[string][]int32) { g.forget(at, m[topic]) }),
	)...)
	if err != nil {
		return fmt.Errorf("consumer group: %w", err)
	}
	defer cl.CloseAllowingRebalance()
	for ctx.Err() == nil {
		fs := cl.PollRecords(ctx, 500)
		fs.EachRecord(func(r *kgo.Record) {
			want, known := at[r.Partition]
			switch {
			case known && r.Offset != want:
				g.c.failf("group: partition %d: offset %d follows %d", r.Partition, r.Offset, want-1)
			case !known && r.Offset < floor[r.Partition] && g.c.quiet():
				g.c.failf("group: partition %d: a member begins at %d, %d was committed", r.Partition, r.Offset, floor[r.Partition])
			}
			at[r.Partition] = r.Offset + 1
		})
		if fs.NumRecords() > 0 && g.commit(ctx, cl, at) {
			g.committed(at)
		}
		cl.AllowRebalance()
	}
	return nil
}

func (g *consumers) forget(at map[int32]int64, revoked []int32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range revoked {
		delete(at, p)
	}
}

// commit commits what was read, as the client would do it. Its own commits wait for joins with a mutex, in which no bubble's time goes on.
func (g *consumers) commit(ctx context.Context, cl *kgo.Client, at map[int32]int64) bool {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = memberGroup
	req.MemberID, req.Generation = cl.GroupMetadata()
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic = topic
	for p, offset := range at {
		part := kmsg.NewOffsetCommitRequestTopicPartition()
		part.Partition, part.Offset = p, offset
		t.Partitions = append(t.Partitions, part)
	}
	req.Topics = append(req.Topics, t)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return false
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				return false
			}
		}
	}
	return len(resp.Topics) > 0
}

func (g *consumers) committed(offsets map[int32]int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p, o := range offsets {
		g.acked[p] = max(g.acked[p], o)
	}
	g.c.count("group commits", 1)
}
