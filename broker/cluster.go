package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/internal/service"
	"github.com/varvelog/varve/kafka"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/controller"
	"github.com/varvelog/varve/metadata/controller/run"
)

const (
	// heartbeatRetry is how soon a heartbeat is sent again that no controller took, and how often one is sent by a broker that
	// waits: to be unfenced, or to be let go.
	heartbeatRetry = 20 * time.Millisecond
	// heartbeatTimeout is how long the controller may take to answer one.
	heartbeatTimeout = time.Second
	// probeTimeout bounds a connection attempt of the controller to a broker that went silent.
	probeTimeout = 500 * time.Millisecond
	// probePause lies between two attempts of it, where the broker ends the connections that it takes.
	probePause = 10 * time.Millisecond
	// A broker that stops waits so long until raft's leadership, and then its own leaderships, have moved, until the requests that
	// it has read are answered, and then, without any leadership, until those that asked others are: less than ten seconds in all,
	// whatever the others do (contract.md).
	handOverTimeout = 1500 * time.Millisecond
	leaveTimeout    = 2500 * time.Millisecond
	drainTimeout    = 2 * time.Second
	cutOffTimeout   = time.Second
)

func (b *Broker) id() base.BrokerID { return base.BrokerID(b.cfg.NodeID) }

// startController runs a controller, which acts while this broker's etcd member is raft's leader.
func (b *Broker) startController(context.Context) (err error) {
	leading := make(chan bool, 1)
	b.roles = service.NewGroup(context.Background())
	b.roles.Go(func(ctx context.Context) { followLeadership(ctx, b.quorum.Leadership, leading) })
	b.controller, err = run.New(run.Options{
		Store: b.meta, Leadership: leading, Probe: b.probe, HotBytes: b.hotBytes, SessionTimeout: b.brokerSetting("broker.session.timeout.ms"),
		Clock: b.seams.Clock, Logger: b.log, Meter: b.telemetry.Meter,
	})
	if err != nil {
		b.roles.Stop()
	}
	return err
}

func (b *Broker) stopController(context.Context) error {
	b.controller.Close()
	b.roles.Stop()
	return nil
}

// followLeadership keeps the newest value in a channel of capacity 1.
func followLeadership(ctx context.Context, look func() (bool, <-chan struct{}), out chan bool) {
	for {
		leading, changed := look()
		select {
		case <-out:
		default:
		}
		out <- leading // there is room: nobody else writes
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// brokerSetting is a setting in milliseconds.
func (b *Broker) brokerSetting(name string) time.Duration {
	v, _ := b.meta.Image().Broker().Get(name)
	ms, _ := strconv.ParseInt(v, 10, 64) // metadata has checked it
	return time.Duration(ms) * time.Millisecond
}

// probe looks whether a broker's process is there. One that dies may close the connection of its heartbeats before its listener:
// a connection that it takes is held, and where it ends, the next attempt tells.
func (b *Broker) probe(ctx context.Context, other metadata.Broker) controller.ProbeResult {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	for {
		conn, err := b.seams.Dial(ctx, "tcp", addressOf(other))
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			return controller.ProbeRefused
		case err != nil:
			<-ctx.Done() // the next probe comes as soon as this one ends
			return controller.ProbeNoAnswer
		}
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		_, err = conn.Read(make([]byte, 1)) // nobody speaks first
		stop()
		_ = conn.Close()
		if err == nil || !sleep(ctx, b.seams.Clock, nil, probePause) {
			return controller.ProbeAccepted
		}
	}
}

func addressOf(b metadata.Broker) string { return net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))) }

// dialBroker connects to another broker.
func (b *Broker) dialBroker(ctx context.Context, id base.BrokerID) (net.Conn, error) {
	other, ok := b.meta.Image().BrokerByID(id)
	if !ok {
		return nil, fmt.Errorf("dial broker %d: %w", id, kerr.BrokerIDNotRegistered)
	}
	return b.seams.Dial(ctx, "tcp", addressOf(other))
}

// askOnce asks another broker, this one too, over a connection of its own, which holds up no heartbeat.
func (b *Broker) askOnce(ctx context.Context, other metadata.Broker, client string, timeout time.Duration, ask func(*kafka.Peer, time.Time) error) error {
	deadline := b.seams.Clock.Now().Add(timeout)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := b.seams.Dial(ctx, "tcp", addressOf(other))
	if err != nil {
		return fmt.Errorf("dial %s: %w", addressOf(other), err)
	}
	peer := kafka.NewPeer(conn, fmt.Sprintf("%s-%d", client, b.cfg.NodeID))
	defer peer.Close()
	defer context.AfterFunc(ctx, peer.Close)()
	return ask(peer, deadline)
}

// controllerSeam shows the controller to package kafka.
type controllerSeam struct{ *run.Controller }

func (c controllerSeam) Heartbeat(h controller.Heartbeat) (fenced, mayStop bool, err error) {
	a, err := c.Controller.Heartbeat(h)
	return a.Fenced, a.MayStop, err
}

// startMembership begins to send heartbeats and returns once the controller lets this broker serve.
func (b *Broker) startMembership(ctx context.Context) error {
	b.member = &membership{
		b: b, clock: b.seams.Clock, group: service.NewGroup(context.Background()),
		mayStop: make(chan struct{}),
	}
	b.meta.Subscribe(b.watchMembership)
	serves := make(chan struct{})
	b.member.group.Go(func(ctx context.Context) { b.member.run(ctx, serves) })
	select {
	case <-serves:
	case <-ctx.Done():
		b.member.group.Stop()
		return fmt.Errorf("wait for the controller: %w", ctx.Err())
	}
	b.serving.Store(true)
	return nil
}

