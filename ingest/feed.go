package ingest

import "sync"

// Feed tells a follower's session which of its partitions have something for it, so that a fetch costs what is new and not what
// there is. One goroutine takes; partitions mark.
type Feed struct {
	C  chan struct{} // capacity 1: there is news
	mu struct {
		sync.Mutex
		closed bool
		news   []*Partition        // with batches, or not led any more; in the order in which they came
		quiet  []*Partition        // whose high watermark or log start moved
		known  map[*Partition]bool // those in news: true
	}
}

// NewFeed returns a feed of no partition.
func NewFeed() *Feed {
	f := &Feed{C: make(chan struct{}, 1)}
	f.mu.known = map[*Partition]bool{}
	return f
}

// Join makes a partition that this broker leads mark the feed until it is not led any more; Leave ends it.
func (f *Feed) Join(p *Partition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.leader != nil {
		p.mu.feeds[f] = struct{}{}
	}
}

// Leave ends Join.
func (f *Feed) Leave(p *Partition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.mu.feeds, f)
}

// Close ends the feed: it takes no marks, and who waits for news is woken.
func (f *Feed) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.closed = true
	f.mu.news, f.mu.quiet = nil, nil
	select {
	case f.C <- struct{}{}:
	default:
	}
}

// Closed reports whether Close was called.
func (f *Feed) Closed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.closed
}

// mark notes news of a partition; what is not loud can wait for the next response.
func (f *Feed) mark(p *Partition, loud bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	was, known := f.mu.known[p]
	switch {
	case f.mu.closed:
	case loud && !was:
		f.mu.news = append(f.mu.news, p)
		f.mu.known[p] = true
		select {
		case f.C <- struct{}{}:
		default:
		}
	case !loud && !known:
		f.mu.quiet = append(f.mu.quiet, p)
		f.mu.known[p] = false
	}
}

// Take returns the partitions that were marked since the last call.
func (f *Feed) Take() (news []*Partition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	news, f.mu.news = f.mu.news, nil
	for _, p := range news {
		delete(f.mu.known, p)
	}
	return news
}

// TakeQuiet returns those whose high watermark or log start moved, and that have no news.
func (f *Feed) TakeQuiet() (quiet []*Partition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	quiet, f.mu.quiet = f.mu.quiet, nil
	for _, p := range quiet {
		if !f.mu.known[p] {
			delete(f.mu.known, p)
		}
	}
	return quiet
}
