package fetch

import (
	"context"
	"sync"

	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// coldJob is one partition's cold read.
type coldJob struct {
	i       int // index of the partition in the request
	batches []record.Batch
	err     error
}

// readCold reads all cold partitions of a Fetch in parallel, each with an equal share of the budget.
func (s *Service) readCold(ctx context.Context, r *Request, jobs []coldJob, parts []*ingest.Partition, budget int) {
	if len(jobs) == 0 {
		return
	}
	share := budget / len(jobs)
	if len(jobs) == 1 {
		s.runCold(ctx, r, &jobs[0], parts, share)
		return
	}
	var wg sync.WaitGroup
	for k := range jobs {
		wg.Go(func() { s.runCold(ctx, r, &jobs[k], parts, share) })
	}
	wg.Wait()
}

func (s *Service) runCold(ctx context.Context, r *Request, j *coldJob, parts []*ingest.Partition, share int) {
	pr := &r.Partitions[j.i]
	j.batches, j.err = s.coldRead(ctx, parts[j.i].Log(), pr.Offset, min(share, int(pr.MaxBytes)))
}

// coldRead reads from the bucket under the budget of cold reads (I12), for at most remote.fetch.max.wait.ms: then the
// client is answered without these bytes while their download goes on into the cache.
func (s *Service) coldRead(ctx context.Context, log base.LogID, from base.Offset, maxBytes int) ([]record.Batch, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.ColdWait())
	defer cancel()
	select {
	case s.cold <- struct{}{}:
		defer func() { <-s.cold }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	bs, err := s.opts.Cold.Read(ctx, log, from, maxBytes)
	return bs, s.coldError(log, err)
}
