package etcdkv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	grpc "google.golang.org/grpc/status"

	"github.com/varvelog/varve/internal/base"
)

// statusTimeout is how long one member may take to tell how it is.
const statusTimeout = time.Second

// MemberInfo describes one member of the cluster. ID is -1 for a member that has never started.
type MemberInfo struct {
	ID         base.BrokerID
	Name       string // etcd's, e.g. varve-1
	MemberID   uint64 // etcd's; a broker has another one after its disk was lost
	PeerURLs   []string
	ClientURLs []string
	Learner    bool
	Leader     bool // raft's, as the members that answer say
	Healthy    bool // it answered and has a leader
	DBBytes    int64
	RaftIndex  uint64
	RaftTerm   uint64
	Problem    string // where it is not healthy
}

// Members lists the cluster's members, sorted by broker. It needs a majority of them.
func (m *Member) Members(ctx context.Context) ([]MemberInfo, error) {
	client, list, err := m.list(ctx)
	if err != nil {
		return nil, err
	}
	infos := make([]MemberInfo, len(list))
	leaders := make([]uint64, len(list))
	var wg sync.WaitGroup
	for i, member := range list {
		wg.Go(func() { infos[i], leaders[i] = status(ctx, client, member) })
	}
	wg.Wait()
	// One that is cut off may name a leader of an earlier term: the latest term counts.
	latest := slices.MaxFunc(infos, func(a, b MemberInfo) int { return cmp.Compare(a.RaftTerm, b.RaftTerm) }).RaftTerm
	for i := range infos {
		for j, leader := range leaders {
			infos[i].Leader = infos[i].Leader || leader == infos[i].MemberID && infos[j].RaftTerm == latest
		}
	}
	slices.SortFunc(infos, func(a, b MemberInfo) int { return cmp.Compare(a.ID, b.ID) })
	return infos, nil
}

