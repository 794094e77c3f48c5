package broker

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/httpapi"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/kafka"
	"github.com/varvelog/varve/metadata/etcdkv"
)

// electorate is what the Quorum of a real broker can do beyond Quorum's methods; etcdkv.Member satisfies it.
type electorate interface {
	Members(ctx context.Context) ([]etcdkv.MemberInfo, error)
	AddVoter(ctx context.Context, v etcdkv.Voter) error
	RemoveVoter(ctx context.Context, id base.BrokerID) error
	RemoveUnstarted(ctx context.Context, peerAddr string) error
	ReplaceVoter(ctx context.Context, old base.BrokerID, v etcdkv.Voter) error
	MoveLeader(ctx context.Context, to base.BrokerID) error
}

var errStarting = errors.New("the broker is starting or stopping")

// admin is the cluster as the HTTP side shows and changes it.
func (b *Broker) admin() httpapi.Admin {
	return httpapi.Admin{
		Cluster: b.describeCluster,
		Drain: func(ctx context.Context, id int32, drain bool) error {
			if !b.serving.Load() {
				return errStarting
			}
			err := b.meta.SetDraining(ctx, base.BrokerID(id), drain)
			if errors.Is(err, kerr.BrokerIDNotRegistered) {
				return fmt.Errorf("broker %d is not registered: %w", id, httpapi.ErrNotFound)
			}
			return err
		},
		AddVoter: func(ctx context.Context, v httpapi.VoterAddress) error {
			return b.vote(func(e electorate) error { return e.AddVoter(ctx, voterAt(v)) })
		},
		RemoveVoter: func(ctx context.Context, id int32) error {
			return b.vote(func(e electorate) error { return e.RemoveVoter(ctx, base.BrokerID(id)) })
		},
		RemoveAddress: func(ctx context.Context, address string) error {
			return b.vote(func(e electorate) error { return e.RemoveUnstarted(ctx, address) })
		},
		ReplaceVoter: func(ctx context.Context, old int32, v httpapi.VoterAddress) error {
			return b.vote(func(e electorate) error { return e.ReplaceVoter(ctx, base.BrokerID(old), voterAt(v)) })
		},
		MoveController: func(ctx context.Context, to int32) error {
			return b.vote(func(e electorate) error { return e.MoveLeader(ctx, base.BrokerID(to)) })
		},
	}
}

func voterAt(v httpapi.VoterAddress) etcdkv.Voter {
	return etcdkv.Voter{ID: base.BrokerID(v.NodeID), PeerAddr: v.Address}
}

// vote makes a change of etcd's members. What their present state does not allow is refused.
func (b *Broker) vote(change func(electorate) error) error {
	if !b.serving.Load() {
		return errStarting
	}
	e, ok := b.quorum.(electorate)
	if !ok {
		return fmt.Errorf("%w: this broker's metadata is not in etcd", httpapi.ErrRefused)
	}
	err := change(e)
	if errors.Is(err, etcdkv.ErrVoters) || errors.Is(err, etcdkv.ErrNodeIDInUse) {
		return fmt.Errorf("%w: %w", httpapi.ErrRefused, err)
	}
	return err
}

// describeCluster is GET /v1/cluster.
func (b *Broker) describeCluster(ctx context.Context) (httpapi.Cluster, error) {
	if !b.serving.Load() {
		return httpapi.Cluster{}, errStarting
	}
	img := b.meta.Image()
	out := httpapi.Cluster{ClusterID: img.ClusterID(), Controller: int32(img.Controller()), Brokers: []httpapi.Broker{}, Voters: []httpapi.Voter{}}
	for _, r := range img.AllBrokers() {
		row := httpapi.Broker{
			NodeID: int32(r.ID), Host: r.Host, Port: r.Port, Epoch: r.Epoch, Fenced: r.Fenced, NewDisk: r.Wiped, Draining: r.Draining, Full: r.Full,
		}
		if r.Rack != nil {
			row.Rack = *r.Rack
		}
		out.Brokers = append(out.Brokers, row)
	}
	e, ok := b.quorum.(electorate)
	if !ok {
		return out, nil
	}
	members, err := e.Members(ctx)
	if err != nil {
		out.Problem = err.Error()
	}
	for _, m := range members {
		out.Voters = append(out.Voters, httpapi.Voter{
			NodeID: int32(m.ID), Address: peerAddr(m), Leader: m.Leader, Learner: m.Learner, Healthy: m.Healthy,
			DBBytes: m.DBBytes, RaftIndex: m.RaftIndex, RaftTerm: m.RaftTerm, Problem: m.Problem,
		})
	}
	return out, nil
}

// peerAddr is where the other voters reach a member, as --voters names it.
func peerAddr(m etcdkv.MemberInfo) string {
	for _, peer := range m.PeerURLs {
		if u, err := url.Parse(peer); err == nil {
			return u.Host
		}
	}
	return ""
}

// voters is etcd's members as DescribeQuorum shows them; nil where the metadata is not in etcd.
func (b *Broker) voters() func(ctx context.Context) ([]kafka.Voter, error) {
	e, ok := b.quorum.(electorate)
	if !ok {
		return nil
	}
	return func(ctx context.Context) ([]kafka.Voter, error) {
		members, err := e.Members(ctx)
		var out []kafka.Voter
		for _, m := range members {
			if m.ID >= 0 { // else it has never started
				out = append(out, kafka.Voter{ID: m.ID, Learner: m.Learner, Healthy: m.Healthy, Index: int64(m.RaftIndex), Term: int64(m.RaftTerm)})
			}
		}
		return out, err
	}
}
