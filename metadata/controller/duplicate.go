package controller

import (
	"time"

	"github.com/varvelog/varve/internal/base"
)

// Taken tells whether a process lives under a node id, so that another one must not register: one that was heard within its session,
// and whose connection has not ended since (KIP-631's DUPLICATE_BROKER_REGISTRATION, but that a process which is seen to be gone does not
// hold its id until its session is over). A controller that has not heard it yet says no.
func (t *Tracker) Taken(id base.BrokerID, now time.Time) bool {
	s := t.sessions[id]
	return s != nil && s.heard && !s.apart && s.dead == 0 && now.Sub(s.last) < t.timeout
}
