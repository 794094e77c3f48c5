package kafka

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
)

func (e *edge) appendBatch(topic string, partition int32, b string) {
	e.ingest.mu.Lock()
	defer e.ingest.mu.Unlock()
	tp := base.TopicPartition{Topic: topic, Partition: partition}
	e.ingest.logs[tp] = append(e.ingest.logs[tp], []byte(b))
}

// TestFetchAnswers: facts/protocol/probe/expected_kafka41_txn_fetch_listoffsets.txt, as far as the edge decides.
func TestFetchAnswers(t *testing.T) {
	e := newEdge(t, nil)
	topic := e.topic("t", 1, nil)
	e.appendBatch("t", 0, "batch")
	p := e.dial()
	one := func(r *kmsg.FetchRequest) kmsg.FetchResponseTopicPartition {
		t.Helper()
		r.SessionEpoch = -1
		resp := p.must(r).(*kmsg.FetchResponse)
		if resp.ErrorCode != 0 || resp.SessionID != 0 || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
			t.Fatalf("answer has the wrong shape: %+v", resp)
		}
		return resp.Topics[0].Partitions[0]
	}
	got := one(fetchRequest(4, base.TopicID{}, "t", 0))
	if string(got.RecordBatches) != "batch" || got.HighWatermark != 1 || got.LogStartOffset != -1 || got.AbortedTransactions != nil || got.PreferredReadReplica != -1 {
		t.Errorf("v4: %+v", got)
	}
	committed := fetchRequest(12, base.TopicID{}, "t", 0)
	committed.IsolationLevel = 1
	if got := one(committed); got.AbortedTransactions == nil || len(got.AbortedTransactions) != 0 {
		t.Errorf("read committed: aborted transactions %v, want an empty list", got.AbortedTransactions)
	}
	if got := one(fetchRequest(17, topic.ID, "", 0)); string(got.RecordBatches) != "batch" {
		t.Errorf("v17: %+v", got)
	}
	if got := one(fetchRequest(17, base.TopicID{9}, "", 0)); got.ErrorCode != 100 || got.HighWatermark != -1 {
		t.Errorf("unknown id: %+v", got)
	}
	if got := one(fetchRequest(12, base.TopicID{}, "nope", 0)); got.ErrorCode != 3 || got.HighWatermark != -1 || got.LastStableOffset != -1 || got.RecordBatches == nil {
		t.Errorf("unknown topic: %+v", got)
	}
	follower := fetchRequest(12, base.TopicID{}, "t", 0)
	follower.ReplicaID = 2
	if got := one(follower); got.ErrorCode != 9 {
		t.Errorf("follower: error %d, want 9", got.ErrorCode)
	}
	if e.s.fetched.used.Load() != 0 {
		t.Errorf("%d fetched bytes are not given back", e.s.fetched.used.Load())
	}
}

// TestFetchMemoryShrinksAnswers: what slow readers hold is not there for the next Fetch.
func TestFetchMemoryShrinksAnswers(t *testing.T) {
	e := newEdge(t, func(o *Options) { o.Limits.FetchMemoryBytes = 1 << 20 })
	e.topic("t", 1, nil)
	p := e.dial()
	p.must(fetchNoWait(12, "t"))
	if got := e.fetch.lastRoom(); got != 512<<10 {
		t.Errorf("it may read %d bytes, want half of what is free", got)
	}
	e.s.fetched.used.Add(1 << 20)
	p.must(fetchNoWait(12, "t"))
	if got := e.fetch.lastRoom(); got != 0 {
		t.Errorf("it may read %d bytes with a full budget, want 0: one batch", got)
	}
	if got := e.fetch.request().MinBytes; got != 1 {
		t.Errorf("min bytes %d with a full budget, want 1", got)
	}
	e.s.fetched.used.Add(-1 << 20)
}

// TestFetchesShareTheirMemory: what is being read counts, so that consumers that read at once, after a restart say, do not hold
// together what each may alone.
func TestFetchesShareTheirMemory(t *testing.T) {
	const limit, batch, consumers = 8 << 20, 64 << 10, 20
	e := newEdge(t, func(o *Options) { o.Limits.FetchMemoryBytes = limit })
	topic := e.topic("t", 1, nil)
	producer := e.dial()
	for range (4 << 20) / batch {
		producer.must(produceRequest(9, topic.ID, "t", 1, make([]byte, batch)))
	}
	var rooms atomic.Int64
	under, read := make(chan struct{}, consumers), make(chan struct{})
	e.fetch.reading = func(room int) {
		rooms.Add(int64(room))
		under <- struct{}{}
		<-read
	}
	var all []*probe
	for range consumers {
		p := e.dial()
		r := fetchRequest(12, topic.ID, "t", 0)
		r.MaxBytes, r.Topics[0].Partitions[0].PartitionMaxBytes = 50<<20, 50<<20
		p.write(p.encode(r))
		all = append(all, p)
		<-under
	}
	if n := rooms.Load(); n > limit || n < limit/2 || e.s.fetched.used.Load() != n {
		t.Errorf("%d consumers may read %d bytes of %d at once, of which %d count", consumers, n, limit, e.s.fetched.used.Load())
	}
	close(read)
	var bytes int
	for _, p := range all {
		_, body, err := p.receive()
		if err != nil {
			t.Fatal(err)
		}
		if len(body) < batch {
			t.Errorf("an answer of %d bytes: every consumer is to get a batch", len(body))
		}
		bytes += len(body)
	}
	if most := limit + consumers*(batch+100); bytes > most {
		t.Errorf("%d bytes were read, more than %d", bytes, most)
	}
	waitFor(t, "fetch memory is given back", func() bool { return e.s.fetched.used.Load() == 0 })
}

