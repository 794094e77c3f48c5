package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/coordinator/group"
	"github.com/varvelog/varve/fetch"
	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
	"github.com/varvelog/varve/record"
)

// edge is a server over the real metadata store (in memory) and stand-ins for the other components.
type edge struct {
	t      testing.TB
	s      *Server
	meta   *metadata.Store
	ingest *fakeIngest
	fetch  *fakeFetch
	groups *fakeGroups
	addr   string
	logs   *logBuffer
}

type logBuffer struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// newEdge starts a server on a TCP port of the loopback.
func newEdge(t testing.TB, change func(*Options)) *edge {
	t.Helper()
	e := newQuietEdge(t, change)
	served := e.serve()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := e.s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; !errors.Is(err, ErrServerClosed) {
			t.Errorf("serve returned %v", err)
		}
	})
	return e
}

// serve listens on a TCP port of the loopback; what it returns yields Serve's error.
func (e *edge) serve() <-chan error {
	e.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		e.t.Fatal(err)
	}
	e.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- e.s.Serve(l) }()
	return served
}

// newQuietEdge builds a server without a listener.
func newQuietEdge(t testing.TB, change func(*Options)) *edge {
	t.Helper()
	static := map[string]string{"offsets.topic.num.partitions": "4"}
	if _, fuzzing := t.(*testing.F); fuzzing {
		static["auto.create.topics.enable"] = "false"
	}
	store, err := metadata.Open(context.Background(), metadata.Options{KV: memkv.New(memkv.Options{}), BrokerID: 1,
		Static: static})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := store.RegisterBroker(context.Background(), metadata.Broker{ID: 1, Host: "127.0.0.1", Port: 9092}); err != nil {
		t.Fatal(err)
	}
	e := &edge{t: t, meta: store, ingest: newFakeIngest(store), fetch: &fakeFetch{}, groups: &fakeGroups{}, logs: &logBuffer{}}
	level := slog.LevelDebug
	if _, fuzzing := t.(*testing.F); fuzzing {
		level = slog.LevelError
	}
	o := Options{BrokerID: 1, LogDir: "/tmp", Logger: slog.New(slog.NewTextHandler(e.logs, &slog.HandlerOptions{Level: level}))}
	if change != nil {
		change(&o)
	}
	e.fetch.ingest = e.ingest
	e.s = newServer(o, backends{meta: storeCluster{store}, ingest: e.ingest, fetch: e.fetch, groups: e.groups})
	return e
}

func (e *edge) topic(name string, partitions int32, configs map[string]string) *metadata.Topic {
	e.t.Helper()
	t, err := e.meta.CreateTopic(context.Background(), metadata.TopicSpec{Name: name, Partitions: partitions, ReplicationFactor: 1, Configs: configs}, false)
	if err != nil {
		e.t.Fatalf("create %s: %v", name, err)
	}
	return t
}

// probe is a client connection that speaks in frames.
type probe struct {
	t        testing.TB
	nc       net.Conn
	corr     int32
	clientID string
}

func (e *edge) dial() *probe {
	e.t.Helper()
	nc, err := net.Dial("tcp", e.addr)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	return &probe{t: e.t, nc: nc, clientID: "probe"}
}

// header is a request header with the length prefix still to be set.
func (p *probe) header(key, version int16, flexible bool) []byte {
	p.corr++
	b := make([]byte, 4, 64)
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, uint32(p.corr))
	b = binary.BigEndian.AppendUint16(b, uint16(len(p.clientID)))
	b = append(b, p.clientID...)
	if flexible {
		b = append(b, 0)
	}
	return b
}

