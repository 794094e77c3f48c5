package etcdkv

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/metadata"
)

// TestSilentWatchEnds: a watch over a member that hangs ends with an error; one that hears signs of life does not.
func TestSilentWatchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, start := make(chan clientv3.WatchResponse), time.Now()
		w := watch{in: in, out: make(chan metadata.Events), clock: clock.Real{}}
		go w.forward(t.Context())
		for range 5 {
			time.Sleep(watchSilence - 1)
			in <- clientv3.WatchResponse{Header: &pb.ResponseHeader{}} // a progress notification
		}
		events := <-w.out
		if !errors.Is(events.Err, errSilent) || time.Since(start) != 5*(watchSilence-1)+watchSilence {
			t.Errorf("%v after %s", events.Err, time.Since(start))
		}
	})
}
