package runtime

import (
	"context"
	"log/slog"
	"time"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// load waits for the shard's predecessor to let go of the log and replays the partition. A replay that fails is tried
// again after a pause: the partition stays COORDINATOR_LOAD_IN_PROGRESS, which clients retry, and nothing is skipped. It
// reports false when the shard was stopped meanwhile.
func (s *shard[M]) load() bool {
	ctx := s.ctx
	start := s.rt.opts.Clock.Now()
	if s.before != nil {
		select {
		case <-s.before.drained:
			s.before = nil // and may be forgotten
		case <-ctx.Done():
			return false
		}
	}
	for {
		m := s.rt.opts.NewMachine(s.partition)
		records, err := s.replay(ctx, m)
		if err == nil {
			s.machine = m
			took := s.rt.opts.Clock.Now().Sub(start)
			s.rt.inst.replay.Record(ctx, took.Seconds(), s.rt.inst.attrs)
			s.log.Info("coordinator shard loaded", slog.Int64("records", records), slog.Duration("took", took))
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		s.log.Error("coordinator shard replay", slog.Any("error", err), slog.Bool("corruption", base.IsCorruption(err)))
		if !s.pause(ctx, s.rt.opts.ReloadBackoff) {
			return false
		}
	}
}

func (s *shard[M]) replay(ctx context.Context, m M) (records int64, err error) {
	err = s.rt.opts.Log.Replay(ctx, s.partition, func(b record.Batch) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		records += int64(b.Count())
		return m.Replay(b)
	})
	return records, err
}

func (s *shard[M]) pause(ctx context.Context, d time.Duration) bool {
	t := s.rt.opts.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
