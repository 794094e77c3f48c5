package controller

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
)

// revivals is how many heartbeats bring a broker back that refused a connection: one may still have been on its way.
const revivals = 2

// probeEvery is the least time between two probes of a broker.
const probeEvery = 100 * time.Millisecond

// ProbeResult is what a controller learns by connecting to a broker.
type ProbeResult uint8

// The results of a probe. An accepted connection does not prolong the session: the kernel accepts for a stopped process.
const (
	ProbeNoAnswer ProbeResult = iota // the session timeout decides
	ProbeAccepted                    // somebody listens: the session timeout decides
	ProbeRefused                     // nobody listens: the process is gone
)

// Registration is what the tracker has to know of a registered broker.
type Registration struct {
	ID           base.BrokerID
	Epoch        int64
	Fenced, Full bool
}

// Tracker knows which brokers are alive, from what a controller hears. It is pure: time is passed in, and what it decides
// is for the caller to do. Not safe for concurrent use.
type Tracker struct {
	timeout  time.Duration
	sessions map[base.BrokerID]*session
}

// session is one incarnation of a broker.
type session struct {
	Registration
	last    time.Time // of its last heartbeat, or when the tracker first saw it
	heard   bool      // a heartbeat came
	leaving bool      // it said that it shuts down
	full    bool      // it said that its disk has no room
	apart   bool      // the connection of its heartbeats ended, and none has come since
	suspect bool      // to be probed
	doubted bool      // its connection broke, or none was seen: probed again and again until it is heard
	probe   time.Time // not before
	dead    int       // refused a connection, and this many heartbeats bring it back
}

// Decision is what a controller has to do now, each list sorted by id, and when to ask again where nothing happens before.
type Decision struct {
	Fence, Unfence, Probe []Registration
	Room                  []Registration // those whose disk is Full now, and was not, or was, and is not
	Again                 time.Time      // zero: nothing to wait for
}

func (d *Decision) again(at time.Time) {
	if d.Again.IsZero() || at.Before(d.Again) {
		d.Again = at
	}
}

// NewTracker returns a tracker that knows no broker; timeout is broker.session.timeout.ms.
func NewTracker(timeout time.Duration) *Tracker {
	return &Tracker{timeout: timeout, sessions: map[base.BrokerID]*session{}}
}

// Sync takes over the brokers that are registered. One that is new, or has registered anew, gets a full session, and, where
// it is not fenced, is probed: a new controller has no connection to break, and one of them may have died with the former.
func (t *Tracker) Sync(registered []Registration, now time.Time) {
	known := make(map[base.BrokerID]struct{}, len(registered))
	for _, r := range registered {
		known[r.ID] = struct{}{}
		s := t.sessions[r.ID]
		if s == nil || s.Epoch != r.Epoch {
			t.sessions[r.ID] = &session{Registration: r, last: now, suspect: !r.Fenced, doubted: !r.Fenced}
			continue
		}
		if s.Registration = r; s.Fenced {
			s.suspect, s.doubted = false, false
		}
	}
	maps.DeleteFunc(t.sessions, func(id base.BrokerID, _ *session) bool {
		_, ok := known[id]
		return !ok
	})
}

// Heartbeat is what a broker says of itself (KIP-631).
type Heartbeat struct {
	ID      base.BrokerID
	Epoch   int64 // of its registration
	Leaving bool  // it wants to shut down
	Full    bool  // its disk has no room
}

// Heartbeat prolongs a session. The errors are those of BrokerHeartbeat: kerr.BrokerIDNotRegistered, kerr.StaleBrokerEpoch.
func (t *Tracker) Heartbeat(h Heartbeat, now time.Time) error {
	s, err := t.session(h.ID, h.Epoch)
	if err != nil {
		return err
	}
	if s.dead > 0 {
		if s.dead--; s.dead > 0 {
			return nil
		}
	}
	s.last, s.heard, s.leaving, s.full, s.apart, s.suspect, s.doubted = now, true, h.Leaving, h.Full, false, false, false
	return nil
}

// Disconnected says that the connection of a broker's heartbeats broke: it is to be probed at once.
func (t *Tracker) Disconnected(id base.BrokerID, epoch int64) {
	s, err := t.session(id, epoch)
	if err != nil {
		return
	}
	if s.apart = true; s.dead == 0 {
		s.suspect, s.doubted = true, true
	}
}

// Probed takes the result of a probe that a decision asked for. A process that dies may take half a second to let go of its
// listener: while a broker is not heard again it is probed again.
func (t *Tracker) Probed(id base.BrokerID, epoch int64, result ProbeResult) {
	s, err := t.session(id, epoch)
	switch {
	case err != nil:
	case result == ProbeRefused:
		s.dead, s.doubted = revivals, false
	default:
		s.suspect = s.doubted
	}
}

func (t *Tracker) session(id base.BrokerID, epoch int64) (*session, error) {
	switch s := t.sessions[id]; {
	case s == nil:
		return nil, fmt.Errorf("broker %d: %w", id, kerr.BrokerIDNotRegistered)
	case s.Epoch != epoch:
		return nil, fmt.Errorf("broker %d of epoch %d, registered in epoch %d: %w", id, epoch, s.Epoch, kerr.StaleBrokerEpoch)
	default:
		return s, nil
	}
}

// Leaving reports whether a broker is alive and shuts down.
func (t *Tracker) Leaving(id base.BrokerID) bool {
	s := t.sessions[id]
	return s != nil && s.leaving
}

// Decide returns what is to be done. A probe is asked for once, until its result is there; fencing, unfencing and what is full are repeated until Sync shows them.
func (t *Tracker) Decide(now time.Time) Decision {
	var d Decision
	for _, s := range t.sessions {
		switch {
		case s.suspect && now.Before(s.probe):
			d.again(s.probe)
		case s.suspect:
			s.suspect, s.probe = false, now.Add(probeEvery)
			d.Probe = append(d.Probe, s.Registration)
		}
		alive := s.dead == 0 && now.Sub(s.last) < t.timeout
		switch {
		case !s.Fenced && !alive:
			d.Fence = append(d.Fence, s.Registration)
		case s.Fenced && alive && s.heard && !s.leaving:
			d.Unfence = append(d.Unfence, s.Registration)
		}
		if alive && s.heard && s.full != s.Full {
			d.Room = append(d.Room, Registration{ID: s.ID, Epoch: s.Epoch, Fenced: s.Fenced, Full: s.full})
		}
		if !s.Fenced && alive {
			d.again(s.last.Add(t.timeout))
		}
	}
	byID := func(a, b Registration) int { return cmp.Compare(a.ID, b.ID) }
	slices.SortFunc(d.Fence, byID)
	slices.SortFunc(d.Unfence, byID)
	slices.SortFunc(d.Probe, byID)
	slices.SortFunc(d.Room, byID)
	return d
}
