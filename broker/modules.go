package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/internal/service"
)

// module is one long-lived part of a broker. start may return once the part serves; stop releases everything it holds.
type module struct {
	name  string
	needs []string
	start func(ctx context.Context) error
	stop  func(ctx context.Context) error // nil: nothing to release
}

// modules runs a table of modules.
type modules struct {
	table []module
	log   *slog.Logger
	clock clock.Clock
	mu    struct {
		sync.Mutex
		started []module // in the order in which they finished starting
	}
}

// start starts every module after those that it needs, independent ones side by side. Where one fails, those that started
// are stopped again and the first cause is returned.
func (m *modules) start(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := map[string]chan struct{}{}
	for _, mod := range m.table {
		done[mod.name] = make(chan struct{})
	}
	var wg sync.WaitGroup
	for _, mod := range m.table {
		wg.Go(func() {
			for _, need := range mod.needs {
				select {
				case <-done[need]:
				case <-ctx.Done():
					return
				}
			}
			if err := mod.start(ctx); err != nil {
				cancel(fmt.Errorf("start %s: %w", mod.name, err))
				return
			}
			m.mu.Lock()
			m.mu.started = append(m.mu.started, mod)
			m.mu.Unlock()
			close(done[mod.name])
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), failedStartStop)
		defer cancel()
		return errors.Join(err, m.stop(ctx))
	}
	return nil
}

// failedStartStop bounds the stop of what had started where something else did not, or was told to stop: with stopGrace it is less than
// ten seconds (contract.md).
const failedStartStop = 6 * time.Second

// stopGrace is what modules have to return after the end of stop's context, all together: it cuts short what they wait for.
const stopGrace = 2 * time.Second

// stop stops what has started, last started first. A module that does not return within stopGrace after the end of ctx (its
// goroutines wait for a disk that is full, or hangs) is left behind with all that it needs: the process is about to end, and what
// was acknowledged is on the disk.
func (m *modules) stop(ctx context.Context) error {
	m.mu.Lock()
	started := m.mu.started
	m.mu.started = nil
	m.mu.Unlock()
	var errs []error
	var grace *clock.Timer
	defer func() {
		if grace != nil {
			grace.Stop()
		}
	}()
	for i := len(started) - 1; i >= 0; i-- {
		if started[i].stop == nil {
			continue
		}
		returned, err := m.stopOne(ctx, started[i], &grace)
		if err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", started[i].name, err))
		}
		if !returned {
			break
		}
	}
	return errors.Join(errs...)
}

// stopOne starts the grace, if no module before has.
func (m *modules) stopOne(ctx context.Context, mod module, grace **clock.Timer) (returned bool, err error) {
	done := make(chan error, 1)
	service.NewGroup(context.Background()).Go(func(context.Context) { done <- mod.stop(ctx) })
	select {
	case err = <-done:
		return true, err
	case <-ctx.Done():
	}
	if *grace == nil {
		*grace = m.clock.NewTimer(stopGrace)
	}
	select {
	case err = <-done:
		return true, err
	case <-(*grace).C:
		return false, fmt.Errorf("it does not return: %w", ctx.Err())
	}
}
