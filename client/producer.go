package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Producer sends records. It is idempotent and waits for all in-sync replicas: a record that was acknowledged is on stable
// storage, once. Safe for concurrent use; Close it to send what is pending.
type Producer struct{ cl *kgo.Client }

// ProducerOptions configure NewProducer.
type ProducerOptions struct {
	Options
	Zstd bool // compress batches with zstd; off by default
	// Linger is how long a batch waits to fill, default 5 ms; negative: not at all.
	Linger time.Duration
	// MaxBuffered is the most bytes that wait for acknowledgement, default 64 MiB; Send blocks beyond.
	MaxBuffered int
	// DeliveryTimeout is how long a record is retried before it fails, default 2 minutes (as in Kafka's own client).
	DeliveryTimeout time.Duration
}

// NewProducer does not connect yet: the first Send does.
func NewProducer(o ProducerOptions) (*Producer, error) {
	if o.Linger == 0 {
		o.Linger = 5 * time.Millisecond
	}
	if o.MaxBuffered == 0 {
		o.MaxBuffered = 64 << 20
	}
	if o.DeliveryTimeout == 0 {
		o.DeliveryTimeout = 2 * time.Minute
	}
	codec := kgo.NoCompression()
	if o.Zstd {
		codec = kgo.ZstdCompression()
	}
	cl, err := o.build(
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(max(o.Linger, 0)),
		kgo.MaxBufferedBytes(o.MaxBuffered), kgo.RecordDeliveryTimeout(o.DeliveryTimeout),
	)
	if err != nil {
		return nil, err
	}
	return &Producer{cl}, nil
}

// Send hands a record over and returns; done is called once it is acknowledged, with its partition and offset, or has failed.
// Records with one key are stored in the order of their Sends from one goroutine. It blocks while MaxBuffered is reached. done
// may be nil; it must not block, since all acknowledgements of the client wait for it.
func (p *Producer) Send(ctx context.Context, r Record, done func(Record, error)) {
	p.cl.Produce(ctx, r.toKgo(), func(k *kgo.Record, err error) {
		if done != nil {
			done(fromKgo(k), wrap("produce to "+k.Topic, err))
		}
	})
}

// SendSync sends records and waits until all are acknowledged; the error names the first that was not.
func (p *Producer) SendSync(ctx context.Context, records ...Record) error {
	ks := make([]*kgo.Record, len(records))
	for i, r := range records {
		ks[i] = r.toKgo()
	}
	for _, res := range p.cl.ProduceSync(ctx, ks...) {
		if res.Err != nil {
			return wrap("produce to "+res.Record.Topic, res.Err)
		}
	}
	return nil
}

// Client is the franz-go client underneath.
func (p *Producer) Client() *kgo.Client { return p.cl }

// Close waits until everything sent is acknowledged or ctx ends, and closes the connections. The error says how many records
// were given up.
func (p *Producer) Close(ctx context.Context) error {
	err := p.cl.Flush(ctx)
	if left := p.cl.BufferedProduceRecords(); err != nil && left > 0 {
		err = fmt.Errorf("close producer: %d records are not acknowledged: %w", left, err)
	}
	p.cl.Close()
	return err
}

func wrap(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kgo.ErrClientClosed):
		return fmt.Errorf("%s: %w", what, ErrClosed)
	}
	return fmt.Errorf("%s: %w", what, err)
}
