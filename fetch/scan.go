package fetch

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// scanBytes is how much one step of a Scan reads.
const scanBytes = 1 << 20

// Scan yields every committed batch of a partition from its log start offset to the high watermark of the call's start, in
// order, from whichever tier has it. Coordinators replay their logs with it.
func (s *Service) Scan(ctx context.Context, tp base.TopicPartition, emit func(record.Batch) error) error {
	p, err := s.opts.Ingest.Partition(tp)
	if err != nil {
		return err
	}
	v, err := p.View()
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
