package etcdkv

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"

	"github.com/varvelog/varve/internal/base"
)

const (
	membersPath     = "/members"          // of etcd's peer listener: its own members fetch it as well
	clusterIDHeader = "X-Etcd-Cluster-ID" // set by etcd, and by a voter that waits
	waitingHeader   = "X-Varve-Waiting"   // the id of a voter that has no data yet
	probeTimeout    = 500 * time.Millisecond
	maxMembersBytes = 1 << 20
)

// voterState is what a voter's peer address shows.
type voterState uint8

const (
	silent  voterState = iota // nobody answers
	waiting                   // a voter without data, which has not decided how to start
	running                   // a member; it may be without a leader
)

// answer is what came from one peer address. The members of a running one are its own view, which may be behind.
type answer struct {
	from      Voter
	state     voterState
	waiter    base.BrokerID // of a waiting one
	clusterID types.ID
	members   []membership.Member
	distrust  error // of a silent one: the two sides do not accept each other's certificates
}

// prober asks peer addresses.
type prober struct {
	opts   *Options
	client *http.Client
}

func newProber(opts *Options) (*prober, error) {
	tr, err := transport.NewTransport(opts.TLS.info(), probeTimeout)
	if err != nil {
		return nil, fmt.Errorf("etcd tls: %w", err)
	}
	tr.DisableKeepAlives = true // a connection must not outlive a voter's move from waiting to running
	return &prober{opts: opts, client: &http.Client{Transport: tr, Timeout: probeTimeout}}, nil
}

// all asks every voter at once.
func (p *prober) all(ctx context.Context, voters []Voter) []answer {
	answers := make([]answer, len(voters))
	var wg sync.WaitGroup
	for i, v := range voters {
		wg.Go(func() { answers[i] = p.one(ctx, v) })
	}
	wg.Wait()
	return answers
}

func (p *prober) one(ctx context.Context, v Voter) answer {
	a := answer{from: v}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.opts.peerURL(v)+membersPath, nil)
	if err != nil {
		return a
	}
	resp, err := p.client.Do(req)
	if err != nil {
		a.distrust = p.distrust(ctx, v, err)
		return a
	}
	defer resp.Body.Close()
	if a.clusterID, err = types.IDFromString(resp.Header.Get(clusterIDHeader)); err != nil {
		return a
	}
	if id := resp.Header.Get(waitingHeader); id != "" {
		if broker, ok := brokerOf(id); ok {
			a.state, a.waiter = waiting, broker
		}
		return a
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxMembersBytes)).Decode(&a.members); err == nil && len(a.members) > 0 {
		a.state = running
	}
	return a
}

// clientURLs are those that the running members name, each once.
func clientURLs(answers []answer) []string {
	var urls []string
	for _, a := range answers {
		for _, m := range a.members {
			if !m.IsLearner {
				urls = append(urls, m.ClientURLs...)
			}
		}
	}
	slices.Sort(urls)
	return slices.Compact(urls)
}

// waitingRoom serves the peer address of a voter that has no data until it knows how to start, so that the others can tell
// it from one that is down. Its answer is no JSON, because etcd members that look for their peers must pass over it.
type waitingRoom struct {
	server *http.Server
	done   chan struct{}
	closed bool
}

func openWaitingRoom(opts *Options, listen string, clusterID types.ID) (*waitingRoom, error) {
	info := opts.TLS.info()
	l, err := transport.NewListenerWithOpts(listen, opts.TLS.scheme(), transport.WithTLSInfo(&info))
	if err != nil {
		return nil, fmt.Errorf("etcd peer listener: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc(membersPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(clusterIDHeader, clusterID.String())
		w.Header().Set(waitingHeader, memberName(opts.NodeID))
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "voter %d has no data and waits for the others\n", opts.NodeID)
	})
	r := &waitingRoom{server: &http.Server{Handler: mux, ReadTimeout: probeTimeout, WriteTimeout: probeTimeout}, done: make(chan struct{})}
	go func() { // ended by close
		defer close(r.done)
		_ = r.server.Serve(l) // ErrServerClosed
	}()
	return r, nil
}

func (r *waitingRoom) close() {
	r.closed = true
	_ = r.server.Close() // nothing is under way that matters
	<-r.done
}
