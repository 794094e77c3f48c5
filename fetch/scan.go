package fetch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// scanBytes is how much one step of a Scan reads.
const scanBytes = 1 << 20

// scanRetry is how soon a Scan looks again whether ingest has seen the image that makes this broker the leader.
const scanRetry = 5 * time.Millisecond

// Scan yields every committed batch of a partition from its log start offset to the high watermark, in order, from whichever
// tier has it. Coordinators replay their logs with it: it begins when the high watermark covers what earlier leaders may have
// acknowledged (I15), which takes the followers' first fetches, in the leader epoch of the image, or a later one.
func (s *Service) Scan(ctx context.Context, tp base.TopicPartition, emit func(record.Batch) error) error {
	p, v, err := s.awaitReadable(ctx, tp)
	if err != nil {
		return err
	}
	end := v.HighWatermark
	for from := v.LogStart; from < end; {
		if v, err = p.View(); err != nil {
			return err
		}
		from = max(from, v.LogStart)
		var bs []record.Batch
		if from >= v.Served {
			bs, err = p.ReadHot(from, end, scanBytes)
			if errors.Is(err, kerr.OffsetOutOfRange) && ctx.Err() == nil {
				continue // trimmed since the look: it is cold now (I5)
			}
		} else {
			bs, err = s.opts.Cold.Read(ctx, p.Log(), from, scanBytes)
		}
		if err != nil {
			return fmt.Errorf("scan %s at %d: %w", tp, from, err)
		}
		for _, b := range bs {
			if b.NextOffset() > end {
				return nil
			}
			if err := emit(b); err != nil {
				return err
			}
		}
		from = bs[len(bs)-1].NextOffset()
	}
	return nil
}

// awaitReadable waits until this broker leads the partition and its high watermark is readable; kerr.NotLeaderForPartition where
// the image has another leader.
func (s *Service) awaitReadable(ctx context.Context, tp base.TopicPartition) (*ingest.Partition, ingest.View, error) {
	waiter := ingest.NewWaiter()
	for {
		p, err := s.opts.Ingest.Partition(tp)
		if err != nil {
			return nil, ingest.View{}, err
		}
		p.Watch(waiter)
		v, err := p.View()
		// NB: ingest may not have seen the image that whoever scans goes by: it may still lead in an earlier epoch.
		state, _ := s.opts.Meta.Image().Partition(tp)
		if err == nil && v.Readable && state != nil && v.Epoch >= state.LeaderEpoch {
			p.Unwatch(waiter)
			return p, v, nil
		}
		if err != nil && !errors.Is(err, kerr.NotLeaderForPartition) {
			p.Unwatch(waiter)
			return nil, v, err
		}
		retry := s.opts.Clock.NewTimer(scanRetry)
		select {
		case <-waiter.C:
		case <-retry.C:
		case <-ctx.Done():
			err = ctx.Err()
		}
		retry.Stop()
		p.Unwatch(waiter)
		if ctx.Err() != nil {
			return nil, v, fmt.Errorf("scan %s: %w", tp, err)
		}
	}
}
