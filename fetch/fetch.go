package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/internal/loglimit"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/record"
	"github.com/varvelog/varve/tiering"
)

// Cold reads tiered ranges; *tiering.Reader satisfies it.
type Cold interface {
	Read(ctx context.Context, log base.LogID, from base.Offset, maxBytes int) ([]record.Batch, error)
	OffsetForTime(ctx context.Context, log base.LogID, ts int64, from base.Offset) (off base.Offset, timestamp int64, ok bool, err error)
	MaxTimestamp(ctx context.Context, log base.LogID) (off base.Offset, timestamp int64, ok bool, err error)
	Aborted(ctx context.Context, log base.LogID, from, to base.Offset) ([]tiering.AbortedTxn, error)
}

// Options configures a Service. Ingest, Meta and Cold are required.
type Options struct {
	Ingest *ingest.Ingest
	Meta   *metadata.Store
	Cold   Cold
	// ColdReads bounds the cold reads that are under way, of all clients together. Default 64.
	ColdReads int
	// ColdLookups bounds the look-ups by time in the bucket that are under way. Default 8.
	ColdLookups int
	// ColdLookupWait is how long a ListOffsets waits for the bucket (Kafka: remote.list.offsets.request.timeout.ms).
	// Default 30 s.
	ColdLookupWait time.Duration
	// ColdWait is how long a Fetch waits for the bucket (remote.fetch.max.wait.ms). Default 500 ms.
	ColdWait func() time.Duration
	// RackAware sends consumers to a replica in their rack (replica.selector.class). Default: never.
	RackAware func() bool
	// MaxBytes bounds one answer whatever the client asks (fetch.max.bytes). Default 57671680.
	MaxBytes func() int32
	Clock    clock.Clock
	Logger   *slog.Logger
	Meter    metric.Meter // default: none
}

// Service reads partitions of this broker over both tiers. Safe for concurrent use.
type Service struct {
	opts    Options
	cold    chan struct{} // a token per cold read
	lookups chan struct{} // a token per look-up by time

	followers followers

	failures              metric.Int64Counter // cold reads by cause
	loudMissing, loudElse loglimit.Limit
}

