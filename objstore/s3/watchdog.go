package s3

import (
	"context"
	"fmt"
	"time"
)

// watchdog cancels a request that takes longer than its bytes can take. It is the deadline that the library lacks for
// bodies: a server that stalls in the middle of one would hold the caller for ever.
type watchdog struct {
	timer  *time.Timer
	cancel context.CancelCauseFunc
	limit  func(bytes int64) time.Duration
}

// watch returns a context that ends with parent or when the watchdog fires, which looks like a deadline.
func (b *Bucket) watch(parent context.Context, bytes int64) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(parent)
	w := &watchdog{cancel: cancel, limit: b.limit}
	limit := b.limit(bytes)
	w.timer = time.AfterFunc(limit, func() {
		cancel(fmt.Errorf("no answer for %d bytes in %v: %w", bytes, limit, context.DeadlineExceeded))
	})
	return ctx, w
}

// feed restarts the watchdog: there was progress, and so many bytes are to come.
func (w *watchdog) feed(bytes int64) { w.timer.Reset(w.limit(bytes)) }

// pause keeps the watchdog from firing while the caller of an iterator works.
func (w *watchdog) pause() { w.timer.Stop() }

// stop ends the watch. The context is cancelled.
func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// limit is how long a request of so many bytes may take.
func (b *Bucket) limit(bytes int64) time.Duration {
	return b.opts.BaseTimeout + time.Duration(float64(bytes)/float64(b.opts.BytesPerSecond)*float64(time.Second))
}