func sealed(b []byte) []byte {
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func (p *probe) encode(r kmsg.Request) []byte {
	return sealed(r.AppendTo(p.header(r.Key(), r.GetVersion(), r.IsFlexible())))
}

func (p *probe) write(b []byte) {
	p.t.Helper()
	if _, err := p.nc.Write(b); err != nil {
		p.t.Fatalf("write: %v", err)
	}
}

// receive reads one response frame: correlation id and the rest.
func (p *probe) receive() (int32, []byte, error) {
	var l [4]byte
	if _, err := io.ReadFull(p.nc, l[:]); err != nil {
		return 0, nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(l[:]))
	if _, err := io.ReadFull(p.nc, b); err != nil {
		return 0, nil, err
	}
	return int32(binary.BigEndian.Uint32(b)), b[4:], nil
}

// decodeResponse parses a response body, which must not have bytes left over.
func decodeResponse(req kmsg.Request, body []byte) (kmsg.Response, error) {
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if resp.IsFlexible() && req.Key() != 18 {
		if len(body) == 0 || body[0] != 0 {
			return nil, fmt.Errorf("no tagged fields in the response header")
		}
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		return nil, err
	}
	if again := resp.AppendTo(nil); len(again) != len(body) {
		return nil, fmt.Errorf("response has %d bytes, its fields need %d", len(body), len(again))
	}
	return resp, nil
}

// call sends a request and returns its response, or the error that ended the connection.
func (p *probe) call(r kmsg.Request) (kmsg.Response, error) {
	p.t.Helper()
	p.write(p.encode(r))
	corr, body, err := p.receive()
	if err != nil {
		return nil, err
	}
	if corr != p.corr {
		p.t.Fatalf("correlation id %d, want %d", corr, p.corr)
	}
	return decodeResponse(r, body)
}

func (p *probe) must(r kmsg.Request) kmsg.Response {
	p.t.Helper()
	resp, err := p.call(r)
	if err != nil {
		p.t.Fatalf("%T v%d: %v", r, r.GetVersion(), err)
	}
	return resp
}

// closed waits until the server closes the connection without having sent anything.
func (p *probe) closed() {
	p.t.Helper()
	var b [1]byte
	if n, err := p.nc.Read(b[:]); n != 0 || err == nil {
		p.t.Fatalf("connection is open and answered byte %x (err %v)", b[:n], err)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Fatal("connection was not closed")
	}
}

// fakeReceipt is a promise that the test keeps.
type fakeReceipt struct {
	done    chan struct{}
	results []ingest.AppendResult
}

func (r *fakeReceipt) Done() <-chan struct{}          { return r.done }
func (r *fakeReceipt) Results() []ingest.AppendResult { return r.results }

// fakeIngest keeps batches in memory. While held, receipts stay open until release.
type fakeIngest struct {
	meta *metadata.Store
	mu   sync.Mutex
	logs map[base.TopicPartition][]record.Batch
	held bool
	open []*fakeReceipt
	errs map[base.TopicPartition]error
	seen int

	lagging atomic.Bool // a follower's log start stays at 1
	deposed atomic.Bool // this broker leads nothing any more, and knows that once it asks
}

func newFakeIngest(meta *metadata.Store) *fakeIngest {
	return &fakeIngest{meta: meta, logs: map[base.TopicPartition][]record.Batch{}, errs: map[base.TopicPartition]error{}}
}

func (f *fakeIngest) Append(_ context.Context, _ int16, _ int32, reqs []ingest.AppendRequest) receipt {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen++
	r := &fakeReceipt{done: make(chan struct{})}
	for _, q := range reqs {
		res := ingest.AppendResult{BaseOffset: -1, LogAppendTimeMs: -1, LogStart: 0}
		p, ok := f.meta.Image().Partition(q.TP)
		switch {
		case !ok:
			res.Err, res.LogStart = kerr.UnknownTopicOrPartition, -1
		case f.errs[q.TP] != nil:
			res.Err, res.LogStart = f.errs[q.TP], -1
		default:
			b := append(record.Batch(nil), q.Records...)
			res.LeaderEpoch = p.LeaderEpoch
			res.BaseOffset = base.Offset(len(f.logs[q.TP]))
			f.logs[q.TP] = append(f.logs[q.TP], b)
		}
		r.results = append(r.results, res)
	}
	if f.held {
		f.open = append(f.open, r)
	} else {
		close(r.done)
	}
	return r
}

func (f *fakeIngest) Confirm(context.Context, base.TopicPartition) error {
	if f.deposed.Load() {
		return kerr.NotLeaderForPartition
	}
	return nil
}

func (f *fakeIngest) hold() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = true
}

func (f *fakeIngest) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = false
	for _, r := range f.open {
		close(r.done)
	}
	f.open = nil
}

func (f *fakeIngest) appends() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen
}

func (f *fakeIngest) end(tp base.TopicPartition) (base.Offset, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.meta.Image().Partition(tp); !ok {
		return -1, kerr.UnknownTopicOrPartition
	}
	return base.Offset(len(f.logs[tp])), nil
}

// AwaitLowWatermark says that a follower's log starts at 1 for ever.
func (f *fakeIngest) AwaitLowWatermark(ctx context.Context, _ base.TopicPartition, goal base.Offset) (base.Offset, error) {
	if goal <= 1 || !f.lagging.Load() {
		return goal, nil
	}
	<-ctx.Done()
	return 1, kerr.RequestTimedOut
}

