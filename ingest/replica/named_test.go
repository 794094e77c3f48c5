package replica

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A leader that answers for a partition with an error has forgotten it. Where that may be tried again before the next request, since
// what else the answer brought was written slowly, the request names it all the same, or the leader would never speak of it again.
func TestFailedPartitionIsNamedAgain(t *testing.T) {
	l := &fakeLeader{answer: func(n int, _ *kmsg.FetchRequest, resp *kmsg.FetchResponse) (time.Duration, bool) {
		if n > 1 {
			return time.Hour, false
		}
		addPartition(resp, 0, func(p *kmsg.FetchResponseTopicPartition) { p.ErrorCode = kerr.UnknownLeaderEpoch.Code })
		addPartition(resp, 1, func(p *kmsg.FetchResponseTopicPartition) { p.RecordBatches = batch(t, 0, 3, 1) })
		return 0, false
	}}
	trace := runFetcher(t, l, &fakeLog{applyTime: 200 * time.Millisecond}, 300*time.Millisecond, func(f *Fetcher) {
		f.Follow(Assignment{ID: id(0), Epoch: 3}, Assignment{ID: id(1), Epoch: 3})
	})
	if last := trace[len(trace)-1]; !strings.Contains(last, "1-0@e3 0") {
		t.Errorf("the request after the error is %q, in\n%s", last, strings.Join(trace, "\n"))
	}
}
