package replica

import (
	"fmt"
	"slices"
	"sort"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
)

// Token names an append that waits; its meaning is the caller's.
type Token uint64

// Done answers an append that waited: nil where it is committed.
type Done struct {
	Token Token
	Err   error
}

// wait is an acks=all append up to end.
type wait struct {
	token   Token
	end     base.Offset
	patient bool
}

// Await makes an acks=all append up to end (exclusive) wait until it is committed; the append has been noted with Appended, or
// is a duplicate of an earlier one. Its answer is in the Done of these or of later effects. A time-out is the caller's: it
// answers the client and ignores the Done that follows. One that is patient waits also while too few replicas are in sync.
func (l *Leader) Await(token Token, end base.Offset, patient bool) Effects {
	i := sort.Search(len(l.waiting), func(i int) bool { return l.waiting[i].end > end })
	l.waiting = append(l.waiting, wait{})
	copy(l.waiting[i+1:], l.waiting[i:])
	l.waiting[i] = wait{token, end, patient}
	return l.effects()
}

// complete takes out what is committed and, while too few replicas are in sync for that to happen, the rest but for who is patient: with
// kerr.NotEnoughReplicasAfterAppend, upon which clients retry.
func (l *Leader) complete() []Done {
	n := sort.Search(len(l.waiting), func(i int) bool { return l.waiting[i].end > l.highWater })
	var done []Done
	for _, w := range l.waiting[:n] {
		done = append(done, Done{Token: w.token})
	}
	l.waiting = l.waiting[n:]
	if !l.underMin() || len(l.waiting) == 0 {
		return done
	}
	err := fmt.Errorf("%d replicas in sync, %d wanted: %w", len(l.state.ISR), l.minInSync(), kerr.NotEnoughReplicasAfterAppend)
	l.waiting = slices.DeleteFunc(slices.Clone(l.waiting), func(w wait) bool {
		if !w.patient {
			done = append(done, Done{w.token, err})
		}
		return !w.patient
	})
	return done
}

// Resign ends the leadership: what waits is answered err. Nothing may be called afterwards.
func (l *Leader) Resign(err error) []Done {
	done := make([]Done, 0, len(l.waiting))
	for _, w := range l.waiting {
		done = append(done, Done{w.token, err})
	}
	l.waiting = nil
	return done
}