func (f *fakeIngest) DeleteRecords(tp base.TopicPartition, to base.Offset) (base.Offset, error) {
	end, err := f.end(tp)
	switch {
	case err != nil:
		return -1, err
	case to == -1:
		return end, nil
	case to < 0 || to > end:
		return -1, kerr.OffsetOutOfRange
	}
	return to, nil
}

func (f *fakeIngest) EpochEnd(_ context.Context, tp base.TopicPartition, _, epoch base.LeaderEpoch) (base.LeaderEpoch, base.Offset, error) {
	end, err := f.end(tp)
	return epoch, end, err
}

func (f *fakeIngest) Status(tp base.TopicPartition) (ingest.Status, error) {
	end, err := f.end(tp)
	return ingest.Status{HotBytes: int64(end) * 100}, err
}

func (f *fakeIngest) ReplicaStatus(p *metadata.Partition) (ingest.Status, error) {
	if !slices.Contains(p.Replicas, 1) {
		return ingest.Status{}, kerr.NotLeaderForPartition
	}
	return f.Status(p.TP)
}

// fakeFetch reads what fakeIngest keeps. It waits only where park is set.
type fakeFetch struct {
	ingest *fakeIngest
	mu     sync.Mutex
	park   chan struct{} // not nil: Fetch waits for it, or for the end of its context
	parked int
	last   *fetch.Request
	room   int // that the last one had
	panics bool
	asked  []int64 // timestamps of ListOffset
	// reading, where it is set before the first Fetch, is called between reserving and reading.
	reading func(room int)
	// follow, where it is set before the first one, answers the Fetch of a follower.
	follow func(r *fetch.FollowerRequest) (int32, []fetch.FollowerResponse, error)
}

func (f *fakeFetch) Fetch(ctx context.Context, r *fetch.Request) []fetch.PartitionResponse {
	f.mu.Lock()
	f.last = r
	park := f.park
	if f.panics {
		f.mu.Unlock()
		r.Memory.Reserve(1 << 20)
		panic("a bug in the read path")
	}
	if park != nil && r.MaxWaitMs > 0 {
		f.parked++
		f.mu.Unlock()
		select {
		case <-park:
		case <-ctx.Done():
		}
		f.mu.Lock()
		f.parked--
	}
	f.mu.Unlock()
	out := make([]fetch.PartitionResponse, len(r.Partitions))
	want, bytes := 0, 0
	for _, p := range r.Partitions {
		want = min(want+int(p.MaxBytes), int(r.MaxBytes))
	}
	room := r.Memory.Reserve(want)
	f.mu.Lock()
	f.room = room
	f.mu.Unlock()
	if f.reading != nil {
		f.reading(room)
	}
	defer func() { r.Memory.Keep(bytes) }()
	for i, p := range r.Partitions {
		out[i] = fetch.PartitionResponse{HighWatermark: -1, LastStable: -1, LogStart: -1, Preferred: -1, Err: p.Err}
		end, err := f.ingest.end(p.TP)
		if err != nil || p.Err != nil {
			if p.Err == nil {
				out[i].Err = err
			}
			continue
		}
		out[i].HighWatermark, out[i].LastStable, out[i].LogStart = end, end, 0
		if r.ReadCommitted {
			out[i].Aborted = []fetch.AbortedTxn{}
		}
		f.ingest.mu.Lock()
		if p.Offset >= 0 && p.Offset < end {
			for _, b := range f.ingest.logs[p.TP][p.Offset:] {
				if room < want && bytes > 0 && bytes+len(b) > room {
					break
				}
				out[i].Batches = append(out[i].Batches, b)
				bytes += len(b)
			}
		}
		f.ingest.mu.Unlock()
	}
	return out
}

func (f *fakeFetch) FetchFollower(_ context.Context, r *fetch.FollowerRequest) (int32, []fetch.FollowerResponse, error) {
	if f.follow != nil {
		return f.follow(r)
	}
	return 0, nil, kerr.FetchSessionIDNotFound
}

// lastRoom is how many bytes the last Fetch had room for.
func (f *fakeFetch) lastRoom() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.room
}

func (f *fakeFetch) waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.parked
}

func (f *fakeFetch) request() *fetch.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

func (f *fakeFetch) ListOffset(_ context.Context, tp base.TopicPartition, _ base.LeaderEpoch, timestamp int64, _ bool) (fetch.OffsetResult, error) {
	f.mu.Lock()
	f.asked = append(f.asked, timestamp)
	f.mu.Unlock()
	end, err := f.ingest.end(tp)
	return fetch.OffsetResult{Offset: end, Timestamp: -1}, err
}

