package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Options say where to and how to produce or consume. Fields that a function does not use are ignored.
type Options struct {
	Seeds       []string
	Topic       string
	Partitions  int32         // of the topic, which exists
	Records     int64         // in all; 0: no limit, Duration ends the run
	Duration    time.Duration // 0: no limit, Records ends the run
	SizeBytes   int           // of a value, at least HeadSize
	Rate        float64       // records per second in all; 0: as fast as it goes
	Connections int           // clients, each with its own connections and its share of the partitions; default 1
	Acks        string        // "all" (idempotent), "leader", "none"; default "all"
	Compression string        // none, gzip, snappy, lz4, zstd; default none
	Linger      time.Duration // how long a client waits to fill a batch; default 5 ms, negative: none
	BatchBytes  int32         // largest batch; default 1 MiB less some head
	Seed        uint64        // of the payload and the run's number; 0: random
	Progress    func(records, bytes int64)
}

// EnsureDefaults fills what is unset and refuses what cannot work.
func (o *Options) EnsureDefaults() error {
	if o.SizeBytes < HeadSize {
		return fmt.Errorf("record size %d: at least %d bytes, the stamp that integrity is checked by", o.SizeBytes, HeadSize)
	}
	if o.Partitions < 1 {
		return errors.New("the topic has no partitions")
	}
	if o.Records <= 0 && o.Duration <= 0 {
		return errors.New("say how much: a number of records or a duration")
	}
	o.Connections = min(max(o.Connections, 1), int(o.Partitions))
	if o.Acks == "" {
		o.Acks = "all"
	}
	if o.Linger == 0 {
		o.Linger = 5 * time.Millisecond
	}
	if o.BatchBytes == 0 {
		o.BatchBytes = 1_000_012 // franz-go's and Kafka's own default
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64() >> 11 // every JSON reader keeps 53 bits
	}
	return nil
}

// Produced is the outcome of Produce. Latency runs from handing a record to the client until its acknowledgement, so at full
// speed it is mostly the time in the client's own queue.
type Produced struct {
	Run        uint64          `json:"run"`
	Records    int64           `json:"records"`
	Bytes      int64           `json:"bytes"` // of values
	Failed     int64           `json:"failed"`
	FirstError string          `json:"firstError,omitempty"`
	Elapsed    time.Duration   `json:"elapsedNs"`
	Latency    Quantiles       `json:"latency"`
	PerPart    map[int32]int64 `json:"-"` // records acknowledged, by partition
}

// metadataMinAge is how soon a client looks for a leader again: with franz-go's 5 s a moved leader would stall a measurement.
const metadataMinAge = 100 * time.Millisecond

// clientOpts are the producer's settings. Without idempotence order is only kept with one request in flight.
func (o *Options) clientOpts() ([]kgo.Opt, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(o.Seeds...), kgo.ClientID("varve-bench"), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(max(o.Linger, 0)), kgo.ProducerBatchMaxBytes(o.BatchBytes),
		kgo.MetadataMinAge(metadataMinAge), kgo.MaxBufferedRecords(250_000), kgo.MaxBufferedBytes(64 << 20),
	}
	switch o.Acks {
	case "all":
		opts = append(opts, kgo.RequiredAcks(kgo.AllISRAcks()))
	case "leader", "1":
		opts = append(opts, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	case "none", "0":
		opts = append(opts, kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	default:
		return nil, fmt.Errorf("acks %q: choose all, leader or none", o.Acks)
	}
	codec, err := Codec(o.Compression)
	if err != nil {
		return nil, err
	}
	return append(opts, kgo.ProducerBatchCompression(codec)), nil
}

// Codec is franz-go's codec of a name.
func Codec(name string) (kgo.CompressionCodec, error) {
	switch name {
	case "", "none":
		return kgo.NoCompression(), nil
	case "gzip":
		return kgo.GzipCompression(), nil
	case "snappy":
		return kgo.SnappyCompression(), nil
	case "lz4":
		return kgo.Lz4Compression(), nil
	case "zstd":
		return kgo.ZstdCompression(), nil
	}
	return kgo.NoCompression(), fmt.Errorf("compression %q: choose none, gzip, snappy, lz4 or zstd", name)
}

// Produce writes until the records, the duration or ctx are over, waits for all acknowledgements, and reports. A record that
// was refused is counted in Failed: it is for the caller to judge.
func Produce(ctx context.Context, o Options) (Produced, error) {
	if err := o.EnsureDefaults(); err != nil {
		return Produced{}, err
	}
	opts, err := o.clientOpts()
	if err != nil {
		return Produced{}, err
	}
	workers := make([]*producer, o.Connections)
	for i := range workers {
		cl, err := kgo.NewClient(opts...)
		if err != nil {
			return Produced{}, fmt.Errorf("create producer: %w", err)
		}
		defer cl.Close()
		workers[i] = newProducer(cl, o, i)
	}
	start := time.Now()
	if o.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, start.Add(o.Duration))
		defer cancel()
	}
	var wg sync.WaitGroup
	for _, w := range workers {
		wg.Go(func() { w.run(ctx, start) })
	}
	wg.Wait()
	return merge(workers, o, time.Since(start)), nil
}

