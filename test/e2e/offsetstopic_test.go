package e2e

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The topic of the committed offsets is deleted: groups begin anew in one that is made anew, whose leader epochs are earlier.
func TestOffsetsTopicMadeAnew(t *testing.T) {
	n := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	commit := func(group string, at int64) {
		t.Helper()
		// The client's own connections and coordinators may be of before.
		adm := kadm.NewClient(client(t, n, kgo.MetadataMinAge(10*time.Millisecond)))
		var offsets kadm.Offsets
		offsets.AddOffset("t", 0, at, -1)
		for {
			got, err := adm.CommitOffsets(ctx, group, offsets)
			if err == nil {
				err = got.Error()
			}
			if err == nil {
				return
			}
			if ctx.Err() != nil || !kerr.IsRetriable(err) && !errors.Is(err, kerr.UnknownTopicOrPartition) {
				t.Fatalf("commit of %s: %v", group, err)
			}
		}
	}
	adm := kadm.NewClient(client(t, n))
	if _, err := adm.CreateTopic(ctx, 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	commit("before", 5)
	if err := n.End(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	boot(t, n) // under the next leader epoch
	commit("between", 6)
	if got, err := adm.DeleteTopics(ctx, "__consumer_offsets"); err != nil || got.Error() != nil {
		t.Fatal(err, got.Error())
	}
	commit("after", 7)
	adm = kadm.NewClient(client(t, n)) // one that has no connection of before
	for group, want := range map[string]int64{"before": -1, "between": -1, "after": 7} {
		got, err := adm.FetchOffsetsForTopics(ctx, group, "t")
		if err != nil {
			t.Fatal(err)
		}
		if o, ok := got.Lookup("t", 0); !ok || o.At != want {
			t.Errorf("%s: %+v, want offset %d", group, o, want)
		}
	}
}
