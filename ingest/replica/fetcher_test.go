package replica

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// fakeLeader answers the fetches of connections that are pipes. Its trace, and that of the log, is what tests compare.
type fakeLeader struct {
	answer func(n int, req *kmsg.FetchRequest, resp *kmsg.FetchResponse) (park time.Duration, cut bool)
	mu     sync.Mutex
	trace  []string
	begun  time.Time
	count  int
}

func (l *fakeLeader) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trace = append(l.trace, fmt.Sprintf("%dms ", time.Since(l.begun).Milliseconds())+fmt.Sprintf(format, args...))
}

func (l *fakeLeader) dial(context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	l.note("dial")
	go l.serve(server) // ends with the connection
	return client, nil
}

func (l *fakeLeader) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		var size [4]byte
		if _, err := io.ReadFull(in, size[:]); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		req := kmsg.NewPtrFetchRequest()
		req.Version = int16(binary.BigEndian.Uint16(body[2:]))
		client := int(binary.BigEndian.Uint16(body[8:]))
		if err := req.ReadFrom(body[10+client+1:]); err != nil {
			l.note("bad request: %v", err)
			return
		}
		l.note("%s", describe(req))
		resp := kmsg.NewPtrFetchResponse()
		resp.Version, resp.SessionID = req.Version, 77
		l.mu.Lock()
		l.count++
		n := l.count
		l.mu.Unlock()
		park, cut := l.answer(n, req, resp)
		if cut {
			return
		}
		time.Sleep(park)
		out := binary.BigEndian.AppendUint32(make([]byte, 4), binary.BigEndian.Uint32(body[4:]))
		out = resp.AppendTo(append(out, 0))
		binary.BigEndian.PutUint32(out, uint32(len(out)-4))
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

func describe(req *kmsg.FetchRequest) string {
	var b strings.Builder
	fmt.Fprintf(&b, "fetch v%d by %d/%d session %d.%d wait %d:", req.Version, req.ReplicaState.ID, req.ReplicaState.Epoch, req.SessionID, req.SessionEpoch, req.MaxWaitMillis)
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			fmt.Fprintf(&b, " %d-%d@e%d %d after e%d", t.TopicID[0], p.Partition, p.CurrentLeaderEpoch, p.FetchOffset, p.LastFetchedEpoch)
		}
	}
	for _, t := range req.ForgottenTopics {
		fmt.Fprintf(&b, " forget %d-%v", t.TopicID[0], t.Partitions)
	}
	return b.String()
}

func id(n int32) ID { return ID{base.TopicID{1}, n} }

func addPartition(resp *kmsg.FetchResponse, n int32, change func(*kmsg.FetchResponseTopicPartition)) {
	t := kmsg.NewFetchResponseTopic()
	t.TopicID = id(n).Topic
	p := kmsg.NewFetchResponseTopicPartition()
	p.Partition = n
	change(&p)
	t.Partitions = append(t.Partitions, p)
	resp.Topics = append(resp.Topics, t)
}

// fakeLog notes what is applied; it takes applyTime.
type fakeLog struct {
	l         *fakeLeader
	applyTime time.Duration
	refuses   bool
	hangs     bool // a log that starts over waits for the end of its context
}

func (g *fakeLog) Apply(_ context.Context, changes []Change) (refused []ID) {
	for _, c := range changes {
		g.l.note("  apply %d: truncate %v %d, %d batches, hw %d", c.ID.Partition, c.Truncate, c.TruncateTo, len(c.Batches), c.HighWatermark)
	}
	time.Sleep(g.applyTime)
	g.l.note("  applied")
	for _, c := range changes {
		if g.refuses {
			refused = append(refused, c.ID)
		}
	}
	return refused
}

func (g *fakeLog) StartOver(ctx context.Context, p ID, _ base.LeaderEpoch, _, leaderStart base.Offset) (LogState, error) {
	g.l.note("  start over %d, leader starts at %d", p.Partition, leaderStart)
	if g.hangs {
		<-ctx.Done()
		time.Sleep(5 * time.Millisecond)
		g.l.note("  start over %d ended", p.Partition)
		return LogState{}, ctx.Err()
	}
	time.Sleep(g.applyTime)
	return LogState{LocalStart: 50, End: 50, HighWatermark: 50}, nil
}

