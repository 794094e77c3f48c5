package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Consumed is the outcome of Consume. Latency runs from the producer's stamp to the consumer, so it means something only
// for records that are consumed as they are produced, and on one machine.
type Consumed struct {
	Records   int64         `json:"records"`
	Bytes     int64         `json:"bytes"` // of values
	Elapsed   time.Duration `json:"elapsedNs"`
	FirstByte time.Duration `json:"firstRecordNs"` // until the first record came
	Latency   Quantiles     `json:"latency"`
	Integrity Integrity     `json:"integrity"`
}

// ConsumeOptions add to Options what only a consumer needs.
type ConsumeOptions struct {
	Options
	From        map[int32]int64 // first offsets; nil: each partition's first
	Until       map[int32]int64 // end offsets, exclusive: stop there; nil: the ends at the start, or no end where From is set
	Idle        time.Duration   // an error when nothing comes for so long; default 30 s
	MaxBytes    int32           // per fetch and partition; default 1 MiB, as in Kafka's consumer
	Ready       func()          // called once the first fetch can be under way
	CheckLosses map[int32]int64 // per partition how many records of run Seed there must be
}

func (o *ConsumeOptions) ensureDefaults() error {
	if o.Partitions < 1 {
		return errors.New("the topic has no partitions")
	}
	o.Connections = min(max(o.Connections, 1), int(o.Partitions))
	if o.Idle == 0 {
		o.Idle = 30 * time.Second
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 1 << 20
	}
	return nil
}

// Consume reads every partition from its first offset (or from From) and checks every record, until all ends or Records
// are reached, Duration is over, or ctx ends.
func Consume(ctx context.Context, o ConsumeOptions) (Consumed, error) {
	if err := o.ensureDefaults(); err != nil {
		return Consumed{}, err
	}
	if o.Until == nil && o.From == nil {
		var err error
		if o.Until, err = endOffsets(ctx, o.Options); err != nil {
			return Consumed{}, err
		}
	}
	workers := make([]*consumer, o.Connections)
	for i := range workers {
		w, err := newConsumer(o, i)
		if err != nil {
			return Consumed{}, err
		}
		defer w.cl.Close()
		workers[i] = w
	}
	if o.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Duration)
		defer cancel()
	}
	if o.Ready != nil {
		o.Ready()
	}
	start := time.Now()
	var wg sync.WaitGroup
	for _, w := range workers {
		wg.Go(func() { w.run(ctx, start) })
	}
	wg.Wait()
	return collect(workers, o, time.Since(start))
}

func endOffsets(ctx context.Context, o Options) (map[int32]int64, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(o.Seeds...))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	listed, err := kadm.NewClient(cl).ListEndOffsets(ctx, o.Topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("end offsets of %s: %w", o.Topic, err)
	}
	ends := map[int32]int64{}
	listed.Each(func(l kadm.ListedOffset) { ends[l.Partition] = l.Offset })
	return ends, nil
}

func collect(workers []*consumer, o ConsumeOptions, elapsed time.Duration) (Consumed, error) {
	c := Consumed{Elapsed: elapsed}
	var h Histogram
	var errs []error
	for _, w := range workers {
		if o.CheckLosses != nil {
			w.check.Expect(o.Seed, w.share(o.CheckLosses))
		}
		h.Add(&w.latency)
		c.Records += w.check.Report.Records
		c.Bytes += w.bytes
		c.Integrity.add(w.check.Report)
		if w.first > 0 && (c.FirstByte == 0 || w.first < c.FirstByte) {
			c.FirstByte = w.first
		}
		errs = append(errs, w.err)
	}
	c.Latency = h.Summary()
	return c, errors.Join(errs...)
}

func (i *Integrity) add(o Integrity) {
	i.Records += o.Records
	i.Lost += o.Lost
	i.Duplicates += o.Duplicates
	i.Reordered += o.Reordered
	i.Damaged += o.Damaged
	i.Foreign += o.Foreign
	if i.First == "" {
		i.First = o.First
	}
}

// consumer owns one client and its share of the partitions.
type consumer struct {
	cl      *kgo.Client
	o       ConsumeOptions
	index   int
	check   *Checker
	latency Histogram
	bytes   int64
	quota   int64
	open    map[int32]int64 // partitions that have not reached their end
	first   time.Duration
	err     error
}

func newConsumer(o ConsumeOptions, index int) (*consumer, error) {
	w := &consumer{o: o, index: index, check: NewChecker()}
	at := map[int32]kgo.Offset{}
	for p := int32(index); p < o.Partitions; p += int32(o.Connections) {
		at[p] = kgo.NewOffset().AtStart()
		if from, ok := o.From[p]; ok {
			at[p] = kgo.NewOffset().At(from)
		}
	}
	if o.Until != nil {
		w.open = map[int32]int64{}
		for p, end := range w.share(o.Until) {
			if end > 0 {
				w.open[p] = end
			}
		}
	}
	if w.quota = o.Records / int64(o.Connections); int64(index) < o.Records%int64(o.Connections) {
		w.quota++
	}
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(o.Seeds...), kgo.ClientID("varve-bench"), kgo.MetadataMinAge(metadataMinAge), kgo.FetchMaxBytes(50<<20), kgo.FetchMaxPartitionBytes(o.MaxBytes),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{o.Topic: at}),
	)
	if err != nil {
		return nil, fmt.Errorf("create consumer: %w", err)
	}
	w.cl = cl
	return w, nil
}

// share keeps what belongs to this consumer's partitions.
func (w *consumer) share(all map[int32]int64) map[int32]int64 {
	mine := map[int32]int64{}
	for p, n := range all {
		if p%int32(w.o.Connections) == int32(w.index) {
			mine[p] = n
		}
	}
	return mine
}

func (w *consumer) run(ctx context.Context, start time.Time) {
	for !w.finished() {
		idle, cancel := context.WithTimeout(ctx, w.o.Idle)
		fetches := w.cl.PollFetches(idle)
		stalled := idle.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return // the run's time is over; what was not read is for the caller to judge
		}
		if stalled {
			w.err = fmt.Errorf("nothing came for %s, %d records read, partitions not at their end: %d", w.o.Idle, w.check.Report.Records, len(w.open))
			return
		}
		if err := fetches.Err(); err != nil {
			w.err = fmt.Errorf("fetch: %w", err)
			return
		}
		w.take(fetches, start)
	}
}

// finished: all ends reached, or the quota.
func (w *consumer) finished() bool {
	if w.o.Records > 0 && w.check.Report.Records >= w.quota {
		return true
	}
	return w.open != nil && len(w.open) == 0
}

func (w *consumer) take(fetches kgo.Fetches, start time.Time) {
	now := time.Now()
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		for _, r := range p.Records {
			sent, err := w.check.Check(p.Partition, r.Offset, r.Value)
			if err == nil {
				w.latency.Record(now.Sub(sent))
			}
			w.bytes += int64(len(r.Value))
		}
		if n := len(p.Records); n > 0 {
			if w.first == 0 {
				w.first = now.Sub(start)
			}
			if end, open := w.open[p.Partition]; open && p.Records[n-1].Offset >= end-1 {
				delete(w.open, p.Partition)
			}
		}
	})
	if w.o.Progress != nil {
		w.o.Progress(w.check.Report.Records, w.bytes)
	}
}
