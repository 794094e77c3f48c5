package group

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/memlog"
	"github.com/varvelog/varve/internal/base"
)

// TestDeletedTopicsOffset: where the tombstone of a deleted topic's offset was never written (nobody led the shard, or the
// append was lost), the offset is none of the new topic's. It is not dropped: an image without the new topic may be old.
func TestDeletedTopicsOffset(t *testing.T) {
	current := base.NewTopicID()
	c := start(t, &memlog.Log{}, func(o *Options) {
		o.TopicName = func(id base.TopicID) (string, bool) { return "t", id == current }
		o.TopicID = func(string) base.TopicID { return current }
	})
	check := func(when, one, all string) {
		t.Helper()
		r := fetchRequest("g")
		if got := strings.Join(fetched(ask(t, c, 9, r).(*kmsg.OffsetFetchResponse)), " "); got != all {
			t.Errorf("%s: all are %q, want %q", when, got, all)
		}
		ft := kmsg.NewOffsetFetchRequestGroupTopic()
		ft.Topic, ft.TopicID, ft.Partitions = "t", current, []int32{0}
		r.Groups[0].Topics = []kmsg.OffsetFetchRequestGroupTopic{ft}
		for _, version := range []int16{8, 9, 10} {
			if current.IsZero() && version >= fetchTopicIDs {
				continue
			}
			p := ask(t, c, version, r).(*kmsg.OffsetFetchResponse).Groups[0].Topics[0].Partitions[0]
			if got := fmt.Sprintf("%d=%d", p.Partition, p.Offset); got != one || p.ErrorCode != 0 {
				t.Errorf("%s, version %d: %s, error %d, want %s", when, version, got, p.ErrorCode, one)
			}
		}
	}
	commit := func(offset int64) {
		t.Helper()
		r := ask(t, c, 9, commitRequest("g", "", -1, "t", offset)).(*kmsg.OffsetCommitResponse)
		if code := r.Topics[0].Partitions[0].ErrorCode; code != 0 {
			t.Fatalf("commit of %d: error %d", offset, code)
		}
	}
	first, second := current, base.NewTopicID()
	commit(5)
	check("committed", "0=5", "0=5")
	current = second
	check("made anew", "0=-1", "")
	current = base.TopicID{}
	check("not in the image", "0=5", "0=5")
	current = first
	check("in an older image", "0=5", "0=5")
	current = second
	commit(7)
	check("committed to the new one", "0=7", "0=7")
}

// TestCommitMeansOneTopic: a commit whose topic is deleted or made anew while the commit waits for its turn is refused.
func TestCommitMeansOneTopic(t *testing.T) {
	first, second := base.NewTopicID(), base.NewTopicID()
	for _, version := range []int16{9, 10} {
		for what, next := range map[string]base.TopicID{"made anew": second, "deleted": {}, "the same": first} {
			current := first
			c := start(t, &memlog.Log{}, func(o *Options) {
				o.TopicName = func(id base.TopicID) (string, bool) { return "t", id == current }
				o.TopicID = func(string) base.TopicID { return current }
				o.PartitionExists = func(string, int32) bool { current = next; return true } // the last look before the wait
			})
			r := commitRequest("g", "", -1, "t", 5)
			r.Version, r.Topics[0].TopicID = version, first
			want, committed := unknownTopic(version), ""
			if next == first {
				want, committed = 0, "0=5"
			}
			if code := c.OffsetCommit(t.Context(), Client{}, r).Topics[0].Partitions[0].ErrorCode; code != want {
				t.Errorf("version %d, %s: error %d, want %d", version, what, code, want)
			}
			if got := strings.Join(fetched(ask(t, c, 9, fetchRequest("g")).(*kmsg.OffsetFetchResponse)), " "); got != committed {
				t.Errorf("version %d, %s: offsets %q, want %q", version, what, got, committed)
			}
		}
	}
}

// TestIDBeforeName: the edge fills in the names of topics that are asked for by id; what counts is the id.
func TestIDBeforeName(t *testing.T) {
	first, current := base.NewTopicID(), base.NewTopicID()
	c := start(t, &memlog.Log{}, func(o *Options) {
		o.TopicName = func(id base.TopicID) (string, bool) { return "t", id == current }
		o.TopicID = func(string) base.TopicID { return current }
	})
	commit, fetch := commitRequest("g", "", -1, "t", 5), fetchRequest("g")
	commit.Version, commit.Topics[0].TopicID = 10, first
	if code := c.OffsetCommit(t.Context(), Client{}, commit).Topics[0].Partitions[0].ErrorCode; code != codeUnknownTopicID {
		t.Errorf("commit by the name's earlier id: error %d", code)
	}
	ft := kmsg.NewOffsetFetchRequestGroupTopic()
	ft.Topic, ft.TopicID, ft.Partitions = "t", first, []int32{0}
	fetch.Version, fetch.Groups[0].Topics = 10, []kmsg.OffsetFetchRequestGroupTopic{ft}
	if p := c.OffsetFetch(t.Context(), Client{}, fetch).Groups[0].Topics[0].Partitions[0]; p.ErrorCode != codeUnknownTopicID {
		t.Errorf("fetch by the name's earlier id: %+v", p)
	}
}