func status(ctx context.Context, client *clientv3.Client, member *pb.Member) (info MemberInfo, leader uint64) {
	info = MemberInfo{
		ID: -1, Name: member.Name, MemberID: member.ID, PeerURLs: member.PeerURLs, ClientURLs: member.ClientURLs, Learner: member.IsLearner,
	}
	if id, ok := brokerOf(member.Name); ok {
		info.ID = id
	}
	if len(member.ClientURLs) == 0 {
		info.Problem = "it has not started"
		return info, 0
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	resp, err := client.Status(ctx, member.ClientURLs[0])
	if err != nil {
		info.Problem = err.Error()
		return info, 0
	}
	info.DBBytes, info.RaftIndex, info.RaftTerm = resp.DbSize, resp.RaftIndex, resp.RaftTerm
	if info.Healthy = resp.Leader != 0 && len(resp.Errors) == 0; !info.Healthy {
		info.Problem = fmt.Sprint(resp.Errors)
	}
	return info, resp.Leader
}

// AddVoter lets a broker vote: it registers the broker's address as a learner, which it becomes at its next start with a
// list of voters that names it, and is promoted then. A broker whose list names it joins without this call as well: the call
// checks beforehand. It waits while the cluster refuses, as it does for some seconds after a change of members, until ctx ends.
func (m *Member) AddVoter(ctx context.Context, v Voter) error {
	if err := validateVoters([]Voter{v}); err != nil {
		return err
	}
	url := m.opts.peerURL(v)
	return m.change(ctx, func(ctx context.Context, client *clientv3.Client, members []*pb.Member) error {
		for _, member := range members {
			id, named := brokerOf(member.Name)
			switch {
			case named && id == v.ID:
				return fmt.Errorf("%w: %d is a voter already", ErrNodeIDInUse, id)
			case slices.Contains(member.PeerURLs, url) && named:
				return fmt.Errorf("%w: voter %d is at %s already", ErrNodeIDInUse, id, v.PeerAddr)
			case slices.Contains(member.PeerURLs, url):
				return nil // registered by an earlier call
			}
		}
		_, err := client.MemberAddAsLearner(ctx, []string{url})
		return retryable(err)
	})
}

// RemoveVoter takes a broker's vote away, whether it runs or not. One that runs stops serving etcd (see Stopped); it must
// not be started again before its list of voters, and that of the others, no longer names it. The last voter stays. etcd
// refuses a removal that would leave no majority of healthy members; RemoveVoter tries until ctx ends.
func (m *Member) RemoveVoter(ctx context.Context, id base.BrokerID) error {
	if err := m.stepAside(ctx, id); err != nil {
		return err
	}
	return m.change(ctx, func(ctx context.Context, client *clientv3.Client, members []*pb.Member) error {
		i := slices.IndexFunc(members, func(member *pb.Member) bool { return member.Name == memberName(id) })
		switch {
		case i < 0:
			return nil // by an earlier attempt; stepAside found it
		case !members[i].IsLearner && countVoting(members) == 1:
			return fmt.Errorf("%w: broker %d is the only voter", ErrVoters, id)
		}
		_, err := client.MemberRemove(ctx, members[i].ID)
		return retryable(err)
	})
}

// RemoveUnstarted undoes AddVoter for a member that has never started, which has no id yet: it is found by the address that the
// others would reach it at. One that has started is refused: its id says who ends.
func (m *Member) RemoveUnstarted(ctx context.Context, peerAddr string) error {
	found := false
	return m.change(ctx, func(ctx context.Context, client *clientv3.Client, members []*pb.Member) error {
		i := slices.IndexFunc(members, func(member *pb.Member) bool { return hasAddr(member.PeerURLs, peerAddr) })
		switch {
		case i < 0 && found:
			return nil // by an earlier attempt
		case i < 0:
			return fmt.Errorf("%w: no voter is registered at %s", ErrVoters, peerAddr)
		case members[i].Name != "":
			return fmt.Errorf("%w: %s at %s has started: name its id to remove it", ErrVoters, members[i].Name, peerAddr)
		}
		found = true
		_, err := client.MemberRemove(ctx, members[i].ID)
		return retryable(err)
	})
}

func countVoting(members []*pb.Member) (n int) {
	for _, member := range members {
		if !member.IsLearner {
			n++
		}
	}
	return n
}

// stepAside moves leadership away from a member that is to be removed: without it the others would have to elect.
func (m *Member) stepAside(ctx context.Context, id base.BrokerID) error {
	infos, err := m.Members(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(infos, func(info MemberInfo) bool { return info.ID == id })
	if i < 0 {
		return fmt.Errorf("%w: broker %d is no voter", ErrVoters, id)
	}
	if !infos[i].Leader {
		return nil
	}
	for _, other := range infos {
		if other.ID != id && other.Healthy && !other.Learner {
			return m.MoveLeader(ctx, other.ID)
		}
	}
	return nil // the removal says why it cannot be
}

// ReplaceVoter removes a voter, dead or alive, and registers another. The dead one goes first: a fourth member beside two
// live ones would raise the majority to three.
func (m *Member) ReplaceVoter(ctx context.Context, old base.BrokerID, v Voter) error {
	if err := validateVoters([]Voter{v}); err != nil {
		return err
	}
	if err := m.RemoveVoter(ctx, old); err != nil {
		return err
	}
	return m.AddVoter(ctx, v)
}

// transferElections is how many election timeouts a transfer of leadership may take.
const transferElections = 4

// MoveLeader makes a voter raft's leader. Raft gives a transfer up after an election timeout (a message to a member that has just
// come may be lost), of which etcd does not hear: so it is asked for again until ctx ends.
func (m *Member) MoveLeader(ctx context.Context, to base.BrokerID) error {
	for {
		err := m.transfer(ctx, to)
		if !errors.Is(err, errRetry) || ctx.Err() != nil {
			return err
		}
	}
}

func (m *Member) transfer(ctx context.Context, to base.BrokerID) error {
	infos, err := m.Members(ctx)
	if err != nil {
		return err
	}
	target := slices.IndexFunc(infos, func(info MemberInfo) bool { return info.ID == to && !info.Learner })
	leader := slices.IndexFunc(infos, func(info MemberInfo) bool { return info.Leader })
	switch {
	case target < 0:
		return fmt.Errorf("%w: broker %d is no voter", ErrVoters, to)
	case leader < 0:
		return errors.New("etcd: no leader at the moment")
	case leader == target:
		return nil
	}
	client, err := m.dial(infos[leader].ClientURLs, 0) // only the leader takes this request
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // nothing is under way
	attempt, cancel := context.WithTimeout(ctx, max(transferElections*m.opts.electionTimeout(), requestTimeout))
	defer cancel()
	if _, err = client.MoveLeader(attempt, infos[target].MemberID); err == nil {
		return nil
	}
	late := attempt.Err() != nil || tookTooLong(err)
	err = fmt.Errorf("etcd: move leadership to broker %d: %w", to, err)
	if late {
		return retryable(err)
	}
	return err
}

// tookTooLong reports whether a leader answered that a transfer did not come about within the request's deadline. Its clock runs
// beside the client's, so the answer may come before the client itself has given up. Clients have no name for this error.
func tookTooLong(err error) bool {
	return grpc.Convert(err).Message() == etcderrors.ErrTimeoutLeaderTransfer.Error()
}

// anyClient is one that reaches the cluster over TCP.
func (m *Member) anyClient() *clientv3.Client {
	if m.others != nil {
		return m.others
	}
	return m.watcher
}

func (m *Member) list(ctx context.Context) (*clientv3.Client, []*pb.Member, error) {
	client := m.anyClient()
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), requestTimeout)
	defer cancel()
	resp, err := client.MemberList(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("etcd: list the members: %w", err)
	}
	return client, resp.Members, nil
}

// change lists the members and does something about them, again while the error is errRetry.
func (m *Member) change(ctx context.Context, do func(context.Context, *clientv3.Client, []*pb.Member) error) error {
	for {
		client, members, err := m.list(ctx)
		if err != nil {
			err = retryable(err)
		} else {
			request, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), requestTimeout)
			err = do(request, client, members)
			cancel()
		}
		if !errors.Is(err, errRetry) {
			return err
		}
		if perr := m.pause(ctx, pollEvery); perr != nil {
			return fmt.Errorf("etcd: change the members: %w", errors.Join(perr, err))
		}
	}
}

func retryable(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errRetry, err)
}
