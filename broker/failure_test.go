package broker

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/controller"
	"github.com/varvelog/varve/metadata/memkv"
	"github.com/varvelog/varve/objstore/mem"
)

// leaderless is a quorum in which nobody becomes the controller, and whose member can end.
type leaderless struct {
	kv      metadata.KV
	stopped chan struct{}
}

func (q *leaderless) KV() metadata.KV                      { return q.kv }
func (q *leaderless) Leadership() (bool, <-chan struct{})  { return false, nil }
func (q *leaderless) GiveLeadership(context.Context) error { return nil }
func (q *leaderless) Stopped() <-chan struct{}             { return q.stopped }
func (q *leaderless) Close() error                         { return nil }

// failedStart starts broker 1 in a quorum, and looks that it ends with what is wanted, which it has also logged.
func failedStart(t *testing.T, q Quorum, want string) {
	t.Helper()
	var log strings.Builder
	b, err := New(Config{
		NodeID: 1, DataDir: t.TempDir(), KafkaAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", ObjectStore: "mem:", Memory: 64 << 20,
		Set: map[string]string{"varve.cache.disk.bytes": "0"},
	}, Seams{Quorum: q, FS: vfs.NewMem(), Bucket: mem.New(mem.Options{}), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = b.Start(ctx)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("start: %v; want %q", err, want)
	}
	if !strings.Contains(log.String(), want) {
		t.Errorf("the log does not say %q:\n%s", want, log.String())
	}
	select {
	case err := <-b.Failed():
		if !strings.Contains(err.Error(), want) {
			t.Errorf("failed: %v; want %q", err, want)
		}
	default:
		t.Error("nothing has failed")
	}
}

// other opens the store of another process, over the same KV.
func other(t *testing.T, kv metadata.KV, id base.BrokerID) *metadata.Store {
	t.Helper()
	s, err := metadata.Open(t.Context(), metadata.Options{KV: kv, BrokerID: id, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func register(t *testing.T, s *metadata.Store, id base.BrokerID) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // the test may be over, which the cleanup waits for
	if _, err := s.RegisterBroker(ctx, metadata.Broker{ID: id, Host: "127.0.0.1", Port: 1}); err != nil {
		t.Error(err)
	}
}

// onceRegistered calls do when broker 1 has registered and waits, as there is no controller, for leave to serve.
func onceRegistered(t *testing.T, s *metadata.Store, do func()) {
	t.Helper()
	registered, once := make(chan struct{}), sync.Once{}
	s.Subscribe(func(_, image *metadata.Image) {
		if _, ok := image.BrokerByID(1); ok {
			once.Do(func() { close(registered) })
		}
	})
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	wg.Go(func() {
		select {
		case <-registered:
			do()
		case <-t.Context().Done():
		}
	})
}

// Two processes of one id register while there is no controller: the first one ends, and says why.
func TestStartEndsWhereAnotherProcessHasTheID(t *testing.T) {
	kv := newKV(t)
	s := other(t, kv, 2)
	register(t, s, 2)
	onceRegistered(t, s, func() { register(t, s, 1) })
	failedStart(t, &leaderless{kv: kv}, "another process has registered as broker 1")
}

// The etcd member ends while its broker waits for the controller.
func TestStartEndsWithItsMember(t *testing.T) {
	kv, stopped := newKV(t), make(chan struct{})
	s := other(t, kv, 2)
	register(t, s, 2)
	onceRegistered(t, s, func() { close(stopped) })
	failedStart(t, &leaderless{kv, stopped}, "the etcd member has ended")
}

// The etcd member ends, a single voter's, before the metadata can be read: that is not a quorum that will come.
func TestStartDoesNotWaitForAMemberThatHasEnded(t *testing.T) {
	stopped, once := make(chan struct{}), sync.Once{}
	kv := memkv.New(memkv.Options{
		Err: fmt.Errorf("server stopped: %w", context.DeadlineExceeded),
		Fault: func(string) memkv.Outcome {
			once.Do(func() { close(stopped) })
			return memkv.FailBefore
		},
	})
	t.Cleanup(kv.Close)
	failedStart(t, &leaderless{kv, stopped}, "the etcd member has ended")
}

// hangUp is a connection whose other side has ended it.
func hangUp(t *testing.T) net.Conn {
	t.Helper()
	here, there := net.Pipe()
	if err := there.Close(); err != nil {
		t.Error(err)
	}
	return here
}

// A probe of a broker that ends each connection takes pauses, and sees when it is gone.
func TestProbePauses(t *testing.T) {
	most := int(probeTimeout / probePause)
	for last, want := range map[int]controller.ProbeResult{3: controller.ProbeRefused, 10 * most: controller.ProbeAccepted} {
		synctest.Test(t, func(t *testing.T) {
			dials := 0
			b := &Broker{seams: Seams{Clock: clock.Real{}, Dial: func(context.Context, string, string) (net.Conn, error) {
				if dials++; dials > last {
					return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
				}
				return hangUp(t), nil
			}}}
			if got := b.probe(t.Context(), metadata.Broker{}); got != want || dials > most+1 {
				t.Errorf("probe: %v after %d connections, want %v after %d at most", got, dials, want, most+1)
			}
		})
	}
}