// watchMembership makes the next heartbeat come at once where there is another controller, or this broker's registration changed.
func (b *Broker) watchMembership(old, image *metadata.Image) {
	me, ok := image.BrokerByID(b.id())
	if !ok || me.Epoch != b.epoch {
		b.fail(fmt.Errorf("another process has registered as broker %d: every broker needs a --node-id of its own", b.cfg.NodeID))
	}
	if old != nil {
		was, _ := old.BrokerByID(b.id())
		if old.Controller() == image.Controller() && was.Fenced == me.Fenced {
			return
		}
	}
	b.beatSoon()
}

// stopMembership hands over what this broker is for the others, then its leaderships, where there is somebody to take them.
func (b *Broker) stopMembership(ctx context.Context) error {
	if len(b.meta.Image().Brokers()) > 1 {
		b.handOverController(ctx)
		b.member.leave(ctx)
	}
	b.member.group.Stop()
	return nil
}

// handOverController makes another voter raft's leader, which makes its broker the controller.
func (b *Broker) handOverController(ctx context.Context) {
	if leading, _ := b.quorum.Leadership(); !leading {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverTimeout)
	defer cancel()
	if err := b.quorum.GiveLeadership(ctx); err != nil {
		b.log.Warn("the controller could not be handed over: the others elect one", slog.Any("err", err))
	}
}

// spaceChanged is called when the data disk got full, or has room again.
func (b *Broker) spaceChanged() {
	b.beatSoon()
	if b.cached.Load() {
		b.cache.SetFull(b.hot.Full())
	}
}

// beatSoon makes the next heartbeat due.
func (b *Broker) beatSoon() {
	select {
	case b.beatNow <- struct{}{}:
	default:
	}
}

// membership sends this broker's heartbeats to whoever is the controller (KIP-631).
type membership struct {
	b       *Broker
	clock   clock.Clock
	group   *service.Group
	leaving atomic.Bool   // the broker stops
	mayStop chan struct{} // closed when nobody is left who could take a leadership of this broker

	// Of run alone.
	peer       *kafka.Peer
	controller base.BrokerID // that peer is
}

// leave asks the controller to move this broker's leaderships, and waits until that is done.
func (m *membership) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	m.leaving.Store(true)
	m.b.beatSoon()
	select {
	case <-m.mayStop:
	case <-ctx.Done():
		m.b.log.Warn("this broker stops before all its leaderships have moved")
	}
}

// run closes serves when this broker is not fenced any more, or never was.
func (m *membership) run(ctx context.Context, serves chan struct{}) {
	defer m.disconnect()
	interval := m.b.brokerSetting("broker.heartbeat.interval.ms")
	failing := false
	for {
		fenced, mayStop, err := m.beat(ctx)
		pause := interval
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if !failing && !errors.Is(err, kerr.NotController) {
				m.b.log.Warn("heartbeat failed", slog.Any("err", err))
			}
			pause = heartbeatRetry
		case m.leaving.Load():
			if pause = heartbeatRetry; mayStop {
				m.mayStop, pause = closed(m.mayStop), interval
			}
		case fenced:
			pause = heartbeatRetry
		}
		failing = err != nil
		if me, _ := m.b.meta.Image().BrokerByID(m.b.id()); !me.Fenced && serves != nil {
			close(serves)
			serves = nil
		}
		if !sleep(ctx, m.clock, m.b.beatNow, pause) {
			return
		}
	}
}

// closed closes a channel once.
func closed(c chan struct{}) chan struct{} {
	select {
	case <-c:
	default:
		close(c)
	}
	return c
}

// sleep waits for d or for wake; it is false where ctx ended.
func sleep(ctx context.Context, c clock.Clock, wake <-chan struct{}, d time.Duration) bool {
	timer := c.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-wake:
	case <-timer.C:
	}
	return true
}

// beat sends one heartbeat.
func (m *membership) beat(ctx context.Context) (fenced, mayStop bool, err error) {
	target := m.b.meta.Image().Controller()
	heartbeat := controller.Heartbeat{ID: m.b.id(), Epoch: m.b.epoch, Leaving: m.leaving.Load(), Full: m.b.hot.Full()}
	if target == m.b.id() {
		m.disconnect()
		a, err := m.b.controller.Heartbeat(heartbeat)
		return a.Fenced, a.MayStop, err
	}
	if m.peer != nil && m.controller != target {
		m.disconnect()
	}
	ctx, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	if m.peer == nil {
		conn, err := m.b.dialBroker(ctx, target)
		if err != nil {
			return false, false, err
		}
		m.peer, m.controller = kafka.NewPeer(conn, fmt.Sprintf("heartbeat-%d", m.b.cfg.NodeID)), target
	}
	defer context.AfterFunc(ctx, m.peer.Close)()
	fenced, mayStop, err = m.peer.Heartbeat(heartbeat, m.clock.Now().Add(heartbeatTimeout))
	var refused *kerr.Error
	if err != nil && !errors.As(err, &refused) {
		m.disconnect()
	}
	return fenced, mayStop, err
}

func (m *membership) disconnect() {
	if m.peer != nil {
		m.peer.Close()
		m.peer = nil
	}
}
