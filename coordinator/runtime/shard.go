package runtime

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/record"
)

// gatherRequests bounds how many waiting requests are taken before the batch they made is handed to the log.
const gatherRequests = 256

// shard is one partition's coordinator in one epoch. It lives from Lead to Resign (or to the next Lead) and never comes
// back: a new epoch is a new shard. All fields below the first group belong to its goroutine.
type shard[M Machine] struct {
	rt        *Runtime[M]
	partition int32
	epoch     base.LeaderEpoch
	log       *slog.Logger
	mailbox   chan func(M, *Effects)
	loaded    chan struct{}      // closed when the log is replayed: requests are taken
	ctx       context.Context    // ends with stop: nobody is answered any more
	stop      context.CancelFunc // may be called from any goroutine, more than once
	drained   chan struct{}      // closed by the goroutine: no append of this shard or of those before it is in flight

	before  *shard[M] // the predecessor, until it is drained
	machine M
	timers  *timers
	pipe    pipeline
	settled chan error // one slot: one append is in flight
	alarm   *clock.Timer
	alarmAt time.Time
}

func newShard[M Machine](r *Runtime[M], partition int32, epoch base.LeaderEpoch, before *shard[M]) *shard[M] {
	ctx, cancel := context.WithCancel(r.group.Context())
	return &shard[M]{
		rt: r, ctx: ctx, stop: cancel, partition: partition, epoch: epoch, before: before,
		log: r.opts.Logger.With(slog.String("coordinator", r.opts.Name), slog.Int("partition", int(partition)),
			slog.Int("epoch", int(epoch))),
		mailbox: make(chan func(M, *Effects), r.opts.MailboxRequests),
		loaded:  make(chan struct{}),
		drained: make(chan struct{}),
		timers:  newTimers(),
		pipe:    pipeline{maxBatch: r.opts.MaxBatchBytes},
		settled: make(chan error, 1),
	}
}

func (s *shard[M]) stopped() bool { return s.ctx.Err() != nil }

// run is the shard's goroutine. The context of its group is the parent of the shard's own.
func (s *shard[M]) run(context.Context) {
	defer close(s.drained)
	defer s.stop()
	s.rt.inst.add(s.rt.inst.shards, 1)
	defer s.rt.inst.add(s.rt.inst.shards, -1)
	if s.load() {
		s.step(s.machine.Loaded)
		close(s.loaded)
		s.serve()
	}
	if s.alarm != nil {
		s.alarm.Stop()
	}
	s.drain()
	s.release()
}

// release lets go of what the shard held: the shard itself stays on the map until its partition is led again.
func (s *shard[M]) release() {
	var none M
	s.machine, s.timers, s.pipe, s.before = none, nil, pipeline{}, nil
}

// drain waits for the append that is in flight: only then does a successor's replay see all that this shard wrote.
func (s *shard[M]) drain() {
	s.rt.inst.add(s.rt.inst.pending, -int64(s.pipe.bytes))
	if s.before != nil { // stopped before it was loaded
		select {
		case <-s.before.drained:
		case <-s.rt.group.Context().Done():
		}
	}
	if s.pipe.inflight == nil {
		return
	}
	select {
	case <-s.settled:
	case <-s.rt.group.Context().Done():
	}
}

// serve takes steps until the shard is stopped.
func (s *shard[M]) serve() {
	for {
		s.flush()
		s.setAlarm()
		mailbox, alarm := s.mailbox, (<-chan time.Time)(nil)
		if s.alarm != nil {
			alarm = s.alarm.C
		}
		if s.pipe.bytes >= s.rt.opts.MaxPendingBytes {
			// The log is slow: take no request, and let no session expire whose heartbeat waits in the mailbox.
			mailbox, alarm = nil, nil
		}
		select {
		case <-s.ctx.Done():
			return
		case err := <-s.settled:
			if !s.settle(err) {
				return
			}
		case call := <-mailbox:
			s.step(func(fx *Effects) { call(s.machine, fx) })
			s.gather(gatherRequests)
		case <-alarm:
			s.alarm = nil
			// What has arrived goes first: a heartbeat that waits in the mailbox keeps its session.
			s.gather(len(s.mailbox))
			s.fire()
		}
	}
}

// gather takes the steps of up to n requests that wait already.
func (s *shard[M]) gather(n int) {
	for range n {
		select {
		case call := <-s.mailbox:
			s.step(func(fx *Effects) { call(s.machine, fx) })
		default:
			return
		}
	}
}