func fetchNoWait(version int16, name string) *kmsg.FetchRequest {
	r := fetchRequest(version, base.TopicID{}, name, 0)
	r.MaxWaitMillis = 0
	return r
}

// sessionStep is one request of a session and what must come of it.
func sessionFetch(t *testing.T, p *probe, id, epoch int32, change func(*kmsg.FetchRequest)) *kmsg.FetchResponse {
	t.Helper()
	r := kmsg.NewPtrFetchRequest()
	r.Version, r.SessionID, r.SessionEpoch, r.MaxBytes = 12, id, epoch, 1<<20
	if change != nil {
		change(r)
	}
	return p.must(r).(*kmsg.FetchResponse)
}

func withPartitions(name string, offset int64, partitions ...int32) func(*kmsg.FetchRequest) {
	return func(r *kmsg.FetchRequest) {
		ft := kmsg.NewFetchRequestTopic()
		ft.Topic = name
		for _, n := range partitions {
			fp := kmsg.NewFetchRequestTopicPartition()
			fp.Partition, fp.FetchOffset, fp.PartitionMaxBytes = n, offset, 1<<20
			ft.Partitions = append(ft.Partitions, fp)
		}
		r.Topics = append(r.Topics, ft)
	}
}

// partitionsOf lists the partitions of an answer in order.
func partitionsOf(r *kmsg.FetchResponse) (out []int32) {
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			out = append(out, p.Partition)
		}
	}
	return out
}

