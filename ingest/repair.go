package ingest

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
)

// repairRetry is how long a damaged partition waits whose report could not be written.
const repairRetry = time.Second

// repairs takes damaged replicas out of their ISRs, so that others lead and this broker fetches them anew (I14). A partition that
// no other replica has stays out of service.
type repairs struct {
	g    *Ingest
	wake chan struct{} // capacity 1
	mu   struct {
		sync.Mutex
		queue map[base.LogID]base.TopicPartition
	}
}

func newRepairs(g *Ingest) *repairs {
	r := &repairs{g: g, wake: make(chan struct{}, 1)}
	r.mu.queue = map[base.LogID]base.TopicPartition{}
	return r
}

func (r *repairs) push(log base.LogID, tp base.TopicPartition) {
	r.mu.Lock()
	r.mu.queue[log] = tp
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *repairs) take() map[base.LogID]base.TopicPartition {
	r.mu.Lock()
	defer r.mu.Unlock()
	queue := r.mu.queue
	r.mu.queue = map[base.LogID]base.TopicPartition{}
	return queue
}

func (r *repairs) run(ctx context.Context) {
	for {
		again := false
		for log, tp := range r.take() {
			err := r.g.opts.Meta.ReportDamage(ctx, tp, log)
			switch {
			case err == nil:
				r.g.log.Info("a damaged replica left the ISR", slog.String("partition", tp.String()))
			case errors.Is(err, kerr.EligibleLeadersNotAvailable), errors.Is(err, kerr.UnknownTopicOrPartition):
				r.g.log.Error("a damaged partition has no other replica in sync", slog.String("partition", tp.String()), slog.Any("err", err))
			default:
				again = true
				r.push(log, tp)
			}
		}
		if again {
			if !r.g.sleep(ctx, nil, repairRetry) {
				return
			}
			continue
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
	}
}

// damagedBeside reports whether the partition is damaged here and nobody counts on it: it may be dropped and fetched anew.
func (p *Partition) damagedBeside(state *metadata.Partition, self base.BrokerID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.damaged && !slices.Contains(state.ISR, self) && !slices.Contains(state.ELR, self)
}

func (p *Partition) isDamaged() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.damaged
}
