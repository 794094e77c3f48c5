package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// ErrRefused marks what the cluster's state does not allow, or what makes no sense: a 409, with the words of the error.
var ErrRefused = errors.New("refused")

const (
	// changeTimeout bounds a change. The voters wait out for so long what etcd refuses for the moment: changes of its members
	// soon after another one. It is less than the command line's time-out, so that the reason is told.
	changeTimeout = 25 * time.Second
	// maxBodyBytes bounds the body of a change.
	maxBodyBytes = 4 << 10
)

// Cluster is the answer of GET /v1/cluster.
type Cluster struct {
	ClusterID  string   `json:"clusterId"`
	Controller int32    `json:"controller"` // a broker; -1: none
	Brokers    []Broker `json:"brokers"`    // all that are registered, by id
	// Voters are etcd's members, by broker; none where a majority of them does not answer, and then Problem says so.
	Voters  []Voter `json:"voters"`
	Problem string  `json:"problem,omitempty"`
}

// Broker is a registered broker as the cluster's metadata has it.
type Broker struct {
	NodeID   int32  `json:"nodeId"`
	Host     string `json:"host"`
	Port     int32  `json:"port"`
	Rack     string `json:"rack,omitempty"`
	Epoch    int64  `json:"epoch"`    // of its registration: grows with each start
	Fenced   bool   `json:"fenced"`   // it serves nothing
	NewDisk  bool   `json:"newDisk"`  // fenced, and back with another disk: it has to leave every ISR first
	Draining bool   `json:"draining"` // it is to be emptied
	Full     bool   `json:"full"`     // its disk has no room: it appends nothing
}

// Voter is a member of the etcd that holds the cluster's metadata.
type Voter struct {
	NodeID    int32  `json:"nodeId"`  // a broker; -1: it has never started
	Address   string `json:"address"` // host:port for the other members
	Leader    bool   `json:"leader"`  // raft's, which makes its broker the controller
	Learner   bool   `json:"learner"` // it does not vote yet
	Healthy   bool   `json:"healthy"` // it answers and has a leader
	DBBytes   int64  `json:"dbBytes"` // of its store on disk
	RaftIndex uint64 `json:"raftIndex"`
	RaftTerm  uint64 `json:"raftTerm"`
	Problem   string `json:"problem,omitempty"` // where it is not healthy
}

// VoterAddress is the body of POST /v1/voters and PUT /v1/voters/ID: who is to vote, and where the other voters reach it.
type VoterAddress struct {
	NodeID  int32  `json:"nodeId"`
	Address string `json:"address"` // host:port
}

// ControllerChoice is the body of PUT /v1/controller.
type ControllerChoice struct {
	NodeID int32 `json:"nodeId"`
}

// Admin is what GET /v1/cluster and the changes of the cluster do; any broker takes them. Changes return ErrNotFound, ErrRefused
// or what went wrong, after which the outcome is unknown. Where a function is nil, its route is not there.
type Admin struct {
	Cluster        func(ctx context.Context) (Cluster, error)
	Drain          func(ctx context.Context, broker int32, drain bool) error
	AddVoter       func(ctx context.Context, v VoterAddress) error
	RemoveVoter    func(ctx context.Context, broker int32) error
	RemoveAddress  func(ctx context.Context, address string) error // a voter that has never started
	ReplaceVoter   func(ctx context.Context, old int32, v VoterAddress) error
	MoveController func(ctx context.Context, to int32) error
}