// New returns a Service.
func New(opts Options) *Service {
	if opts.ColdReads == 0 {
		opts.ColdReads = 64
	}
	if opts.ColdLookups == 0 {
		opts.ColdLookups = 8
	}
	if opts.ColdLookupWait == 0 {
		opts.ColdLookupWait = 30 * time.Second
	}
	if opts.ColdWait == nil {
		opts.ColdWait = func() time.Duration { return 500 * time.Millisecond }
	}
	if opts.MaxBytes == nil {
		opts.MaxBytes = func() int32 { return 57671680 }
	}
	if opts.RackAware == nil {
		opts.RackAware = func() bool { return false }
	}
	if opts.Clock == nil {
		opts.Clock = clock.Real{}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Meter == nil {
		opts.Meter = noop.Meter{}
	}
	return &Service{
		opts: opts, cold: make(chan struct{}, opts.ColdReads), lookups: make(chan struct{}, opts.ColdLookups),
		failures: newFailures(opts.Meter, opts.Logger),
		// Clients ask again at once, and the metric counts all.
		loudMissing: loglimit.Limit{PerSecond: 1}, loudElse: loglimit.Limit{PerSecond: 1},
	}
}

// Memory is the budget of what a Fetch reads (I10).
type Memory interface {
	// Reserve takes room for bytes, in place of what the Fetch has; it returns how many may be read, 0 for a batch.
	Reserve(bytes int) int
	// Keep says how many were read: the Fetch has that much from then on, be it more than was reserved.
	Keep(bytes int)
}

// PartitionRequest is one partition of a Fetch.
type PartitionRequest struct {
	TP               base.TopicPartition
	TopicID          base.TopicID // not zero (v13+): must match the topic's current id, else kerr.UnknownTopicID
	Offset           base.Offset
	MaxBytes         int32
	CurrentEpoch     base.LeaderEpoch // -1: unknown
	LastFetchedEpoch base.LeaderEpoch // -1: unknown
	Err              error            // already decided by the caller (an unknown topic id of a session)
}

// Request is a Fetch of full partitions (sessions are resolved before).
type Request struct {
	MaxWaitMs     int32
	MinBytes      int32
	MaxBytes      int32
	ReadCommitted bool
	Follower      bool   // also partitions that this broker follows (KIP-392, Fetch >= 11)
	Rack          string // of the consumer: with Options.RackAware it is sent to the replica there
	NoZstd        bool   // Fetch < 10: a zstd batch gives kerr.UnsupportedCompressionType
	Memory        Memory // nil: there is room for MaxBytes
	Partitions    []PartitionRequest
}

// PartitionResponse answers one PartitionRequest. Offsets are -1 with an error.
type PartitionResponse struct {
	Err           error
	HighWatermark base.Offset
	LastStable    base.Offset
	LogStart      base.Offset
	Batches       []record.Batch // share memory with the tail or the cache: not to be modified
	Bytes         int
	Diverging     *base.EpochStart // KIP-595: epoch and end offset
	Aborted       []AbortedTxn     // for ReadCommitted never nil
	Preferred     base.BrokerID    // the replica to read from instead, -1 for none (KIP-392)
}

// AbortedTxn is an entry of a read-committed answer.
type AbortedTxn struct {
	ProducerID  base.ProducerID
	FirstOffset base.Offset
}

// Fetch answers in the order of the request's partitions. It waits up to MaxWaitMs for MinBytes, as Kafka's DelayedFetch
// does, and blocks the caller meanwhile; ctx ends the wait early. Where Memory has no room for MinBytes it waits for one.
func (s *Service) Fetch(ctx context.Context, r *Request) []PartitionResponse {
	deadline := s.opts.Clock.Now().Add(time.Duration(max(r.MaxWaitMs, 0)) * time.Millisecond)
	w := s.newWait(r)
	defer w.close()
	for {
		out, enough := s.read(ctx, r)
		if enough || !w.sleep(ctx, deadline) {
			s.confirm(ctx, r, out)
			return out
		}
	}
}

// confirm makes sure of what would make a client reset.
func (s *Service) confirm(ctx context.Context, r *Request, out []PartitionResponse) {
	for i := range out {
		if out[i].Diverging == nil && !errors.Is(out[i].Err, kerr.OffsetOutOfRange) {
			continue
		}
		p, err := s.opts.Ingest.Served(r.Partitions[i].TP, r.Partitions[i].TopicID, r.Follower)
		if err == nil {
			err = p.Confirm(ctx)
		}
		if err != nil {
			out[i] = failed(err, &out[i])
		}
	}
}

// failed is the answer where nothing can be said of a partition.
func failed(err error, of *PartitionResponse) PartitionResponse {
	return PartitionResponse{Err: err, HighWatermark: -1, LastStable: -1, LogStart: -1, Preferred: -1, Aborted: of.Aborted}
}

// read makes one attempt; enough is set where there are MinBytes, or where waiting would not change the answer.
func (s *Service) read(ctx context.Context, r *Request) (out []PartitionResponse, enough bool) {
	out = make([]PartitionResponse, len(r.Partitions))
	bytes, want, final := 0, 0, false
	jobs := make([]coldJob, 0)
	parts := make([]*ingest.Partition, len(r.Partitions))
	plans := make([]plan, len(r.Partitions))
	for i := range r.Partitions {
		parts[i], plans[i] = s.look(r, &r.Partitions[i], &out[i])
		if plans[i].from == sourceCold {
			jobs = append(jobs, coldJob{i: i})
		}
		if plans[i].from != sourceNone {
			want += int(max(r.Partitions[i].MaxBytes, 0))
		}
		final = final || out[i].Err != nil || out[i].Diverging != nil || out[i].Preferred >= 0
	}
	budget, minBytes := s.reserve(r, want)
	s.readCold(ctx, r, jobs, parts, budget)
	final = final || len(jobs) > 0 // as Kafka's DelayedRemoteFetch: what the bucket gave, or did not give in time, is the answer
	next := 0
	for i := range r.Partitions {
		var bs []record.Batch
		var err error
		tier := ingest.TierCold
		switch plans[i].from {
		case sourceNone:
			continue
		case sourceHot:
			limit := min(int(r.Partitions[i].MaxBytes), budget-bytes)
			if limit <= 0 && bytes > 0 {
				continue
			}
			bs, tier, err = parts[i].ReadHotTier(r.Partitions[i].Offset, plans[i].upTo, limit)
			if errors.Is(err, kerr.OffsetOutOfRange) {
				// Trimmed since the plan was made: the manifest has it now (I5). The next attempt reads it there.
				bs, err = s.coldRead(ctx, parts[i].Log(), r.Partitions[i].Offset, limit)
				tier, final = ingest.TierCold, true
			}
		case sourceCold:
			bs, err = jobs[next].batches, jobs[next].err
			next++
		}
		n := s.fill(&out[i], r, i, bs, err, plans[i].upTo, budget-bytes, bytes == 0)
		s.opts.Ingest.CountFetched(tier, n)
		bytes += n
		final = final || out[i].Err != nil
	}
	if r.Memory != nil {
		r.Memory.Keep(bytes)
	}
	return out, final || bytes >= minBytes
}

// reserve returns how much of want may be read, and how many bytes are enough for an answer. What cannot come is not reserved: a
// Fetch that finds nothing has nothing of the memory while it waits, and a few large requests do not make all others small.
func (s *Service) reserve(r *Request, want int) (budget, minBytes int) {
	budget, minBytes = int(min(r.MaxBytes, s.opts.MaxBytes())), int(r.MinBytes)
	if r.Memory == nil {
		return budget, minBytes
	}
	want = min(want, max(budget, 0))
	if room := r.Memory.Reserve(want); room < want {
		budget = room
		if room < minBytes {
			minBytes = min(minBytes, 1)
		}
	}
	return budget, minBytes
}

// look finds the partition and plans its read; what needs no read is answered in out.
func (s *Service) look(req *Request, r *PartitionRequest, out *PartitionResponse) (*ingest.Partition, plan) {
	*out = PartitionResponse{Err: r.Err, HighWatermark: -1, LastStable: -1, LogStart: -1, Preferred: -1}
	if req.ReadCommitted {
		out.Aborted = []AbortedTxn{}
	}
	if out.Err != nil {
		return nil, plan{}
	}
	p, err := s.opts.Ingest.Served(r.TP, r.TopicID, req.Follower)
	var v ingest.View
	if err == nil {
		v, err = p.Serve(r.CurrentEpoch, req.Follower)
	}
	if err != nil {
		out.Err = err
		return nil, plan{}
	}
	pl := planPartition(v, r, req.ReadCommitted, p.EpochEnd)
	if pl.err != nil {
		out.Err = fmt.Errorf("fetch %s: %w", r.TP, pl.err)
		return nil, plan{}
	}
	out.HighWatermark, out.LastStable, out.LogStart, out.Diverging = v.HighWatermark, v.LastStable, v.LogStart, pl.diverging
	if req.Rack != "" && pl.diverging == nil && s.opts.RackAware() {
		if out.Preferred = p.Nearest(req.Rack, r.Offset); out.Preferred >= 0 {
			return p, plan{}
		}
	}
	return p, pl
}

// fill puts batches into the answer within what is left of the budget; the first partition with data may exceed it.
func (s *Service) fill(out *PartitionResponse, r *Request, i int, bs []record.Batch, err error, upTo base.Offset, left int, first bool) int {
	if err != nil {
		if isPatience(err) {
			return 0 // answered empty: the client asks again, and the read goes on into the cache
		}
		*out = failed(fmt.Errorf("fetch %s at %d: %w", r.Partitions[i].TP, r.Partitions[i].Offset, err), out)
		return 0
	}
	limit := min(int(r.Partitions[i].MaxBytes), left)
	for _, b := range bs {
		if b.NextOffset() > upTo || out.Bytes+len(b) > limit && !(first && out.Bytes == 0) {
			break
		}
		if r.NoZstd && b.Codec() == record.CodecZstd {
			if out.Bytes > 0 {
				break // what lies before it can be read
			}
			*out = failed(fmt.Errorf("fetch %s: zstd needs fetch version 10: %w", r.Partitions[i].TP, kerr.UnsupportedCompressionType), out)
			return 0
		}
		out.Batches = append(out.Batches, b)
		out.Bytes += len(b)
	}
	return out.Bytes
}

func isPatience(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
