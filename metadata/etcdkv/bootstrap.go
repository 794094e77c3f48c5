package etcdkv

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"

	"github.com/varvelog/varve/internal/base"
)

// The errors of a start that will not succeed by waiting.
var (
	// ErrLocked says that another process runs a member on the same data directory.
	ErrLocked = errors.New("the data directory is in use by another process")
	// ErrWrongCluster says that the voters belong to different clusters.
	ErrWrongCluster = errors.New("the voters do not belong to one cluster")
	// ErrNodeIDInUse says that another node runs under this node's id or at its address.
	ErrNodeIDInUse = errors.New("the node id or its address is in use")
	// ErrVoters says that the list of voters contradicts the cluster's membership.
	ErrVoters = errors.New("the list of voters contradicts the cluster")
	// ErrRemoved says that this node's member was removed from the cluster.
	ErrRemoved = errors.New("this voter was removed from the cluster")
)

// startMode is how a voter without data goes on.
type startMode uint8

const (
	keepWaiting startMode = iota
	startNew              // bootstrap, or take part in a bootstrap
	startJoin             // ask the running cluster to be let in
)

// chooseStart decides how a voter without data starts, from the answers of all other voters. ownID is the id of the cluster
// that its own list would bootstrap.
//
// A new cluster needs an answer from every voter. etcd itself is content with silence; but then two voters that lost
// their disks while the third is down, or two new ones beside a first that is just restarting, would found a second, empty
// cluster under the same ids.
func chooseStart(self base.BrokerID, ownID types.ID, answers []answer) (startMode, error) {
	var runningID types.ID
	var running1 Voter
	fresh, published := 0, false
	for _, a := range answers {
		switch a.state {
		case waiting:
			if a.clusterID != ownID {
				return 0, fmt.Errorf("%w: voter %d waits at %s for its first start with another list of voters, cluster token or TLS setting: give all voters the same",
					ErrWrongCluster, a.waiter, a.from.PeerAddr)
			}
			fresh++
		case running:
			if runningID != 0 && a.clusterID != runningID {
				return 0, mismatch(running1, runningID, a)
			}
			runningID, running1 = a.clusterID, a.from
			published = published || len(clientURLs([]answer{a})) > 0
			if a.clusterID == ownID && neverStarted(self, a.members) {
				fresh++
			}
		}
	}
	switch {
	case fresh == len(answers):
		return startNew, nil
	case published:
		return startJoin, nil
	default:
		return keepWaiting, nil
	}
}

func mismatch(v Voter, id types.ID, a answer) error {
	return fmt.Errorf("%w: voter %d@%s is of cluster %s, voter %d@%s of cluster %s: correct the list of voters, or clear the etcd directory of the one that is not wanted",
		ErrWrongCluster, v.ID, v.PeerAddr, id, a.from.ID, a.from.PeerAddr, a.clusterID)
}

// neverStarted tells whether a member is listed and has not yet announced its client URLs, as it does with its first leader.
func neverStarted(self base.BrokerID, members []membership.Member) bool {
	return slices.ContainsFunc(members, func(m membership.Member) bool {
		return m.Name == memberName(self) && len(m.ClientURLs) == 0
	})
}

// admit decides what must go before a voter without data is added: the members that stand for its lost disk. members is a
// linearizable list.
func admit(self Voter, selfURL string, voters []Voter, members []*pb.Member) (remove []*pb.Member, err error) {
	for _, m := range members {
		id, named := brokerOf(m.Name)
		here := slices.Contains(m.PeerURLs, selfURL)
		_, listed := voterOf(voters, id)
		switch {
		case named && id == self.ID, here && m.Name == "":
			remove = append(remove, m)
		case here:
			return nil, fmt.Errorf("%w: member %s is registered at this node's address %s: remove it first (varve cluster remove-voter), or use its node id",
				ErrNodeIDInUse, m.Name, selfURL)
		case m.Name == "" && slices.ContainsFunc(voters, func(v Voter) bool { return hasAddr(m.PeerURLs, v.PeerAddr) }):
			// Another voter of the list that is about to join.
		case m.Name == "":
			return nil, fmt.Errorf("%w: a member that has never started is registered at %s, which is not in the list %s: take it back (varve cluster remove-voter HOST:PORT), or correct the list",
				ErrVoters, strings.Join(m.PeerURLs, ","), listVoters(voters))
		case !named || !listed:
			return nil, fmt.Errorf("%w: member %q at %s is in the cluster but not in the list %s: remove it first (varve cluster remove-voter), or correct the list",
				ErrVoters, m.Name, strings.Join(m.PeerURLs, ","), listVoters(voters))
		}
	}
	return remove, nil
}

func hasAddr(urls []string, addr string) bool {
	return slices.ContainsFunc(urls, func(u string) bool { return strings.HasSuffix(u, "://"+addr) })
}

// checkOthers looks for a reason why a member with data does not become ready: its peers are another cluster's.
func checkOthers(id types.ID, answers []answer) error {
	for _, a := range answers {
		if a.state != running {
			continue
		}
		if a.clusterID != id {
			return fmt.Errorf("%w: voter %d@%s is of cluster %s, the data here of cluster %s: correct the list of voters, or clear the etcd directory of the one that is not wanted",
				ErrWrongCluster, a.from.ID, a.from.PeerAddr, a.clusterID, id)
		}
	}
	return nil
}

// removedBy tells whether a running member of the same cluster no longer lists this one.
func removedBy(id, memberID types.ID, answers []answer) bool {
	return slices.ContainsFunc(answers, func(a answer) bool {
		return a.state == running && a.clusterID == id &&
			!slices.ContainsFunc(a.members, func(m membership.Member) bool { return m.ID == memberID })
	})
}