// runFetcher runs a fetcher of broker 2 in a bubble, for d.
func runFetcher(t *testing.T, l *fakeLeader, log *fakeLog, d time.Duration, during func(f *Fetcher), with ...func(*Options)) (trace []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l.begun, log.l = time.Now(), l
		opts := Options{Self: 2, BrokerEpoch: 9, Leader: 1, Dial: l.dial, Log: log}
		for _, set := range with {
			set(&opts)
		}
		f := NewFetcher(opts)
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		done := make(chan struct{})
		go func() { f.Run(ctx); close(done) }()
		during(f)
		<-done
		time.Sleep(2 * time.Hour) // the leader's goroutines end with their connections
	})
	return l.trace
}

func compare(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("trace:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// compareAnyOrder is for traces of several goroutines, where lines of one instant come in any order.
func compareAnyOrder(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
		t.Errorf("trace:\n%s\nwant, lines of one instant in any order:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Everything that comes in one response is applied at once, before the fetch that acknowledges it; the session names what moved.
func TestFetcherAppliesTogether(t *testing.T) {
	l := &fakeLeader{answer: func(n int, _ *kmsg.FetchRequest, resp *kmsg.FetchResponse) (time.Duration, bool) {
		if n > 1 {
			return time.Hour, false
		}
		for i := range int32(2) {
			addPartition(resp, i, func(p *kmsg.FetchResponseTopicPartition) {
				p.RecordBatches, p.HighWatermark = batch(t, 0, 3, 2), int64(i)
			})
		}
		addPartition(resp, 2, func(p *kmsg.FetchResponseTopicPartition) {
			p.DivergingEpoch.Epoch, p.DivergingEpoch.EndOffset = 2, 4
		})
		return 0, false
	}}
	trace := runFetcher(t, l, &fakeLog{applyTime: 20 * time.Millisecond}, 100*time.Millisecond, func(f *Fetcher) {
		f.Follow(Assignment{ID: id(0), Epoch: 3, Log: LogState{}}, Assignment{ID: id(1), Epoch: 3, Log: LogState{}}, Assignment{ID: id(3), Epoch: 3, Log: LogState{}},
			Assignment{ID: id(2), Epoch: 3, Log: LogState{End: 9, Epochs: []base.EpochStart{{Epoch: 2, Start: 0}}}})
	})
	compare(t, trace,
		"0ms dial",
		"0ms fetch v17 by 2/9 session 0.0 wait 500: 1-0@e3 0 after e-1 1-1@e3 0 after e-1 1-2@e3 9 after e2 1-3@e3 0 after e-1",
		"0ms   apply 0: truncate false 0, 1 batches, hw 0",
		"0ms   apply 1: truncate false 0, 1 batches, hw 1",
		"0ms   apply 2: truncate true 4, 0 batches, hw 0",
		"20ms   applied",
		"20ms fetch v17 by 2/9 session 77.1 wait 500: 1-0@e3 2 after e3 1-1@e3 2 after e3 1-2@e3 4 after e2",
	)
}

// A long poll that does not know of a new partition, or of a new epoch, is cut short.
func TestFetcherFollowsAtOnce(t *testing.T) {
	l := &fakeLeader{answer: func(int, *kmsg.FetchRequest, *kmsg.FetchResponse) (time.Duration, bool) {
		return 500 * time.Millisecond, false
	}}
	trace := runFetcher(t, l, &fakeLog{}, 300*time.Millisecond, func(f *Fetcher) {
		f.Follow(Assignment{ID: id(0), Epoch: 3, Log: LogState{}})
		time.Sleep(100 * time.Millisecond)
		f.Follow(Assignment{ID: id(0), Epoch: 3, Log: LogState{}}, Assignment{ID: id(1), Epoch: 5, Log: LogState{}})
		time.Sleep(100 * time.Millisecond)
		f.Follow(Assignment{ID: id(0), Epoch: 4, Log: LogState{End: 99}})
	})
	compare(t, trace,
		"0ms dial", "0ms fetch v17 by 2/9 session 0.0 wait 500: 1-0@e3 0 after e-1",
		"105ms dial", "105ms fetch v17 by 2/9 session 0.0 wait 500: 1-0@e3 0 after e-1 1-1@e5 0 after e-1",
		"205ms dial", "205ms fetch v17 by 2/9 session 0.0 wait 500: 1-0@e4 99 after e-1 1-1@e5 0 after e-1",
	)
}

// Errors of a partition put only it off: 100 ms, then twice that; the poll does not outlast the wait.
func TestFetcherBacksOffPartition(t *testing.T) {
	l := &fakeLeader{answer: func(_ int, req *kmsg.FetchRequest, resp *kmsg.FetchResponse) (time.Duration, bool) {
		for _, tp := range req.Topics {
			for _, p := range tp.Partitions {
				if p.Partition == 1 {
					addPartition(resp, 1, func(p *kmsg.FetchResponseTopicPartition) { p.ErrorCode = kerr.UnknownLeaderEpoch.Code })
					return 0, false
				}
			}
		}
		return time.Duration(req.MaxWaitMillis) * time.Millisecond, false
	}}
	trace := runFetcher(t, l, &fakeLog{}, 310*time.Millisecond, func(f *Fetcher) {
		f.Follow(Assignment{ID: id(0), Epoch: 3, Log: LogState{}}, Assignment{ID: id(1), Epoch: 3, Log: LogState{}})
	})
	compare(t, trace,
		"0ms dial", "0ms fetch v17 by 2/9 session 0.0 wait 500: 1-0@e3 0 after e-1 1-1@e3 0 after e-1",
		"0ms fetch v17 by 2/9 session 77.1 wait 100: forget 1-[1]",
		"100ms fetch v17 by 2/9 session 77.2 wait 500: 1-1@e3 0 after e-1",
		"100ms fetch v17 by 2/9 session 77.3 wait 200: forget 1-[1]",
		"300ms fetch v17 by 2/9 session 77.4 wait 500: 1-1@e3 0 after e-1",
		"300ms fetch v17 by 2/9 session 77.5 wait 400: forget 1-[1]",
	)
}

// A connection that breaks is tried again after 100, 200, ... ms, at most a second; a session that is lost, at once and in full.
func TestFetcherReconnects(t *testing.T) {
	l := &fakeLeader{answer: func(n int, _ *kmsg.FetchRequest, resp *kmsg.FetchResponse) (time.Duration, bool) {
		if n == 7 {
			resp.ErrorCode, resp.SessionID = kerr.FetchSessionIDNotFound.Code, 0
		}
		if n == 8 {
			return time.Hour, false
		}
		return 0, n < 6
	}}
	trace := runFetcher(t, l, &fakeLog{}, 3*time.Second, func(f *Fetcher) { f.Follow(Assignment{ID: id(0), Epoch: 3, Log: LogState{}}) })
	full := "fetch v17 by 2/9 session 0.0 wait 500: 1-0@e3 0 after e-1"
	compare(t, trace,
		"0ms dial", "0ms "+full, "100ms dial", "100ms "+full, "300ms dial", "300ms "+full, "700ms dial", "700ms "+full,
		"1500ms dial", "1500ms "+full, "2500ms dial", "2500ms "+full,
		"2500ms fetch v17 by 2/9 session 77.1 wait 500:",
		"2500ms fetch v17 by 2/9 session 77.0 wait 500: 1-0@e3 0 after e-1",
	)
}

func TestFetcherStartsOver(t *testing.T) {
	l := &fakeLeader{answer: movedAway}
	trace := runFetcher(t, l, &fakeLog{applyTime: 10 * time.Millisecond}, 50*time.Millisecond, func(f *Fetcher) { f.Follow(Assignment{ID: id(0), Epoch: 3, Log: LogState{}}) })
	compareAnyOrder(t, trace,
		"0ms dial", "0ms fetch v17 by 2/9 session 0.0 wait 500: 1-0@e3 0 after e-1",
		"0ms   start over 0, leader starts at 40",
		"0ms fetch v17 by 2/9 session 77.1 wait 0: forget 1-[0]", // beside it
		"10ms fetch v17 by 2/9 session 77.2 wait 500: 1-0@e3 50 after e-1",
	)
}

// movedAway answers that what partition 0 is asked for is not hot any more, then nothing.
func movedAway(n int, req *kmsg.FetchRequest, resp *kmsg.FetchResponse) (time.Duration, bool) {
	if n > 1 {
		return time.Duration(req.MaxWaitMillis) * time.Millisecond, false
	}
	addPartition(resp, 0, func(p *kmsg.FetchResponseTopicPartition) {
		p.ErrorCode, p.LogStartOffset = kerr.OffsetMovedToTieredStorage.Code, 40
	})
	return 0, false
}

// A bucket that does not answer holds up what starts over, and nothing else: neither what else the leader has, nor the end of it.
func TestStartOverHoldsUpNobody(t *testing.T) {
	l := &fakeLeader{answer: func(n int, req *kmsg.FetchRequest, resp *kmsg.FetchResponse) (time.Duration, bool) {
		if n == 3 {
			addPartition(resp, 1, func(p *kmsg.FetchResponseTopicPartition) { p.RecordBatches = batch(t, 0, 3, 2) })
		}
		return movedAway(n, req, resp)
	}}
	trace := runFetcher(t, l, &fakeLog{hangs: true}, 160*time.Millisecond, func(f *Fetcher) {
		f.Follow(Assignment{ID: id(0), Epoch: 3, Log: LogState{}}, Assignment{ID: id(1), Epoch: 3, Log: LogState{}})
		time.Sleep(120 * time.Millisecond)
		f.Unfollow(id(0))
		l.note("unfollowed")
	})
	compareAnyOrder(t, trace,
		"0ms dial", "0ms fetch v17 by 2/9 session 0.0 wait 500: 1-0@e3 0 after e-1 1-1@e3 0 after e-1",
		"0ms   start over 0, leader starts at 40",
		"0ms fetch v17 by 2/9 session 77.1 wait 50: forget 1-[0]",
		"50ms fetch v17 by 2/9 session 77.2 wait 50:",
		"100ms   apply 1: truncate false 0, 1 batches, hw 0",
		"100ms   applied",
		"100ms fetch v17 by 2/9 session 77.3 wait 50: 1-1@e3 2 after e3",
		"125ms   start over 0 ended",
		"125ms unfollowed",
		"150ms fetch v17 by 2/9 session 77.4 wait 500:",
	)
}

// Logs start over beside each other, and are fetched as soon as each has.
func TestStartOverTogether(t *testing.T) {
	const logs = 3 * startOverLimit
	l := &fakeLeader{answer: func(n int, req *kmsg.FetchRequest, resp *kmsg.FetchResponse) (time.Duration, bool) {
		if n > 1 {
			return time.Duration(req.MaxWaitMillis) * time.Millisecond, false
		}
		for i := range int32(logs) {
			addPartition(resp, i, func(p *kmsg.FetchResponseTopicPartition) { p.ErrorCode = kerr.OffsetOutOfRange.Code })
		}
		return 0, false
	}}
	trace := runFetcher(t, l, &fakeLog{applyTime: 100 * time.Millisecond}, 400*time.Millisecond, func(f *Fetcher) {
		var all []Assignment
		for i := range int32(logs) {
			all = append(all, Assignment{ID: id(i), Epoch: 3, Log: LogState{}})
		}
		f.Follow(all...)
	})
	begun := map[string]int{}
	for _, line := range trace {
		if at, _, found := strings.Cut(line, "   start over"); found {
			begun[at]++
		}
	}
	if want := map[string]int{"0ms": startOverLimit, "100ms": startOverLimit, "200ms": startOverLimit}; !maps.Equal(begun, want) {
		t.Errorf("logs began to start over at %v, want %v", begun, want)
	}
	if last := trace[len(trace)-1]; strings.Count(last, "@e3 50") == 0 {
		t.Errorf("the last request is %q", last)
	}
}

// When Unfollow returns nothing of the partition is being applied, nor will be.
func TestUnfollowWaits(t *testing.T) {
	l := &fakeLeader{answer: func(n int, _ *kmsg.FetchRequest, resp *kmsg.FetchResponse) (time.Duration, bool) {
		addPartition(resp, 0, func(p *kmsg.FetchResponseTopicPartition) { p.RecordBatches = batch(t, base.Offset(n-1), 3, 1) })
		return 0, false
	}}
	trace := runFetcher(t, l, &fakeLog{applyTime: 50 * time.Millisecond}, 300*time.Millisecond, func(f *Fetcher) {
		f.Follow(Assignment{ID: id(0), Epoch: 3, Log: LogState{}})
		time.Sleep(10 * time.Millisecond)
		f.Unfollow(id(0))
		l.note("unfollowed")
	})
	i := slices.Index(trace, "50ms unfollowed")
	if i < 0 || slices.ContainsFunc(trace[i:], func(s string) bool { return strings.Contains(s, "apply") }) {
		t.Errorf("trace:\n%s", strings.Join(trace, "\n"))
	}
}

// What a log refuses is not fetched any more: its follower is ahead of it.
func TestFetcherLetsGoOfWhatIsRefused(t *testing.T) {
	l := &fakeLeader{answer: func(n int, _ *kmsg.FetchRequest, resp *kmsg.FetchResponse) (time.Duration, bool) {
		if n > 1 {
			return time.Hour, false
		}
		addPartition(resp, 0, func(p *kmsg.FetchResponseTopicPartition) { p.RecordBatches = batch(t, 0, 3, 1) })
		return 0, false
	}}
	trace := runFetcher(t, l, &fakeLog{refuses: true}, 50*time.Millisecond, func(f *Fetcher) {
		f.Follow(Assignment{ID: id(0), Epoch: 3, Log: LogState{}}, Assignment{ID: id(1), Epoch: 3, Log: LogState{}})
	})
	compare(t, trace,
		"0ms dial", "0ms fetch v17 by 2/9 session 0.0 wait 500: 1-0@e3 0 after e-1 1-1@e3 0 after e-1",
		"0ms   apply 0: truncate false 0, 1 batches, hw 0",
		"0ms   applied",
		"0ms fetch v17 by 2/9 session 77.1 wait 500: forget 1-[0]",
	)
}

// What a log refused is followed again before the next request, from where it was: the leader, which has sent what comes next, hears
// of it all the same, or it would never send that again.
func TestRefusedPartitionIsNamedAgain(t *testing.T) {
	f := NewFetcher(Options{Log: &fakeLog{l: &fakeLeader{}, refuses: true}})
	here, leader := net.Pipe()
	defer here.Close()
	defer leader.Close()
	l := newLink(here, "", 1<<20)
	f.Follow(Assignment{ID: id(0), Epoch: 3, Log: LogState{}})
	f.begin(l)
	f.endRequest()
	resp := kmsg.NewPtrFetchResponse()
	addPartition(resp, 0, func(p *kmsg.FetchResponseTopicPartition) { p.RecordBatches = batch(t, 0, 3, 1) })
	f.take(t.Context(), resp)
	f.session.answered(77)
	f.Follow(Assignment{ID: id(0), Epoch: 3, Log: LogState{}})
	if got := describe(f.begin(l)); !strings.Contains(got, "1-0@e3 0") {
		t.Errorf("the next request is %q", got)
	}
}

// Where nothing is kept and some is tiered, the log starts over before the leader is asked for anything; that may be taken back.
func TestFetcherStartsTiered(t *testing.T) {
	l := &fakeLeader{answer: func(_ int, req *kmsg.FetchRequest, _ *kmsg.FetchResponse) (time.Duration, bool) {
		return time.Duration(req.MaxWaitMillis) * time.Millisecond, false
	}}
	trace := runFetcher(t, l, &fakeLog{applyTime: 10 * time.Millisecond}, 300*time.Millisecond, func(f *Fetcher) {
		f.Follow(Assignment{ID: id(0), Epoch: 3, StartOver: true})
		time.Sleep(30 * time.Millisecond)
		f.Follow(Assignment{ID: id(1), Epoch: 3, StartOver: true}, Assignment{ID: id(2), Epoch: 3, StartOver: true})
		f.Unfollow(id(1))
	})
	compareAnyOrder(t, trace,
		"0ms   start over 0, leader starts at -1",
		"10ms dial", "10ms fetch v17 by 2/9 session 0.0 wait 500: 1-0@e3 50 after e-1",
		"35ms dial",
		"35ms   start over 2, leader starts at -1",
		"35ms fetch v17 by 2/9 session 0.0 wait 50: 1-0@e3 50 after e-1",
		"85ms fetch v17 by 2/9 session 77.1 wait 500: 1-2@e3 50 after e-1",
	)
}

// Where the bucket does not answer, what the leader still has is fetched: after a little patience of the first ones, the rest at once.
func TestFetcherStartsWithoutTheBucket(t *testing.T) {
	l := &fakeLeader{answer: func(_ int, req *kmsg.FetchRequest, _ *kmsg.FetchResponse) (time.Duration, bool) {
		return time.Duration(req.MaxWaitMillis) * time.Millisecond, false
	}}
	const logs = 3 * startOverLimit
	trace := runFetcher(t, l, &fakeLog{hangs: true}, freshPatience+400*time.Millisecond, func(f *Fetcher) {
		var all []Assignment
		for i := range int32(logs) {
			all = append(all, Assignment{ID: id(i), Epoch: 3, StartOver: true})
		}
		f.Follow(all...)
	})
	asked, fetched := 0, map[string]bool{}
	for _, line := range trace {
		if strings.Contains(line, "leader starts at") {
			asked++
		}
		for _, word := range strings.Fields(line) {
			if strings.HasSuffix(word, "@e3") {
				fetched[word] = true
			}
		}
	}
	if asked != startOverLimit || len(fetched) != logs {
		t.Errorf("%d logs asked the bucket, want %d; %d are fetched, want %d:\n%s", asked, startOverLimit, len(fetched), logs, strings.Join(trace, "\n"))
	}
}
