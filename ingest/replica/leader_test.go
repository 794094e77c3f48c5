package replica

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
)

var start = time.Unix(1000, 0)

// newTestLeader is broker 1 of three, all unfenced with registration epochs 11, 12, 13.
func newTestLeader(end base.Offset, minInSync int, isr ...base.BrokerID) *Leader {
	return NewLeader(LeaderStart{
		ID: 1, State: State{Rev: 5, Epoch: 7, Replicas: []base.BrokerID{1, 2, 3}, ISR: isr, MinInSync: minInSync},
		Live: Live{1: {Epoch: 11}, 2: {Epoch: 12}, 3: {Epoch: 13}}, LagMax: 30 * time.Second, End: end, Synced: end,
	}, start)
}

func fetched(follower base.BrokerID, offset, leaderEnd base.Offset) Fetched {
	return Fetched{Follower: follower, BrokerEpoch: int64(follower) + 10, Epoch: 7, Offset: offset, LeaderEnd: leaderEnd}
}

func mustFetch(t *testing.T, l *Leader, f Fetched, at time.Duration) Effects {
	t.Helper()
	e, err := l.Fetched(f, start.Add(at))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// A follower that always reaches the end of the fetch before is caught up, though never at the end (Replica.updateFetchStateOrThrow).
func TestFollowerUnderLoadStaysInSync(t *testing.T) {
	l := newTestLeader(0, 1, 1, 2)
	for i := range 20 {
		end := base.Offset(i+1) * 100
		l.Appended(end, start.Add(time.Duration(i)*10*time.Second))
		mustFetch(t, l, fetched(2, end-100, end), time.Duration(i)*10*time.Second)
		if e := l.Tick(start.Add(time.Duration(i) * 10 * time.Second)); e.Proposal != nil {
			t.Fatalf("fetch %d: proposed %v", i, e.Proposal.ISR)
		}
	}
	// One that falls ever further behind is not.
	for i := 20; i < 40; i++ {
		end := base.Offset(i+1) * 100
		l.Appended(end, start.Add(time.Duration(i)*10*time.Second))
		mustFetch(t, l, fetched(2, 1900+base.Offset(i), end), time.Duration(i)*10*time.Second)
		if e := l.Tick(start.Add(time.Duration(i) * 10 * time.Second)); e.Proposal != nil {
			if !slices.Equal(e.Proposal.ISR, []base.BrokerID{1}) {
				t.Fatalf("proposed %v", e.Proposal.ISR)
			}
			return
		}
	}
	t.Fatal("a follower that lags stays in the ISR")
}

func TestFetchesThatDoNotCount(t *testing.T) {
	f := func(change func(*Fetched), code error) {
		t.Helper()
		l := newTestLeader(100, 1, 1, 2)
		mustFetch(t, l, fetched(2, 40, 100), 0)
		bad := fetched(2, 100, 100)
		change(&bad)
		if e, err := l.Fetched(bad, start); !errors.Is(err, code) || e.HighWatermark != 40 {
			t.Errorf("%+v: %v, high watermark %d, want %v", bad, err, e.HighWatermark, code)
		}
	}
	f(func(b *Fetched) { b.Epoch = 6 }, kerr.FencedLeaderEpoch)
	f(func(b *Fetched) { b.Epoch = 8 }, kerr.UnknownLeaderEpoch)
	f(func(b *Fetched) { b.Follower = 4 }, kerr.NotLeaderForPartition)
	f(func(b *Fetched) { b.Offset = 101 }, kerr.OffsetOutOfRange)
	// Of an incarnation that may have lost its disk since: its successor would count with what it does not have.
	f(func(b *Fetched) { b.BrokerEpoch = 9 }, kerr.StaleBrokerEpoch)
}

func TestStaleIncarnationWithoutImage(t *testing.T) {
	l := newTestLeader(100, 1, 1, 2)
	l.SetLive(Live{1: {Epoch: 11}}) // 2 is fenced: only its own fetches tell its epoch
	newer := fetched(2, 40, 100)
	newer.BrokerEpoch = 20
	mustFetch(t, l, newer, 0)
	if _, err := l.Fetched(fetched(2, 100, 100), start); !errors.Is(err, kerr.StaleBrokerEpoch) || l.HighWatermark() != 40 {
		t.Errorf("%v, high watermark %d", err, l.HighWatermark())
	}
}

func TestExpansion(t *testing.T) {
	f := func(what string, want bool, prepare func(l *Leader), offset base.Offset) {
		t.Helper()
		l := newTestLeader(100, 1, 1)
		l.Start()
		prepare(l)
		e := mustFetch(t, l, fetched(3, offset, l.end), 0)
		if got := e.Proposal != nil; got != want {
			t.Errorf("%s: proposed %v", what, e.Proposal)
		}
		if want && (!slices.Equal(e.Proposal.ISR, []base.BrokerID{1, 3}) || e.Proposal.Added[0] != (Member{3, 13}) || e.Proposal.Rev != 5) {
			t.Errorf("%s: %+v", what, e.Proposal)
		}
	}
	nothing := func(*Leader) {}
	f("at the end", true, nothing, 100)
	f("below the high watermark", false, nothing, 99)
	f("fenced", false, func(l *Leader) { l.SetLive(Live{1: {Epoch: 11}}) }, 100)
	f("full", false, func(l *Leader) { l.SetLive(Live{1: {Epoch: 11}, 3: {Epoch: 13, Full: true}}) }, 100)
	f("registered anew, unknown here", false, func(l *Leader) { l.SetLive(Live{1: {Epoch: 11}, 3: {Epoch: 12}}) }, 100)
	f("one in flight", false, func(l *Leader) { mustFetch(t, l, fetched(2, 100, 100), 0) }, 100)
	f("refused before", false, func(l *Leader) {
		e := mustFetch(t, l, fetched(3, 100, 100), 0)
		l.Refused(e.Proposal.Rev, l.state)
	}, 100)
}

// Who has caught up is proposed by whatever makes it possible: a quiet partition's followers do not fetch it again.
func TestExpansionWithoutFetch(t *testing.T) {
	f := func(what string, live Live, then func(l *Leader) Effects) {
		t.Helper()
		l := newTestLeader(100, 1, 1)
		l.SetLive(live)
		if e := mustFetch(t, l, fetched(3, 100, 100), 0); e.Proposal != nil {
			l.Refused(e.Proposal.Rev, l.state)
		}
		if e := then(l); e.Proposal == nil || !slices.Equal(e.Proposal.ISR, []base.BrokerID{1, 3}) {
			t.Errorf("%s: proposed %v", what, e.Proposal)
		}
	}
	live := Live{1: {Epoch: 11}, 2: {Epoch: 12}, 3: {Epoch: 13}}
	f("refused, and a tick", live, func(l *Leader) Effects { return l.Tick(start) })
	f("unfenced", Live{1: {Epoch: 11}}, func(l *Leader) Effects { return l.SetLive(live) })
}

// All followers are stuck: the high watermark waits for them, and once they are out of the ISR they do not come back for it.
func TestStuckFollowersStayOut(t *testing.T) {
	l := newTestLeader(100, 2, 1, 2)
	mustFetch(t, l, fetched(2, 100, 100), 0)
	l.Appended(200, start)
	l.Synced(200)
	e := l.Tick(start.Add(time.Minute))
	if e.Proposal == nil || !slices.Equal(e.Proposal.ISR, []base.BrokerID{1}) {
		t.Fatalf("proposed %v", e.Proposal)
	}
	s := l.state
	s.Rev, s.ISR = s.Rev+1, e.Proposal.ISR
	if e := l.Update(s); e.Proposal != nil {
		t.Errorf("proposed %v", e.Proposal.ISR)
	}
	if e := l.Tick(start.Add(2 * time.Minute)); e.Proposal != nil || e.HighWatermark != 100 {
		t.Errorf("proposed %v, high watermark %d", e.Proposal, e.HighWatermark)
	}
}

// A quiet partition's followers count as caught up until something is appended that they do not fetch.
func TestQuietFollowerStaysInSync(t *testing.T) {
	l := newTestLeader(100, 1, 1, 2)
	mustFetch(t, l, fetched(2, 100, 100), 0)
	l.Appended(200, start.Add(time.Hour))
	if e := l.Tick(start.Add(time.Hour + 29*time.Second)); e.Proposal != nil {
		t.Errorf("proposed %v", e.Proposal.ISR)
	}
	if e := l.Tick(start.Add(time.Hour + 31*time.Second)); e.Proposal == nil {
		t.Error("a follower that does not fetch stays in the ISR")
	}
}

func TestHighWatermarkBelowEpochStartAdmitsNobody(t *testing.T) {
	l := newTestLeader(100, 1, 1, 2) // its high watermark is 0: 2 has not fetched yet
	if e := mustFetch(t, l, fetched(3, 50, 100), 0); e.Proposal != nil {
		t.Errorf("proposed %v: what the leader before acknowledged may reach to 100", e.Proposal.ISR)
	}
	if _, ok := l.Readable(); ok {
		t.Error("readable below the epoch start")
	}
}

// A proposal whose write was not answered counts until the key has moved, whatever else is answered.
func TestUnknownOutcome(t *testing.T) {
	l := newTestLeader(100, 1, 1)
	l.Start()
	p := mustFetch(t, l, fetched(3, 100, 100), 0).Proposal
	withdrawal := l.Unknown(p.Rev).Proposal
	if withdrawal == nil || !slices.Equal(withdrawal.ISR, []base.BrokerID{1}) || withdrawal.Rev != p.Rev || withdrawal.Added != nil {
		t.Fatalf("withdrawal %+v", withdrawal)
	}
	l.Refused(p.Rev, l.state)
	l.SetLive(Live{1: {Epoch: 11}}) // fenced: nothing but the proposal makes it count
	l.Appended(200, start)
	if e := l.Synced(200); e.HighWatermark != 100 {
		t.Errorf("high watermark %d: broker 3 may be in the ISR with 100", e.HighWatermark)
	}
	s := l.state
	s.Rev++
	if e := l.Update(s); l.Pending() != nil {
		t.Errorf("still pending at %+v", e)
	}
	if e := l.Synced(200); e.HighWatermark != 200 {
		t.Errorf("high watermark %d after the withdrawal", e.HighWatermark)
	}
}

func TestLateRefusalOfAnEarlierProposal(t *testing.T) {
	l := newTestLeader(100, 1, 1)
	l.Start()
	s := l.state
	s.Rev = 6
	l.Update(s)
	mustFetch(t, l, fetched(3, 100, 100), 0)
	if l.Refused(5, s); l.Pending() == nil {
		t.Error("the refusal of revision 5 settled the proposal of revision 6")
	}
}

func TestOlderStateIsIgnored(t *testing.T) {
	l := newTestLeader(100, 1, 1, 2)
	older := l.state
	older.Rev, older.ISR = 4, []base.BrokerID{1}
	if e := l.Update(older); e.Advanced || !slices.Equal(l.state.ISR, []base.BrokerID{1, 2}) {
		t.Errorf("ISR %v of an older image, high watermark %d", l.state.ISR, e.HighWatermark)
	}
}

func TestAcks(t *testing.T) {
	l := newTestLeader(0, 2, 1, 2)
	l.Appended(10, start)
	l.Await(1, 5, false)
	l.Await(2, 10, false)
	l.Await(3, 5, false) // a duplicate of the first
	l.Synced(10)
	e := mustFetch(t, l, fetched(2, 7, 10), 0)
	if want := []Done{{1, nil}, {3, nil}}; !slices.Equal(e.Done, want) {
		t.Errorf("done %v, want %v", e.Done, want)
	}
	s := l.state
	s.Rev, s.ISR = 6, []base.BrokerID{1}
	e = l.Update(s)
	if len(e.Done) != 1 || e.Done[0].Token != 2 || !errors.Is(e.Done[0].Err, kerr.NotEnoughReplicasAfterAppend) || e.HighWatermark != 7 {
		t.Errorf("%+v", e)
	}
	if err := l.CanAppend(true); !errors.Is(err, kerr.NotEnoughReplicas) {
		t.Error(err)
	}
	if err := l.CanAppend(false); err != nil {
		t.Error(err)
	}
	s.Rev, s.MinInSync = 7, 1
	l.Tick(start.Add(time.Minute)) // until then 2 counts as caught up, and is waited for to join again
	if e = l.Update(s); e.HighWatermark != 10 {
		t.Errorf("high watermark %d alone under min.insync.replicas=1", e.HighWatermark)
	}
}

// min.insync.replicas was lowered while a follower was away: until the controller has emptied the ELR it may still elect that one,
// which has nothing of what would be committed meanwhile.
func TestNothingIsCommittedBesideAnELR(t *testing.T) {
	l := newTestLeader(100, 2, 1)
	s := l.state
	s.Rev, s.ELR = s.Rev+1, []base.BrokerID{2}
	l.Update(s)
	s.MinInSync = 1
	l.Update(s)
	l.Appended(200, start)
	l.Synced(200)
	if e := l.Await(1, 200, false); e.HighWatermark != 0 || len(e.Done) != 0 {
		t.Errorf("high watermark %d, answers %v, though broker 2 may be elected", e.HighWatermark, e.Done)
	}
	s.Rev, s.ELR = s.Rev+1, nil
	if e := l.Update(s); e.HighWatermark != 200 || len(e.Done) != 1 || e.Done[0].Err != nil {
		t.Errorf("high watermark %d, answers %v", e.HighWatermark, e.Done)
	}
}

// The controller takes a broker that shuts down out of the ISR; nothing but that says so, for it is unfenced and fetches. It is not
// proposed again at once; where it stays, or was only fenced for a moment, it comes back.
func TestWhoLeavesIsNotProposedAtOnce(t *testing.T) {
	f := func(what string, want bool, then func(l *Leader) Effects) {
		t.Helper()
		l := newTestLeader(100, 1, 1, 2, 3)
		mustFetch(t, l, fetched(2, 100, 100), 0)
		mustFetch(t, l, fetched(3, 100, 100), 0)
		if e := then(l); (e.Proposal != nil) != want {
			t.Errorf("%s: proposed %v", what, e.Proposal)
		}
	}
	without3 := func(l *Leader) Effects {
		s := l.state
		s.Rev, s.ISR = s.Rev+1, []base.BrokerID{1, 2}
		return l.Update(s)
	}
	f("leaves", false, without3)
	f("leaves, and the log goes on", false, func(l *Leader) Effects {
		without3(l)
		l.Appended(200, start)
		e := l.Synced(200)
		mustFetch(t, l, fetched(2, 200, 200), 0)
		if l.HighWatermark() != 200 {
			t.Errorf("high watermark %d waits for who leaves", l.HighWatermark())
		}
		return e
	})
	f("lagged, and catches up", true, func(l *Leader) Effects {
		l.Appended(200, start)
		l.Synced(200)
		mustFetch(t, l, fetched(2, 200, 200), time.Minute)
		if e := l.Tick(start.Add(time.Minute)); e.Proposal == nil || !slices.Equal(e.Proposal.ISR, []base.BrokerID{1, 2}) {
			t.Errorf("proposed %v", e.Proposal)
		}
		without3(l)
		return mustFetch(t, l, fetched(3, 200, 200), time.Minute)
	})
	f("stays", true, func(l *Leader) Effects { without3(l); return l.Tick(start) })
	f("was fenced", true, func(l *Leader) Effects {
		l.SetLive(Live{1: {Epoch: 11}, 2: {Epoch: 12}})
		without3(l)
		return l.SetLive(Live{1: {Epoch: 11}, 2: {Epoch: 12}, 3: {Epoch: 13}})
	})
	f("registers anew", true, func(l *Leader) Effects {
		without3(l)
		l.SetLive(Live{1: {Epoch: 11}, 2: {Epoch: 12}, 3: {Epoch: 20}})
		again := fetched(3, 100, 100)
		again.BrokerEpoch = 20
		return mustFetch(t, l, again, 0)
	})
}

// A quota may hold back only followers that nobody waits for.
func TestAwaitedFrom(t *testing.T) {
	l := newTestLeader(100, 1, 1, 2)
	f := func(id base.BrokerID, want bool) {
		t.Helper()
		if got := l.AwaitedFrom(id); got != want {
			t.Errorf("broker %d is awaited: %v, want %v", id, got, want)
		}
	}
	f(2, true)
	f(3, false) // has not fetched
	f(4, false) // is no replica
	mustFetch(t, l, fetched(3, 50, 100), 0)
	f(3, false)
	if e := mustFetch(t, l, fetched(3, 100, 100), 0); e.Proposal == nil {
		t.Fatal("a follower that has caught up is not proposed")
	}
	l.Appended(200, start.Add(time.Minute))
	l.Tick(start.Add(time.Hour))
	f(3, true) // on its way into the ISR, whatever it lacks: the high watermark waits
}

func TestLowWatermark(t *testing.T) {
	l := newTestLeader(100, 1, 1, 2)
	f := func(want base.Offset) {
		t.Helper()
		if got := l.LowWatermark(40); got != want {
			t.Errorf("low watermark %d, want %d", got, want)
		}
	}
	at := func(id base.BrokerID, logStart base.Offset) Fetched {
		in := fetched(id, 100, 100)
		in.LogStart = logStart
		return in
	}
	f(-1) // nobody has fetched
	mustFetch(t, l, at(2, 10), 0)
	f(-1)
	mustFetch(t, l, at(3, 30), 0)
	f(10)
	mustFetch(t, l, at(2, 60), 0)
	f(30)
	l.SetLive(Live{1: {Epoch: 11}, 2: {Epoch: 12}})
	f(40) // broker 3 is fenced: nobody waits for it
	l.SetLive(Live{1: {Epoch: 11}, 2: {Epoch: 12}, 3: {Epoch: 99}})
	f(-1) // it is back, and may have lost what it said
}
