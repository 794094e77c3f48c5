package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
)

// faultyStore is a store over a KV whose writes go unanswered while there are outcomes left.
func faultyStore(t *testing.T) (s *metadata.Store, next func(...memkv.Outcome)) {
	t.Helper()
	var outcomes atomic.Pointer[[]memkv.Outcome]
	next = func(o ...memkv.Outcome) { outcomes.Store(&o) }
	next()
	kv := memkv.New(memkv.Options{
		Err: fmt.Errorf("no answer: %w", context.DeadlineExceeded),
		Fault: func(op string) memkv.Outcome {
			if left := *outcomes.Load(); op == "txn" && len(left) > 0 {
				next(left[1:]...)
				return left[0]
			}
			return memkv.Proceed
		},
	})
	t.Cleanup(kv.Close)
	return open(t, kv, nil), next
}

// code is what a client sees of an error.
func code(err error) (k *kerr.Error) {
	errors.As(err, &k)
	return k
}

// A block of ids that may or may not have been taken is left where it is, and the next one taken; of a KV that stays away producers
// hear what even old ones try again.
func TestProducerIDsOfAQuorumThatIsAway(t *testing.T) {
	for _, c := range []struct {
		name   string
		writes []memkv.Outcome
		id     base.ProducerID
		code   *kerr.Error
	}{
		{"lost answer", []memkv.Outcome{memkv.FailAfter}, 1000, nil},
		{"lost write", []memkv.Outcome{memkv.FailBefore}, 0, nil},
		{"both", []memkv.Outcome{memkv.FailAfter, memkv.FailBefore}, 1000, nil},
		{"away", []memkv.Outcome{memkv.FailBefore, memkv.FailBefore, memkv.FailBefore}, base.NoProducerID, kerr.CoordinatorLoadInProgress},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, next := faultyStore(t)
			next(c.writes...)
			id, err := s.NextProducerID(t.Context())
			if id != c.id || code(err) != c.code || c.code == nil && err != nil {
				t.Errorf("producer id %d, %v; want %d, %v", id, err, c.id, c.code)
			}
			if id, err = s.NextProducerID(t.Context()); err != nil || id <= c.id {
				t.Errorf("then producer id %d, %v", id, err)
			}
		})
	}
}

// A change that may or may not have happened is not said to be refused.
func TestUnknownOutcomeIsNoRefusal(t *testing.T) {
	for _, outcome := range []memkv.Outcome{memkv.FailBefore, memkv.FailAfter} {
		s, next := faultyStore(t)
		create(t, s, "before", 1) // there are log ids
		next(outcome)
		_, err := s.CreateTopic(t.Context(), metadata.TopicSpec{Name: "t", Partitions: 1, ReplicationFactor: 1}, false)
		if code(err) != kerr.RequestTimedOut {
			t.Errorf("create a topic: %v", err)
		}
	}
}