// fakeGroups answers with empty responses and remembers what it was asked.
type fakeGroups struct {
	mu        sync.Mutex
	committed *kmsg.OffsetCommitRequest
	fetched   *kmsg.OffsetFetchRequest
	client    group.Client
}

func kind[T kmsg.Response](r kmsg.Request) T { return r.ResponseKind().(T) }

func (g *fakeGroups) JoinGroup(_ context.Context, cl group.Client, r *kmsg.JoinGroupRequest) *kmsg.JoinGroupResponse {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.client = cl
	return kind[*kmsg.JoinGroupResponse](r)
}
func (g *fakeGroups) SyncGroup(_ context.Context, _ group.Client, r *kmsg.SyncGroupRequest) *kmsg.SyncGroupResponse {
	return kind[*kmsg.SyncGroupResponse](r)
}
func (g *fakeGroups) Heartbeat(_ context.Context, _ group.Client, r *kmsg.HeartbeatRequest) *kmsg.HeartbeatResponse {
	return kind[*kmsg.HeartbeatResponse](r)
}
func (g *fakeGroups) LeaveGroup(_ context.Context, _ group.Client, r *kmsg.LeaveGroupRequest) *kmsg.LeaveGroupResponse {
	return kind[*kmsg.LeaveGroupResponse](r)
}
func (g *fakeGroups) OffsetCommit(_ context.Context, _ group.Client, r *kmsg.OffsetCommitRequest) *kmsg.OffsetCommitResponse {
	g.mu.Lock()
	g.committed = r
	g.mu.Unlock()
	resp := kind[*kmsg.OffsetCommitResponse](r)
	for _, t := range r.Topics {
		out := kmsg.NewOffsetCommitResponseTopic()
		out.Topic = t.Topic
		for _, p := range t.Partitions {
			op := kmsg.NewOffsetCommitResponseTopicPartition()
			op.Partition = p.Partition
			out.Partitions = append(out.Partitions, op)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}
func (g *fakeGroups) OffsetFetch(_ context.Context, _ group.Client, r *kmsg.OffsetFetchRequest) *kmsg.OffsetFetchResponse {
	g.mu.Lock()
	g.fetched = r
	g.mu.Unlock()
	resp := kind[*kmsg.OffsetFetchResponse](r)
	for _, q := range r.Groups {
		out := kmsg.NewOffsetFetchResponseGroup()
		out.Group = q.Group
		for _, t := range q.Topics {
			ot := kmsg.NewOffsetFetchResponseGroupTopic()
			ot.Topic, ot.TopicID = t.Topic, t.TopicID
			for _, p := range t.Partitions {
				op := kmsg.NewOffsetFetchResponseGroupTopicPartition()
				op.Partition, op.Offset = p, 7
				ot.Partitions = append(ot.Partitions, op)
			}
			out.Topics = append(out.Topics, ot)
		}
		resp.Groups = append(resp.Groups, out)
	}
	return resp
}
func (g *fakeGroups) OffsetDelete(_ context.Context, _ group.Client, r *kmsg.OffsetDeleteRequest) *kmsg.OffsetDeleteResponse {
	resp := kind[*kmsg.OffsetDeleteResponse](r)
	for _, t := range r.Topics {
		rt := kmsg.NewOffsetDeleteResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewOffsetDeleteResponseTopicPartition()
			rp.Partition = p.Partition
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}
func (g *fakeGroups) DescribeGroups(_ context.Context, _ group.Client, r *kmsg.DescribeGroupsRequest) *kmsg.DescribeGroupsResponse {
	resp := kind[*kmsg.DescribeGroupsResponse](r)
	for _, name := range r.Groups {
		d := kmsg.NewDescribeGroupsResponseGroup()
		d.Group, d.State = name, "Dead"
		resp.Groups = append(resp.Groups, d)
	}
	return resp
}
func (g *fakeGroups) ListGroups(_ context.Context, _ group.Client, r *kmsg.ListGroupsRequest) *kmsg.ListGroupsResponse {
	return kind[*kmsg.ListGroupsResponse](r)
}
func (g *fakeGroups) DeleteGroups(_ context.Context, _ group.Client, r *kmsg.DeleteGroupsRequest) *kmsg.DeleteGroupsResponse {
	return kind[*kmsg.DeleteGroupsResponse](r)
}

// waitFor polls a condition that another goroutine makes true.
func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never happened: %s", what)
		}
	}
}

func (l *logBuffer) has(s string) bool { return strings.Contains(l.String(), s) }
