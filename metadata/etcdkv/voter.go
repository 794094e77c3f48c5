package etcdkv

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"

	"github.com/varvelog/varve/internal/base"
)

// Voter is a broker that embeds a voting member. PeerAddr is the host:port at which the other voters reach it; the host may
// be a DNS name.
type Voter struct {
	ID       base.BrokerID
	PeerAddr string
}

const memberPrefix = "varve-"

func memberName(id base.BrokerID) string { return memberPrefix + strconv.Itoa(int(id)) }

// brokerOf is the inverse of memberName; a member that has never started has no name.
func brokerOf(name string) (id base.BrokerID, ok bool) {
	digits, ok := strings.CutPrefix(name, memberPrefix)
	n, err := strconv.ParseInt(digits, 10, 32)
	return base.BrokerID(n), ok && err == nil
}

func voterOf(voters []Voter, id base.BrokerID) (Voter, bool) {
	i := slices.IndexFunc(voters, func(v Voter) bool { return v.ID == id })
	if i < 0 {
		return Voter{}, false
	}
	return voters[i], true
}

func without(voters []Voter, id base.BrokerID) []Voter {
	return slices.DeleteFunc(slices.Clone(voters), func(v Voter) bool { return v.ID == id })
}

func listVoters(voters []Voter) string {
	names := make([]string, len(voters))
	for i, v := range voters {
		names[i] = fmt.Sprintf("%d@%s", v.ID, v.PeerAddr)
	}
	return strings.Join(names, ",")
}

func validateVoters(voters []Voter) error {
	var errs []error
	for i, v := range voters {
		if _, port, err := net.SplitHostPort(v.PeerAddr); err != nil || port == "" || port == "0" {
			errs = append(errs, fmt.Errorf("etcd: voter %d: %q is no host:port that others can reach", v.ID, v.PeerAddr))
		}
		for _, other := range voters[:i] {
			if other.ID == v.ID || other.PeerAddr == v.PeerAddr {
				errs = append(errs, fmt.Errorf("etcd: voters %d@%s and %d@%s: want different ids and addresses", other.ID, other.PeerAddr, v.ID, v.PeerAddr))
			}
		}
	}
	return errors.Join(errs...)
}

func (o *Options) peerURL(v Voter) string {
	return (&url.URL{Scheme: o.TLS.scheme(), Host: v.PeerAddr}).String()
}

// newClusterID is the id that etcd gives to the cluster that this list of voters and this token bootstrap: whoever
// computes the same one means the same cluster.
func (o *Options) newClusterID() (types.ID, error) {
	urls := types.URLsMap{}
	for _, v := range o.Voters {
		u, err := types.NewURLs([]string{o.peerURL(v)})
		if err != nil {
			return 0, fmt.Errorf("etcd: voter %d: %w", v.ID, err)
		}
		urls[memberName(v.ID)] = u
	}
	cluster, err := membership.NewClusterFromURLsMap(nil, o.ClusterToken, urls)
	if err != nil {
		return 0, fmt.Errorf("etcd: voters %s: %w", listVoters(o.Voters), err)
	}
	return cluster.ID(), nil
}