// fire takes a step for each timer that is due. Timers that those steps set wait for the next round, so that one which sets
// itself anew without delay cannot keep the shard from its mailbox.
func (s *shard[M]) fire() {
	now := s.rt.opts.Clock.Now()
	for range s.timers.len() {
		e := s.timers.due(now)
		if e == nil {
			return
		}
		s.step(e.fire)
	}
}

// setAlarm sees to it that the clock wakes the shard no later than the earliest timer is due. An alarm that is too early is
// left alone: heartbeats move deadlines all the time and mostly away from now.
func (s *shard[M]) setAlarm() {
	at, ok := s.timers.next()
	if !ok || (s.alarm != nil && !at.Before(s.alarmAt)) {
		return
	}
	if s.alarm != nil {
		s.alarm.Stop()
	}
	s.alarm = s.rt.opts.Clock.NewTimer(max(0, at.Sub(s.rt.opts.Clock.Now())))
	s.alarmAt = at
}

// step runs one step of the machine and carries out its effects.
func (s *shard[M]) step(f func(*Effects)) {
	fx := &Effects{Now: s.rt.opts.Clock.Now()}
	f(fx)
	s.carryOut(fx)
}

func (s *shard[M]) carryOut(fx *Effects) {
	for _, op := range fx.timers {
		s.timers.apply(op, fx.Now)
	}
	for _, a := range fx.now {
		a.Promise.resolve(a.Value, nil)
	}
	switch {
	case len(fx.records) > 0:
		before := s.pipe.bytes
		s.pipe.add(fx)
		s.rt.inst.add(s.rt.inst.pending, int64(s.pipe.bytes-before))
	case s.pipe.idle():
		for _, f := range fx.settled {
			s.step(func(next *Effects) { f(next, nil) })
		}
		for _, a := range fx.parked {
			a.Promise.resolve(a.Value, nil)
		}
	default:
		b := s.pipe.last()
		b.undo = append(b.undo, fx.undo...)
		b.settled = append(b.settled, fx.settled...)
		b.parked = append(b.parked, fx.parked...)
	}
}

// flush hands the gathered batch to the log if none is in flight.
func (s *shard[M]) flush() {
	b := s.pipe.take()
	if b == nil {
		return
	}
	batch, err := b.build(s.rt.opts.Codec)
	if err != nil {
		s.settled <- err
		return
	}
	batch.SetLeaderEpoch(s.epoch)
	s.rt.inst.count(s.rt.inst.appends, 1)
	s.rt.inst.count(s.rt.inst.records, int64(len(b.records)))
	s.rt.opts.Log.Append(s.partition, batch, func(_ base.Offset, err error) { s.settled <- err })
}

// settle ends the flight of a batch. It reports false where the shard gave up its state to be loaded again.
func (s *shard[M]) settle(err error) bool {
	if err == nil {
		b := s.pipe.committed()
		s.rt.inst.add(s.rt.inst.pending, -int64(b.bytes))
		s.finish(b, nil)
		return true
	}
	s.log.Warn("coordinator append lost", slog.Any("error", err))
	s.rt.inst.count(s.rt.inst.failures, 1)
	s.rt.inst.add(s.rt.inst.pending, -int64(s.pipe.bytes))
	lost := s.pipe.lost()
	if isNotLeader(err) {
		for _, b := range lost {
			for _, a := range b.parked {
				a.Promise.resolve(nil, err)
			}
		}
		s.rt.reload(s)
		return false
	}
	for i := len(lost) - 1; i >= 0; i-- {
		for j := len(lost[i].undo) - 1; j >= 0; j-- {
			lost[i].undo[j]()
		}
	}
	for _, b := range lost {
		s.finish(b, err)
	}
	return true
}

// finish runs what hung on a batch and releases the callers.
func (s *shard[M]) finish(b *pending, err error) {
	for _, f := range b.settled {
		s.step(func(fx *Effects) { f(fx, err) })
	}
	for _, a := range b.parked {
		if err != nil {
			a.Promise.resolve(nil, err)
		} else {
			a.Promise.resolve(a.Value, nil)
		}
	}
}

func isNotLeader(err error) bool {
	return errors.Is(err, kerr.NotLeaderForPartition) || errors.Is(err, kerr.FencedLeaderEpoch) ||
		errors.Is(err, kerr.UnknownLeaderEpoch)
}

func offsetAt(i int) base.Offset { return base.Offset(i) }

func buildHeader(codec record.Codec) record.BuildHeader {
	return record.BuildHeader{Codec: codec, ProducerID: base.NoProducerID, ProducerEpoch: -1, BaseSequence: -1,
		LeaderEpoch: base.NoLeaderEpoch}
}
