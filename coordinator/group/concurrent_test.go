package group

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/memlog"
	"github.com/varvelog/varve/internal/base"
)

// consumer is a client of the classic protocol, as simple as one can be.
type consumer struct {
	c         *Coordinator
	group, id string
	gen       int32
	commits   int
	last      int64 // the last offset that was acknowledged
}

// run joins, syncs, heartbeats and commits to a partition of its own until it has committed n times. It takes every error
// as a client does: it starts anew.
func (m *consumer) run(ctx context.Context, n int, topic string) error {
	for m.commits < n {
		if ctx.Err() != nil {
			return fmt.Errorf("%s/%s after %d commits: %w", m.group, topic, m.commits, ctx.Err())
		}
		r := joinRequest(m.group, m.id)
		r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = 1000, 2000 // whoever is lost is not waited for long
		j := m.c.JoinGroup(ctx, Client{ID: "c", Host: "h"}, r)
		switch j.ErrorCode {
		case 0:
			m.id, m.gen = j.MemberID, j.Generation
		case codeMemberIDRequired:
			m.id = j.MemberID
			continue
		case codeUnknownMember:
			m.id = ""
			continue
		default:
			time.Sleep(time.Millisecond) // the client's back-off
			continue
		}
		var assign []string
		for _, o := range j.Members {
			assign = append(assign, o.MemberID)
		}
		s := m.c.SyncGroup(ctx, Client{}, syncRequest(m.group, m.id, m.gen, assign...))
		if s.ErrorCode != 0 {
			continue
		}
		if string(s.MemberAssignment) != "for "+m.id {
			return fmt.Errorf("member %s got %q", m.id, s.MemberAssignment)
		}
		m.consume(ctx, n, topic)
	}
	return nil
}

func (m *consumer) consume(ctx context.Context, n int, topic string) {
	for m.commits < n {
		offset := m.last + 1
		r := m.c.OffsetCommit(ctx, Client{}, commitRequest(m.group, m.id, m.gen, topic, offset))
		if r.Topics[0].Partitions[0].ErrorCode != 0 {
			return
		}
		m.last, m.commits = offset, m.commits+1
		if m.commits%5 == 0 && heartbeat(m.c, ctx, m.group, m.id, m.gen) != 0 {
			return
		}
	}
}

// TestManyConsumers: groups of real goroutines over a log that loses appends now and then, with leadership that moves
// under them. What was acknowledged is there in the end.
func TestManyConsumers(t *testing.T) {
	const groups, members, commits = 4, 5, 300
	var n atomic.Int64
	log := &memlog.Log{Fail: func(int) error {
		switch i := n.Add(1); {
		case i%37 == 0:
			return kerr.NotEnoughReplicas
		case i%101 == 0:
			return kerr.NotLeaderForPartition
		}
		return nil
	}}
	c := start(t, log, func(o *Options) {
		o.Config = func() Config { cfg := fast(); cfg.MinSessionTimeout = time.Second; return cfg }
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	all := make([]*consumer, groups*members)
	var wg sync.WaitGroup
	for i := range all {
		all[i] = &consumer{c: c, group: fmt.Sprint("g", i%groups)}
		wg.Go(func() {
			if err := all[i].run(ctx, commits, fmt.Sprint("topic", i)); err != nil {
				t.Error(err)
			}
			leave(c, ctx, all[i].group, all[i].id)
		})
	}
	stop := make(chan struct{})
	moved := make(chan int32, 1)
	go func() { // leadership moves whenever the log has grown a little
		for epoch, at := int32(2), 0; ; {
			select {
			case <-stop:
				moved <- epoch - 2
				return
			default:
			}
			if log.Appends() < at {
				time.Sleep(time.Millisecond)
				continue
			}
			at = log.Appends() + 150
			p := rand.Int32N(4)
			if epoch%2 == 0 {
				c.Resign(p)
			}
			c.Lead(p, base.LeaderEpoch(epoch))
			epoch++
		}
	}()
	wg.Wait()
	close(stop)
	if n := <-moved; n < 5 {
		t.Errorf("leadership moved %d times only", n)
	}
	loaded(t, c)
	for i, m := range all {
		r := c.OffsetFetch(t.Context(), Client{}, fetchRequest(m.group))
		got := int64(-1)
		for _, topic := range r.Groups[0].Topics {
			if topic.Topic == fmt.Sprint("topic", i) {
				got = topic.Partitions[0].Offset
			}
		}
		if got < m.last {
			t.Errorf("consumer %d: offset %d acknowledged, %d found (code %d)", i, m.last, got, r.Groups[0].ErrorCode)
		}
	}
}

// replayLog is a log of one partition with n offsets in commits of 100, and a group of many members.
func replayLog(b testing.TB, offsets, members int) *memlog.Log {
	b.Helper()
	log := &memlog.Log{}
	c := start(b, log, func(o *Options) { o.Partitions = func() int32 { return 1 }; o.MaxPendingBytes = 1 << 30 })
	for g := range offsets / 1000 {
		for topic := range 10 {
			c.OffsetCommit(b.Context(), Client{}, commitRequest(fmt.Sprint("group-", g), "", -1, fmt.Sprint("topic-", topic), make([]int64, 100)...))
		}
	}
	g := newClassicGroup("large", 0)
	p := "range"
	g.protocolType, g.protocol = "consumer", &p
	for i := range members {
		g.add(&member{id: fmt.Sprintf("consumer-large-%d-4f0f2c3e-0b3c-4a51-8c7e-0123456789ab", i), client: Client{"consumer", "/10.0.0.1"},
			protocols: []kmsg.JoinGroupRequestProtocol{{Name: p, Metadata: subscription("a", "b")}}, assignment: make([]byte, 40), session: time.Minute}, waiting{})
	}
	if members > 0 {
		log.Put(0, batchOf(b, -1, false, rec(groupRecord(g, nil))))
	}
	return log
}

// BenchmarkReplay is a failover of a partition with 100,000 offsets and a group of 100,000 members (design: under 1 s).
func BenchmarkReplay(b *testing.B) {
	log := replayLog(b, 100_000, 100_000)
	w := newWorkbench(b)
	for b.Loop() {
		m := w.newMachine()
		for _, batch := range log.Batches(0) {
			if err := m.Replay(batch); err != nil {
				b.Fatal(err)
			}
		}
		if m.offsets.len() != 100_000 || len(m.groups["large"].members) != 100_000 {
			b.Fatal(m.offsets.len(), len(m.groups))
		}
	}
}

// BenchmarkCommit is 64 callers that commit at the same time, each 10 partitions.
func BenchmarkCommit(b *testing.B) {
	log := &memlog.Log{}
	c := start(b, log, nil)
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		r := commitRequest("g"+fmt.Sprint(rand.IntN(1000)), "", -1, "topic", make([]int64, 10)...)
		for pb.Next() {
			c.OffsetCommit(b.Context(), Client{}, r)
		}
	})
	b.ReportMetric(float64(b.N)/float64(log.Appends()), "commits/append")
}
