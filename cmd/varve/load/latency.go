package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Latencies is the outcome of Latency: from send to acknowledgement, and from send to the consumer.
type Latencies struct {
	Produce Produced `json:"produce"`
	Consume Consumed `json:"consume"`
}

// Latency produces at o.Rate with a consumer that waits at the end, and measures both ways.
func Latency(ctx context.Context, o Options) (Latencies, error) {
	if o.Rate <= 0 {
		return Latencies{}, errors.New("latency needs a rate")
	}
	if o.Linger == 0 {
		o.Linger = -1 // a record waits for nobody
	}
	if err := o.EnsureDefaults(); err != nil {
		return Latencies{}, err
	}
	if o.Records == 0 {
		o.Records = int64(o.Rate * o.Duration.Seconds())
		o.Duration = 0
	}
	starts, err := endOffsets(ctx, o)
	if err != nil {
		return Latencies{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var (
		l        Latencies
		consumed Consumed // the consumer's until caughtUp is closed, as is tailErr
		tailErr  error
	)
	caughtUp, ready := make(chan struct{}), make(chan struct{})
	var tail sync.WaitGroup
	defer tail.Wait()
	defer cancel() // ends the consumer before the wait for it
	tail.Go(func() {
		defer close(caughtUp)
		consumed, tailErr = Consume(ctx, ConsumeOptions{Options: o, From: starts, Ready: func() { close(ready) }})
	})
	select {
	case <-ready:
	case <-caughtUp:
		return l, tailErr
	}
	if l.Produce, err = Produce(ctx, o); err != nil {
		return l, err
	}
	if l.Produce.Failed > 0 {
		return l, fmt.Errorf("%d records failed: %s", l.Produce.Failed, l.Produce.FirstError)
	}
	select {
	case <-caughtUp:
		l.Consume = consumed
		return l, tailErr
	case <-time.After(tailTimeout):
		return l, fmt.Errorf("the consumer has not caught up %s after the last acknowledgement", tailTimeout)
	}
}

// tailTimeout bounds the wait for a consumer that should be at the end already.
const tailTimeout = 30 * time.Second