// routes adds what there is. No change is one that a page of another site can make a browser send to the loopback without
// asking first: that are GET, and POST of a form or of text.
func (a *Admin) routes(mux *http.ServeMux) {
	if a.Cluster != nil {
		mux.HandleFunc("GET /v1/cluster", func(w http.ResponseWriter, r *http.Request) {
			c, err := a.Cluster(r.Context())
			answer(w, c, err)
		})
	}
	if a.Drain != nil {
		mux.HandleFunc("PUT /v1/brokers/{id}/drain", ofNode(func(ctx context.Context, id int32) error { return a.Drain(ctx, id, true) }))
		mux.HandleFunc("DELETE /v1/brokers/{id}/drain", ofNode(func(ctx context.Context, id int32) error { return a.Drain(ctx, id, false) }))
	}
	if a.AddVoter != nil {
		mux.HandleFunc("POST /v1/voters", withBody(func(ctx context.Context, _ *http.Request, v VoterAddress) error { return a.AddVoter(ctx, v) }))
	}
	if a.RemoveVoter != nil {
		mux.HandleFunc("DELETE /v1/voters/{id}", ofNode(a.RemoveVoter))
	}
	if a.RemoveAddress != nil {
		mux.HandleFunc("DELETE /v1/voters", func(w http.ResponseWriter, r *http.Request) {
			address := r.URL.Query().Get("address")
			err := fmt.Errorf("%w: want ?address=HOST:PORT", errBadRequest)
			if _, _, perr := net.SplitHostPort(address); perr == nil {
				err = bounded(r, func(ctx context.Context) error { return a.RemoveAddress(ctx, address) })
			}
			answer(w, struct{}{}, err)
		})
	}
	if a.ReplaceVoter != nil {
		mux.HandleFunc("PUT /v1/voters/{id}", withBody(func(ctx context.Context, r *http.Request, v VoterAddress) error {
			id, err := nodeOf(r)
			if err != nil {
				return err
			}
			return a.ReplaceVoter(ctx, id, v)
		}))
	}
	if a.MoveController != nil {
		mux.HandleFunc("PUT /v1/controller", withBody(func(ctx context.Context, _ *http.Request, c ControllerChoice) error {
			return a.MoveController(ctx, c.NodeID)
		}))
	}
}

// errBadRequest marks a request that cannot be read: a 400.
var errBadRequest = errors.New("bad request")

func nodeOf(r *http.Request) (int32, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 32)
	if err != nil || id < 0 {
		return 0, fmt.Errorf("%w: %q is no broker's id", errBadRequest, r.PathValue("id"))
	}
	return int32(id), nil
}

func ofNode(change func(ctx context.Context, id int32) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, err := nodeOf(r)
		if err == nil {
			err = bounded(r, func(ctx context.Context) error { return change(ctx, id) })
		}
		answer(w, struct{}{}, err)
	}
}

// withBody reads a JSON body, and insists on its type (see routes).
func withBody[T any](change func(ctx context.Context, r *http.Request, body T) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Content-Type") != "application/json" {
			writeJSON(w, http.StatusUnsupportedMediaType, map[string]string{"error": "want Content-Type: application/json"})
			return
		}
		var body T
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBodyBytes))
		d.DisallowUnknownFields()
		err := d.Decode(&body)
		if err != nil {
			err = fmt.Errorf("%w: %w", errBadRequest, err)
		} else {
			err = bounded(r, func(ctx context.Context) error { return change(ctx, r, body) })
		}
		answer(w, struct{}{}, err)
	}
}

// bounded runs a change, which goes on when the client goes away, as those over Kafka's protocol do.
func bounded(r *http.Request, change func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), changeTimeout)
	defer cancel()
	return change(ctx)
}

// answer writes v, or the status of an error and its words.
func answer(w http.ResponseWriter, v any, err error) {
	status := http.StatusInternalServerError
	switch {
	case err == nil:
		writeJSON(w, http.StatusOK, v)
		return
	case errors.Is(err, errBadRequest):
		status = http.StatusBadRequest
	case errors.Is(err, ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, ErrRefused):
		status = http.StatusConflict
	case errors.Is(err, context.DeadlineExceeded):
		status = http.StatusGatewayTimeout
	}
	writeJSON(w, status, map[string]string{"error": err.Error()})
}
