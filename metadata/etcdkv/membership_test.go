package etcdkv

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	grpc "google.golang.org/grpc/status"

	"github.com/varvelog/varve/internal/base"
)

func TestGrowAndShrink(t *testing.T) {
	c := newTrio(t, 1)
	all := c.options(1)
	all.Voters = nil // a broker that has run alone
	all.PeerAddr, all.ClientAddr = "127.0.0.1:0", "127.0.0.1:0"
	m, err := c.open(all)
	if err != nil {
		t.Fatal(err)
	}
	c.put(m.KV(), "/k", "v")
	stop(t, m)
	c.addNode()
	c.addNode()
	c.start(1, 2, 3)
	for id := range base.BrokerID(3) {
		c.want(c.members[id+1].KV(), "/k", "v")
	}

	// One that is added by mistake is taken back by its address, over any member; one that runs is not.
	wrong := Voter{ID: 4, PeerAddr: freeAddr(t)}
	if err := c.members[1].AddVoter(c.context(), wrong); err != nil {
		t.Fatal(err)
	}
	if err := c.members[2].RemoveUnstarted(c.context(), c.voters[2].PeerAddr); !errors.Is(err, ErrVoters) {
		t.Errorf("a voter that runs: %v", err)
	}
	if err := c.members[2].RemoveUnstarted(c.context(), wrong.PeerAddr); err != nil {
		t.Fatal(err)
	}
	if err := c.members[2].RemoveUnstarted(c.context(), wrong.PeerAddr); !errors.Is(err, ErrVoters) {
		t.Errorf("one that is gone: %v", err)
	}

	if err := c.members[1].MoveLeader(c.context(), 3); err != nil {
		t.Fatal(err)
	}
	if err := c.members[1].RemoveVoter(c.context(), 3); err != nil {
		t.Fatal(err)
	}
	<-c.members[3].Stopped()
	c.put(c.members[3].KV(), "/k", "w") // over the others
	c.want(c.members[1].KV(), "/k", "w")
	c.stop(3)
	if m, err := c.open(c.options(3)); !errors.Is(err, ErrRemoved) {
		t.Errorf("a removed voter: %v %v", m, err)
	}
	infos, err := c.members[2].Members(c.context())
	if err != nil || len(infos) != 2 || infos[0].Leader == infos[1].Leader {
		t.Errorf("members: %+v (%v)", infos, err)
	}
}

// leaderAndLost starts all three voters and crashes one that does not lead.
func (c *trio) leaderAndLost() (leader, lost base.BrokerID) {
	c.start(1, 2, 3)
	leader = c.leader()
	lost = leader%3 + 1
	c.crash(lost)
	return leader, lost
}

// The leader's answer to a transfer whose deadline passes is known, whoever's clock was first: here the leader is told of a shorter
// deadline than the client's own.
func TestTransferThatTheLeaderGivesUp(t *testing.T) {
	c := newTrio(t, 3)
	from, to := c.leaderAndLost()
	infos, err := c.members[from].Members(c.context())
	if err != nil {
		t.Fatal(err)
	}
	early, cancel := context.WithTimeout(c.context(), 100*time.Millisecond)
	defer cancel()
	err = c.members[from].etcd.Server.MoveLeader(early, infos[from-1].MemberID, infos[to-1].MemberID)
	if served := grpc.Error(codes.Unknown, err.Error()); !tookTooLong(served) { // as etcd's gRPC server sends what it has no code for
		t.Errorf("etcd says: %v", err)
	}
}

// A transfer that raft has given up is noticed, and asked for again.
func TestTransferToOneThatIsAway(t *testing.T) {
	c := newTrio(t, 3)
	from, to := c.leaderAndLost()
	ctx := c.context()
	if err := c.members[from].transfer(ctx, to); !errors.Is(err, errRetry) || ctx.Err() != nil {
		t.Fatalf("to a member that is away: %v", err)
	}
	c.start(to)
	if err := c.members[from].MoveLeader(c.context(), to); err != nil {
		t.Fatal(err)
	}
	if now := c.leader(); now != to {
		t.Errorf("broker %d leads, want %d", now, to)
	}
}

func TestReplaceVoter(t *testing.T) {
	c := newTrio(t, 3)
	c.start(1, 2, 3)
	c.put(c.members[1].KV(), "/k", "v")
	c.crash(3)
	fourth := c.addNode()
	four, _ := voterOf(c.voters, fourth)
	c.voters = without(c.voters, 3)
	if m, err := c.open(c.options(fourth)); !errors.Is(err, ErrVoters) {
		t.Fatalf("a voter whose list lacks an existing one: %v %v", m, err)
	}
	if err := c.members[1].ReplaceVoter(c.context(), 3, four); err != nil {
		t.Fatal(err)
	}
	c.start(fourth)
	c.want(c.members[fourth].KV(), "/k", "v")
	infos, err := c.members[1].Members(c.context())
	if err != nil || len(infos) != 3 || infos[2].ID != fourth || infos[2].Learner {
		t.Errorf("members: %+v (%v)", infos, err)
	}
}
