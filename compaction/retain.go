package compaction

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/tiering/manifest"
)

// Standing is a led partition as its owner knows it.
type Standing struct {
	LogStart      base.Offset
	HighWatermark base.Offset
	UntieredBytes int64 // hot bytes above the tiered end
}

// Owner is the write path of the partitions that this broker leads; package broker hands in ingest.
type Owner interface {
	// Standing answers from memory; an error means that this broker does not serve the partition now.
	Standing(tp base.TopicPartition) (Standing, error)
	// AdvanceLogStart moves the log start offset up; it is durable when it returns.
	AdvanceLogStart(ctx context.Context, log base.LogID, to base.Offset) error
}

// dropsPerCommit is how many manifests one retention commit writes.
const dropsPerCommit = 500

// retain applies retention to all partitions that this broker leads. What goes wrong with one does not keep the others.
func (r *Runner) retain(ctx context.Context) error {
	if r.o.Owner == nil {
		return nil
	}
	var errs []error
	drops := map[base.LogID]base.Offset{}
	flush := func() {
		if len(drops) > 0 {
			errs = append(errs, r.o.Tiering.DropMany(ctx, drops))
		}
		drops = map[base.LogID]base.Offset{}
	}
	for _, topic := range r.o.Meta.Image().Topics() {
		for i := range topic.Partitions {
			p := &topic.Partitions[i]
			if p.Leader != r.o.BrokerID || ctx.Err() != nil {
				continue
			}
			start, drop, err := r.retainPartition(ctx, p)
			if err != nil {
				errs = append(errs, fmt.Errorf("retention of %s: %w", p.TP, err))
			} else if drop {
				drops[p.Log] = start
			}
			if len(drops) >= dropsPerCommit {
				flush()
			}
		}
	}
	flush()
	return errors.Join(errs...)
}

// config is what holds for a log now: a pass over many partitions takes a while, and who made a topic keep more was
// answered. Nil where the log is gone.
func (r *Runner) config(log base.LogID) *metadata.TopicConfig {
	_, topic, ok := r.o.Meta.Image().Log(log)
	if !ok {
		return nil
	}
	return topic.Config
}

// retainPartition plans one partition and moves its log start; drop says that the manifest is to follow.
func (r *Runner) retainPartition(ctx context.Context, p *metadata.Partition) (start base.Offset, drop bool, err error) {
	bounds, ok := r.o.Tiering.Reader().Bounds(p.Log)
	cfg := r.config(p.Log)
	if !ok || cfg == nil {
		return 0, false, nil
	}
	st, err := r.o.Owner.Standing(p.TP)
	if err != nil {
		return 0, false, nil // it will be its leader's turn
	}
	to := st.LogStart
	if bounds.Bytes > 0 && r.due(p.Log, cfg, bounds.Bytes+st.UntieredBytes) {
		plan := Retention{Config: cfg, NowMs: r.o.Clock.Now().UnixMilli(), LogStart: st.LogStart, HighWatermark: st.HighWatermark, TieredBytes: bounds.Bytes, UntieredBytes: st.UntieredBytes}
		plan.Segments = func(yield func(Segment) bool) error {
			return r.o.Tiering.Entries(ctx, p.Log, func(e manifest.Entry) bool {
				return yield(Segment{End: e.End, Bytes: e.Len, MaxTimestamp: e.MaxTimestamp})
			})
		}
		if to, err = plan.Plan(); err != nil {
			return 0, false, err
		}
	}
	if to > st.LogStart && r.config(p.Log) != cfg {
		to = st.LogStart // planned for another configuration: the next check plans anew
	}
	if to > st.LogStart {
		if err := r.o.Owner.AdvanceLogStart(ctx, p.Log, to); err != nil {
			return 0, false, fmt.Errorf("advance log start to %d: %w", to, err)
		}
		r.o.Logger.Info("retention moved the log start", slog.String("partition", p.TP.String()), slog.Int64("from", int64(st.LogStart)), slog.Int64("to", int64(to)))
	}
	return to, to > bounds.Start, nil
}

// due reports whether retention could take anything, from memory: ten thousand partitions are looked at every few minutes.
func (r *Runner) due(log base.LogID, cfg *metadata.TopicConfig, totalBytes int64) bool {
	if !cfg.Delete {
		return false
	}
	if cfg.RetentionBytes >= 0 && totalBytes > cfg.RetentionBytes {
		return true
	}
	if cfg.RetentionMs < 0 {
		return false
	}
	oldest, known := r.o.Tiering.OldestTimestamp(log)
	return !known || r.o.Clock.Now().UnixMilli()-oldest > cfg.RetentionMs
}
