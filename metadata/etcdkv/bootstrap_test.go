package etcdkv

import (
	"errors"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"

	"github.com/varvelog/varve/internal/base"
)

const ownID, otherID = types.ID(7), types.ID(8)

// seen builds the answer of a voter: "silent", "waiting", or "running" with its members, of which "+" have announced their
// client URLs.
func seen(id base.BrokerID, state voterState, cluster types.ID, members ...string) answer {
	a := answer{from: Voter{ID: id, PeerAddr: "h:1"}, state: state, waiter: id, clusterID: cluster}
	for _, name := range members {
		var m membership.Member
		plain, started := strings.CutSuffix(name, "+")
		if m.Name = plain; started {
			m.ClientURLs = []string{"http://" + plain}
		}
		a.members = append(a.members, m)
	}
	return a
}

func TestChooseStart(t *testing.T) {
	f := func(what string, want startMode, wantErr error, answers ...answer) {
		t.Helper()
		got, err := chooseStart(1, ownID, answers)
		if got != want || !errors.Is(err, wantErr) {
			t.Errorf("%s: %v %v, want %v %v", what, got, err, want, wantErr)
		}
	}
	f("all are new", startNew, nil, seen(2, waiting, ownID), seen(3, waiting, ownID))
	f("one is missing", keepWaiting, nil, seen(2, waiting, ownID), seen(3, silent, 0))
	f("nobody answers", keepWaiting, nil, seen(2, silent, 0), seen(3, silent, 0))
	f("the others are ahead", startNew, nil,
		seen(2, running, ownID, "varve-1", "varve-2", "varve-3"), seen(3, waiting, ownID))
	f("the others have a leader", startNew, nil,
		seen(2, running, ownID, "varve-1", "varve-2+", "varve-3+"), seen(3, running, ownID, "varve-1", "varve-2+", "varve-3+"))
	f("one is ahead, one has just gone", keepWaiting, nil, seen(2, running, ownID, "varve-1", "varve-2", "varve-3"), seen(3, silent, 0))
	f("never started, and one is away", startJoin, nil, seen(2, running, ownID, "varve-1", "varve-2+", "varve-3+"), seen(3, silent, 0))
	f("lost disk", startJoin, nil,
		seen(2, running, ownID, "varve-1+", "varve-2+", "varve-3+"), seen(3, running, ownID, "varve-1+", "varve-2+", "varve-3+"))
	f("one is behind", startJoin, nil, // it has not heard that this voter once started
		seen(2, running, ownID, "varve-1+", "varve-2+", "varve-3+"), seen(3, running, ownID, "varve-1", "varve-2", "varve-3"))
	f("two lost disks", startJoin, nil, seen(2, waiting, ownID), seen(3, running, ownID, "varve-1+", "varve-2+", "varve-3+"))
	f("a cluster of one grows", startJoin, nil, seen(2, running, otherID, "varve-2+"), seen(3, waiting, ownID))
	f("another list", 0, ErrWrongCluster, seen(2, waiting, otherID), seen(3, silent, 0))
	f("two clusters", 0, ErrWrongCluster, seen(2, running, ownID, "varve-2+"), seen(3, running, otherID, "varve-3+"))
}

func TestAdmit(t *testing.T) {
	self, voters := Voter{1, "h1:1"}, []Voter{{1, "h1:1"}, {2, "h2:1"}, {3, "h3:1"}}
	member := func(id uint64, name, addr string) *pb.Member {
		return &pb.Member{ID: id, Name: name, PeerURLs: []string{"http://" + addr}}
	}
	f := func(what string, want []uint64, wantErr error, members ...*pb.Member) {
		t.Helper()
		remove, err := admit(self, "http://h1:1", voters, members)
		var ids []uint64
		for _, m := range remove {
			ids = append(ids, m.ID)
		}
		if len(ids) != len(want) || len(ids) > 0 && ids[0] != want[0] || !errors.Is(err, wantErr) {
			t.Errorf("%s: %v %v, want %v %v", what, ids, err, want, wantErr)
		}
	}
	two, three := member(22, "varve-2", "h2:1"), member(33, "varve-3", "h3:1")
	f("new", nil, nil, two, three)
	f("lost disk", []uint64{11}, nil, member(11, "varve-1", "h1:1"), two, three)
	f("lost disk and moved", []uint64{11}, nil, member(11, "varve-1", "elsewhere:1"), two)
	f("an earlier attempt", []uint64{11}, nil, member(11, "", "h1:1"), two, three)
	f("another joins", nil, nil, two, member(33, "", "h3:1"))
	f("its address is another's", nil, ErrNodeIDInUse, member(99, "varve-9", "h1:1"), two, three)
	f("an unknown member", nil, ErrVoters, two, member(99, "varve-9", "h9:1"))
	f("an unknown learner", nil, ErrVoters, two, member(99, "", "h9:1"))
	f("no member of ours", nil, ErrVoters, two, member(99, "default", "h9:1"))
}

func TestOptions(t *testing.T) {
	f := func(want string, opts Options) {
		t.Helper()
		opts.DataDir = "d"
		opts.EnsureDefaults()
		err := opts.Validate()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", opts, err, want)
		}
	}
	pair := []Voter{{1, "10.0.0.1:2380"}, {2, "10.0.0.2:2380"}}
	f("", Options{NodeID: 1})
	f("", Options{NodeID: 1, Voters: pair})
	f("", Options{NodeID: 1, Voters: pair[:1]})
	f("", Options{NodeID: 3, Voters: pair})
	f("", Options{NodeID: 1, Voters: pair, PeerAddr: "0.0.0.0:2380", ClientAddr: ":2379"})
	f("cannot reach", Options{NodeID: 1, Voters: pair, PeerAddr: "127.0.0.1:2380"})
	f("cannot reach", Options{NodeID: 1, Voters: pair, ClientAddr: "localhost:2379"})
	f("fixed host:port", Options{NodeID: 1, Voters: pair, ClientAddr: "10.0.0.1:0"})
	f("no host:port", Options{NodeID: 1, Voters: []Voter{{1, "10.0.0.1"}}})
	f("different ids", Options{NodeID: 1, Voters: []Voter{{1, "a:1"}, {1, "b:1"}}})
	f("different ids", Options{NodeID: 1, Voters: []Voter{{1, "a:1"}, {2, "a:1"}}})
	f("five ticks", Options{NodeID: 1, TickMs: 100, ElectionMs: 400})
}
