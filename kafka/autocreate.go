package kafka

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/metadata"
)

// autoCreateTimeout bounds the creation of a topic that a client only asked about.
const autoCreateTimeout = 30 * time.Second

// creations are the topics that are being created because somebody asked for them. There is one creation per name, and a
// bounded number of them; whoever comes beyond that asks again.
type creations struct {
	limit int
	mu    struct {
		sync.Mutex
		names map[string]bool
	}
}

func newCreations(limit int) *creations {
	c := &creations{limit: limit}
	c.mu.names = map[string]bool{}
	return c
}

func (c *creations) start(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.names[name] || len(c.mu.names) >= c.limit {
		return false
	}
	c.mu.names[name] = true
	return true
}

func (c *creations) done(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.mu.names, name)
}

// autoCreate starts the creation of a topic that a client asked for, if auto.create.topics.enable says so.
func (s *Server) autoCreate(img image, name string) {
	if internalTopic(name) {
		if name == metadata.ConsumerOffsetsTopic {
			s.createInternal(name)
		}
		return
	}
	if !img.Broker().AutoCreateTopics {
		return
	}
	s.create(name, func(ctx context.Context) error {
		_, err := s.deps.meta.CreateTopic(ctx, metadata.TopicSpec{Name: name, Partitions: -1, ReplicationFactor: -1}, false)
		return err
	})
}

// createInternal starts the creation of an internal topic.
func (s *Server) createInternal(name string) {
	s.create(name, func(ctx context.Context) error { return s.deps.meta.EnsureInternalTopic(ctx, name) })
}

func (s *Server) create(name string, fn func(ctx context.Context) error) {
	if !s.creating.start(name) {
		return
	}
	started := s.goroot.Go(func(ctx context.Context) {
		defer s.creating.done(name)
		ctx, cancel := context.WithTimeout(ctx, autoCreateTimeout)
		defer cancel()
		err := func() (err error) {
			defer s.caught("topic creation", &err)
			return fn(ctx)
		}()
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) && ctx.Err() == nil {
			s.log.Warn("topic was not created for a client that asked for it", slog.String("topic", name), slog.Any("err", err))
		}
	})
	if !started {
		s.creating.done(name)
	}
}
