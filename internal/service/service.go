// Package service owns goroutines: whoever starts one does so through a Group, and stopping the Group waits for it.
package service

import (
	"context"
	"sync"
)

// Group is a set of goroutines with one owner. The zero value is not usable; call NewGroup. Go may be called until Stop.
type Group struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     struct {
		sync.Mutex
		stopped bool
	}
}

// NewGroup returns an empty group whose goroutines see a context that ends with parent or at Stop.
func NewGroup(parent context.Context) *Group {
	ctx, cancel := context.WithCancel(parent)
	return &Group{ctx: ctx, cancel: cancel}
}

// Context ends when the group stops.
func (g *Group) Context() context.Context { return g.ctx }

// Go runs fn in a goroutine that Stop waits for. After Stop it does nothing and reports false.
func (g *Group) Go(fn func(ctx context.Context)) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.stopped {
		return false
	}
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		fn(g.ctx)
	}()
	return true
}

// Stop cancels the context and waits for every goroutine. It may be called more than once.
func (g *Group) Stop() {
	g.mu.Lock()
	g.mu.stopped = true
	g.mu.Unlock()
	g.cancel()
	g.wg.Wait()
}
