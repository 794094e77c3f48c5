package sim

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/varvelog/varve/broker"
	"github.com/varvelog/varve/objstore/retry"
)

const (
	kafkaPort = 9092
	// stopPatience is SIGTERM's: what is not done then is left to the end of the process.
	stopPatience = 10 * time.Second
)

// node is one machine: a disk that outlives the processes which run on it, one after the other.
type node struct {
	c   *cluster
	id  int32
	ip  string
	dir string // a real one, for the lock file alone

	wallSec atomic.Int64 // by how many seconds its wall clock is wrong
	putsMs  atomic.Int64 // how long its PUTs are under way

	mu        sync.Mutex
	disk      *vfs.MemFS
	proc      *process // nil: none runs
	downUntil time.Time
	changed   chan struct{} // closed and replaced with proc and downUntil
}

// process is one life of a broker. After its end its goroutines may run on for a while, cut off from everything: nothing
// that they do is seen by anybody.
type process struct {
	n      *node
	seat   *seat
	broker *broker.Broker
	dead   atomic.Bool
	cancel context.CancelFunc // of its start
	begun  chan struct{}      // closed when its start has returned
	fuse   atomic.Int64       // the sync of the log that it dies at, counted down; 0: none
	gate   gate
	trap   atomic.Pointer[trap]
}

func newNode(c *cluster, id int32) (*node, error) {
	n := &node{c: c, id: id, ip: fmt.Sprintf("10.0.0.%d", id), dir: filepath.Join(c.dir, fmt.Sprint(id)), disk: vfs.NewCrashableMem(), changed: make(chan struct{})}
	return n, os.MkdirAll(n.dir, 0o755)
}

func (n *node) addr() string { return fmt.Sprintf("%s:%d", n.ip, kafkaPort) }

// supervise keeps a process running, where the node is not held down, until ctx ends.
func (n *node) supervise(ctx context.Context) {
	for {
		n.mu.Lock()
		idle := n.proc == nil
		wait, changed := time.Until(n.downUntil), n.changed
		n.mu.Unlock()
		if idle && wait <= 0 {
			n.start(ctx)
			wait = time.Second // before a start that failed is tried again
		}
		if !idle {
			wait = time.Hour
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-changed:
		case <-ctx.Done():
			t.Stop()
			return
		}
		t.Stop()
	}
}

// down says how long no process is started after the present one has ended.
func (n *node) down(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.downUntil = time.Now().Add(d)
	n.signalLocked()
}

func (n *node) signalLocked() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// start runs a process. It returns when that serves, or is dead.
func (n *node) start(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	p, err := n.spawn(cancel)
	if err != nil {
		n.c.fail(fmt.Errorf("broker %d: %w", n.id, err))
		return
	}
	err = p.broker.Start(ctx)
	close(p.begun)
	if err != nil && n.end(p) {
		n.c.log.Warn("start failed", slog.Int("broker", int(n.id)), slog.Any("err", err))
	}
}

func (n *node) spawn(cancel context.CancelFunc) (*process, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := &process{n: n, seat: n.c.quorum.sit(n.ip), cancel: cancel, begun: make(chan struct{})}
	p.seat.p = p
	bucket, err := retry.Wrap(lifeline{n.c.store, p}, retry.Options{Clock: machineClock{p}})
	if err != nil {
		return nil, err
	}
	p.broker, err = broker.New(n.c.brokerConfig(n), broker.Seams{
		Clock: machineClock{p}, Logger: n.c.log.With(slog.Int("broker", int(n.id))), Listen: p.listen, Dial: p.dial, Bucket: bucket, Quorum: p.seat,
		FS: newDisk(n.disk, p), LogSyncEvery: n.c.plan.syncEvery,
	})
	if err != nil {
		return nil, err
	}
	n.proc = p
	n.signalLocked()
	n.c.procs.Go(func(context.Context) {
		select {
		case err := <-p.broker.Failed():
			if !p.dead.Load() {
				n.c.fail(fmt.Errorf("broker %d gave up: %w", n.id, err))
			}
		case <-p.seat.ended:
		}
	})
	return p, nil
}

// end takes a process's machine from it; false where it has ended before.
func (n *node) end(p *process) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.endLocked(p)
}

func (n *node) endLocked(p *process) bool {
	if n.proc != p || p.dead.Swap(true) {
		return false
	}
	n.proc = nil
	p.seat.end()
	n.c.net.Kill(n.ip)
	n.c.net.Stop(n.ip, false)
	p.gate.open(true)
	_ = os.Remove(filepath.Join(n.dir, "LOCK")) // a process that ends lets go of it
	n.signalLocked()
	return true
}

// current is the process that runs, nil where none does.
func (n *node) current() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.proc
}

// kill ends a process as kill -9 or a power cut does; of what it had not synced the given share survives. It reports whether it ran.
func (n *node) kill(p *process, unsyncedPercent int, rng *rand.Rand) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p == nil || !n.endLocked(p) {
		return false
	}
	p.cancel()
	n.disk = n.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsyncedPercent, RNG: rng})
	n.c.procs.Go(func(ctx context.Context) { // so that its goroutines end
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		_ = p.broker.Stop(ctx) // nobody is interested
	})
	return true
}

// stop is SIGTERM, which ends a start that is under way. It reports whether a process ran.
func (n *node) stop(ctx context.Context) (bool, error) {
	p := n.current()
	if p == nil {
		return false, nil
	}
	p.cancel()
	<-p.begun
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	err := p.broker.Stop(ctx)
	n.end(p)
	return true, err
}

// wipe replaces the disk of a machine on which nothing runs.
func (n *node) wipe() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.disk = vfs.NewCrashableMem()
}

func (p *process) listen(network, addr string) (net.Listener, error) {
	if p.dead.Load() {
		return nil, errProcessEnded
	}
	return p.n.c.net.Host(p.n.ip).Listen(network, addr)
}

func (p *process) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if p.dead.Load() {
		return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}
	}
	c, err := p.n.c.net.Host(p.n.ip).Dial(ctx, network, addr)
	if err == nil && p.dead.Load() {
		_ = c.Close()
		return nil, errProcessEnded
	}
	return c, err
}