func equal(a, b []int32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// TestFetchSession walks through KIP-227 (facts/protocol.md 3.6).
func TestFetchSession(t *testing.T) {
	e := newEdge(t, nil)
	e.topic("t", 3, nil)
	p := e.dial()
	full := sessionFetch(t, p, 0, 0, withPartitions("t", 0, 0, 1, 2))
	if full.SessionID == 0 || !equal(partitionsOf(full), []int32{0, 1, 2}) {
		t.Fatalf("full fetch: session %d, partitions %v", full.SessionID, partitionsOf(full))
	}
	id := full.SessionID
	if got := sessionFetch(t, p, id, 1, nil); got.SessionID != id || len(got.Topics) != 0 {
		t.Errorf("nothing changed, but %v came", partitionsOf(got))
	}
	e.appendBatch("t", 1, "one")
	if got := sessionFetch(t, p, id, 2, nil); !equal(partitionsOf(got), []int32{1}) {
		t.Errorf("one partition has data, but %v came", partitionsOf(got))
	}
	e.appendBatch("t", 0, "zero")
	if got := sessionFetch(t, p, id, 3, nil); !equal(partitionsOf(got), []int32{0, 1}) {
		t.Errorf("a partition with data must go to the end: %v", partitionsOf(got))
	}
	if got := sessionFetch(t, p, id, 3, nil); got.ErrorCode != 71 || len(got.Topics) != 0 {
		t.Errorf("old epoch: error %d, want 71", got.ErrorCode)
	}
	// Consumed: nothing comes any more; a forgotten partition does not come either.
	forget := func(r *kmsg.FetchRequest) {
		withPartitions("t", 1, 0, 1)(r)
		ft := kmsg.NewFetchRequestForgottenTopic()
		ft.Topic, ft.Partitions = "t", []int32{2}
		r.ForgottenTopics = append(r.ForgottenTopics, ft)
	}
	e.appendBatch("t", 2, "two")
	if got := sessionFetch(t, p, id, 4, forget); len(got.Topics) != 0 {
		t.Errorf("forgotten or consumed partitions came: %v", partitionsOf(got))
	}
	// An error is sent each time.
	for epoch := int32(5); epoch < 7; epoch++ {
		got := sessionFetch(t, p, id, epoch, withPartitions("missing", 0, 0))
		if len(got.Topics) != 1 || got.Topics[0].Partitions[0].ErrorCode != 3 {
			t.Errorf("epoch %d: a missing topic is not told: %+v", epoch, got.Topics)
		}
	}
	if got := sessionFetch(t, p, 12345, 1, nil); got.ErrorCode != 70 {
		t.Errorf("unknown session: error %d, want 70", got.ErrorCode)
	}
	mixed := fetchRequest(13, base.TopicID{1}, "", 0)
	mixed.SessionID, mixed.SessionEpoch = id, 7
	if got := p.must(mixed).(*kmsg.FetchResponse); got.ErrorCode != 106 {
		t.Errorf("ids in a session of names: error %d, want 106", got.ErrorCode)
	}
	closed := sessionFetch(t, p, id, -1, withPartitions("t", 0, 0))
	if closed.SessionID != 0 || len(closed.Topics) != 1 {
		t.Errorf("closing: session %d, %d topics", closed.SessionID, len(closed.Topics))
	}
	if n, parts := e.s.sessions.size(); n != 0 || parts != 0 {
		t.Errorf("%d sessions, %d partitions are left", n, parts)
	}
}

// TestSessionCacheLimits: slots, eviction and the bound on partitions.
func TestSessionCacheLimits(t *testing.T) {
	manual := clock.NewManual(time.Unix(1000, 0))
	c := newSessionCache(manual, counter(), 2, 10)
	create := func(partitions int) int32 {
		req := kmsg.NewPtrFetchRequest()
		req.Version, req.SessionEpoch = 12, 0
		var all []int32
		for i := range partitions {
			all = append(all, int32(i))
		}
		withPartitions("t", 0, all...)(req)
		fc, err := c.begin(req)
		if err != nil {
			t.Fatal(err)
		}
		return c.create(fc)
	}
	a, b := create(2), create(3)
	if a == 0 || b == 0 {
		t.Fatal("no session with free slots")
	}
	if create(5) != 0 {
		t.Error("a young session was evicted")
	}
	manual.Advance(sessionEviction + time.Second)
	if c.touch(b) == nil {
		t.Fatal("session b is gone")
	}
	if create(1) == 0 || c.touch(a) != nil {
		t.Error("the idle session was not evicted")
	}
	if c.touch(b) == nil {
		t.Error("the session in use was evicted")
	}
	// b is old but in use: a larger one takes its slot, a smaller one does not.
	manual.Advance(time.Minute)
	if c.touch(b) == nil || create(2) != 0 {
		t.Error("a smaller session took the slot of a larger one in use")
	}
	if create(4) == 0 || c.touch(b) != nil {
		t.Error("a larger session did not take the slot of a smaller old one")
	}
	if n, parts := c.size(); n != 2 || parts != 5 {
		t.Errorf("%d sessions with %d partitions, want 2 with 5", n, parts)
	}
	manual.Advance(sessionEviction + time.Second)
	if create(11) != 0 {
		t.Error("a session beyond the bound on partitions was created")
	}
}

func TestNextSessionEpoch(t *testing.T) {
	for in, want := range map[int32]int32{0: 1, 1: 2, 1<<31 - 1: 1} {
		if got := nextSessionEpoch(in); got != want {
			t.Errorf("after %d comes %d, want %d", in, got, want)
		}
	}
}

// TestListOffsetsVersions: which special timestamp needs which version (facts/protocol.md 3.11, trap 15).
func TestListOffsetsVersions(t *testing.T) {
	e := newEdge(t, nil)
	e.topic("t", 2, nil)
	p := e.dial()
	ask := func(version int16, timestamp int64, partitions ...int32) []kmsg.ListOffsetsResponseTopicPartition {
		r := kmsg.NewPtrListOffsetsRequest()
		r.Version, r.TimeoutMillis = version, 1000
		lt := kmsg.NewListOffsetsRequestTopic()
		lt.Topic = "t"
		for _, n := range partitions {
			lp := kmsg.NewListOffsetsRequestTopicPartition()
			lp.Partition, lp.Timestamp = n, timestamp
			lt.Partitions = append(lt.Partitions, lp)
		}
		r.Topics = append(r.Topics, lt)
		return p.must(r).(*kmsg.ListOffsetsResponse).Topics[0].Partitions
	}
	since := map[int64]int16{-1: 1, -2: 1, -3: 7, -4: 8, -5: 9, -6: 11, -7: 100, 0: 1, 1795224576574: 1}
	for timestamp, first := range since {
		for v := int16(1); v <= 11; v++ {
			want := int16(0)
			if v < first {
				want = 35
			}
			got := ask(v, timestamp, 0)[0]
			if got.ErrorCode != want || (want != 0 && (got.Offset != -1 || got.Timestamp != -1)) {
				t.Errorf("timestamp %d v%d: error %d offset %d, want error %d", timestamp, v, got.ErrorCode, got.Offset, want)
			}
		}
	}
	if got := ask(7, -1, 1, 0, 1); got[0].ErrorCode != 42 || got[1].ErrorCode != 0 || got[2].ErrorCode != 42 {
		t.Errorf("duplicate partition: %+v", got)
	}
	if got := ask(7, -1, 9); got[0].ErrorCode != 3 || got[0].Offset != -1 {
		t.Errorf("unknown partition: %+v", got)
	}
}

// counter stands for randomness.
func counter() func() uint32 {
	n := uint32(0)
	return func() uint32 { n++; return n }
}
