package sim

import (
	"context"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/varvelog/varve/objstore"
)

// lifeline is the bucket as a process sees it: out of reach when it is dead or cut off. What it has asked for goes on without it: a
// PUT that is under way lands, however late, whatever has become of the process.
type lifeline struct {
	objstore.Bucket
	p *process
}

func (l lifeline) reach(ctx context.Context) error {
	for !l.p.dead.Load() {
		if err := l.p.gate.pass(ctx); err != nil {
			return err
		}
		if !l.p.n.c.net.IsCut(l.p.n.ip, bucketIP) {
			return nil
		}
		if !pause(ctx, electionLook) {
			return ctx.Err()
		}
	}
	return errProcessEnded
}

// Get implements objstore.Reader.
func (l lifeline) Get(ctx context.Context, key string, off, length int64) ([]byte, error) {
	if err := l.reach(ctx); err != nil {
		return nil, err
	}
	b, err := l.Bucket.Get(ctx, key, off, length)
	if err == nil {
		err = l.p.gate.pass(ctx)
	}
	return b, err
}

// Head implements objstore.Reader.
func (l lifeline) Head(ctx context.Context, key string) (objstore.Info, error) {
	if err := l.reach(ctx); err != nil {
		return objstore.Info{}, err
	}
	return l.Bucket.Head(ctx, key)
}

// Put implements objstore.Writer.
func (l lifeline) Put(ctx context.Context, key string, body objstore.Body) (objstore.Info, error) {
	l.p.at(beforePut)
	if err := l.reach(ctx); err != nil {
		return objstore.Info{}, err
	}
	info, err := l.send(ctx, key, body)
	l.p.at(afterPut)
	if gone := l.p.gate.pass(ctx); gone != nil && err == nil {
		return objstore.Info{}, gone
	}
	return info, err
}

// send performs a PUT, after it has been under way for a while.
func (l lifeline) send(ctx context.Context, key string, body objstore.Body) (objstore.Info, error) {
	d := time.Duration(l.p.n.putsMs.Load()) * time.Millisecond
	if d == 0 {
		return l.Bucket.Put(ctx, key, body)
	}
	sent, err := io.ReadAll(io.NewSectionReader(body.ReaderAt, 0, body.Size))
	if err != nil {
		return objstore.Info{}, fmt.Errorf("put %q: %w", key, err)
	}
	body.ReaderAt = objstore.BodyOf(sent).ReaderAt
	type answer struct {
		info objstore.Info
		err  error
	}
	answered := make(chan answer, 1)
	if !l.p.n.c.procs.Go(func(ctx context.Context) {
		if pause(ctx, d) {
			info, err := l.Bucket.Put(ctx, key, body)
			answered <- answer{info, err}
		}
	}) {
		return objstore.Info{}, errProcessEnded
	}
	select {
	case a := <-answered:
		return a.info, a.err
	case <-ctx.Done():
		return objstore.Info{}, ctx.Err()
	}
}

// List implements objstore.Lister.
func (l lifeline) List(ctx context.Context, prefix, startAfter string) iter.Seq2[objstore.Info, error] {
	if err := l.reach(ctx); err != nil {
		return func(yield func(objstore.Info, error) bool) { yield(objstore.Info{}, err) }
	}
	return l.Bucket.List(ctx, prefix, startAfter)
}

// Delete implements objstore.Deleter.
func (l lifeline) Delete(ctx context.Context, keys ...string) error {
	if err := l.reach(ctx); err != nil {
		return err
	}
	return l.Bucket.Delete(ctx, keys...)
}

// Close implements io.Closer.
func (l lifeline) Close() error { return nil }