func merge(workers []*producer, o Options, elapsed time.Duration) Produced {
	p := Produced{Run: o.Seed, Elapsed: elapsed, PerPart: map[int32]int64{}}
	var h Histogram
	for _, w := range workers {
		h.Add(&w.mu.latency)
		p.Failed += w.mu.failed
		if p.FirstError == "" && w.mu.err != nil {
			p.FirstError = w.mu.err.Error()
		}
		for partition, n := range w.mu.acked {
			p.PerPart[int32(partition)] += n
			p.Records += n
		}
	}
	p.Bytes = p.Records * int64(o.SizeBytes)
	p.Latency = h.Summary()
	return p
}

// producer owns one client and its share of the partitions.
type producer struct {
	cl         *kgo.Client
	o          Options
	partitions []int32
	seqs       []*Sequencer
	payload    *payloads
	quota      int64   // records to send; 0: no limit
	rate       float64 // of this worker

	mu struct { // the client calls back from its own goroutine
		sync.Mutex
		latency Histogram
		acked   []int64 // by partition
		failed  int64
		err     error
	}
}

func newProducer(cl *kgo.Client, o Options, index int) *producer {
	w := &producer{cl: cl, o: o, payload: newPayloads(o.SizeBytes, o.Seed+uint64(index)), rate: o.Rate / float64(o.Connections)}
	w.mu.acked = make([]int64, o.Partitions)
	for p := int32(index); p < o.Partitions; p += int32(o.Connections) {
		w.partitions = append(w.partitions, p)
		w.seqs = append(w.seqs, NewSequencer(o.Seed))
	}
	if w.quota = o.Records / int64(o.Connections); int64(index) < o.Records%int64(o.Connections) {
		w.quota++
	}
	return w
}

// stickBytes is how much goes to one partition before the next has its turn: a full batch is what a sticky partitioner makes.
const stickBytes = 64 << 10

func (w *producer) run(ctx context.Context, start time.Time) {
	stick := 1
	if w.rate == 0 {
		stick = max(stickBytes/w.o.SizeBytes, 1)
	}
	// A record is never given up for being slow, nor by the end of the run: only an error of the broker's fails it.
	sending := context.WithoutCancel(ctx)
	for n := int64(0); (w.o.Records == 0 || n < w.quota) && ctx.Err() == nil; n++ {
		w.pace(ctx, start, n)
		i := int(n/int64(stick)) % len(w.partitions)
		value, sent := w.payload.next(), time.Now()
		w.seqs[i].Stamp(value, sent)
		w.cl.Produce(sending, &kgo.Record{Topic: w.o.Topic, Partition: w.partitions[i], Value: value}, func(r *kgo.Record, err error) {
			w.done(r, err, time.Since(sent))
		})
	}
	flush, cancel := context.WithTimeout(sending, flushTimeout)
	defer cancel()
	if err := w.cl.Flush(flush); err != nil {
		w.mu.Lock()
		w.mu.err = fmt.Errorf("records are still unacknowledged after %s: %w", flushTimeout, err)
		w.mu.failed += w.cl.BufferedProduceRecords()
		w.mu.Unlock()
	}
}

// flushTimeout bounds the wait for the last acknowledgements.
const flushTimeout = time.Minute

// pace waits until record n is due.
func (w *producer) pace(ctx context.Context, start time.Time, n int64) {
	if w.rate == 0 {
		return
	}
	due := start.Add(time.Duration(float64(n) / w.rate * float64(time.Second)))
	wait := time.Until(due)
	if wait <= 0 {
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (w *producer) done(r *kgo.Record, err error, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.mu.failed++
		if w.mu.err == nil {
			w.mu.err = fmt.Errorf("partition %d: %w", r.Partition, err)
		}
		return
	}
	w.mu.latency.Record(took)
	w.mu.acked[r.Partition]++
}
