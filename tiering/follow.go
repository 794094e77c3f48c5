package tiering

import (
	"context"
	"errors"
	"fmt"

	"github.com/varvelog/varve/internal/service"
	"github.com/varvelog/varve/metadata"
)

// Follow reads all roots with one request and keeps them current from then on, until Stop: whoever commits, every broker
// knows what is tiered of every log. A broker that becomes the leader of a log serves its cold reads at once, and one that
// follows it trims what the leader tiered (Options.OnRoot). Start does the same and runs the archiver besides.
func (t *Tiering) Follow(ctx context.Context) error {
	if t.group != nil {
		return errors.New("tiering: started twice")
	}
	watch := t.o.Meta.WatchRoots()
	u, err := watch.Next(ctx)
	if err != nil {
		watch.Close()
		return fmt.Errorf("load manifest roots: %w", err)
	}
	t.observe(u)
	t.group = service.NewGroup(context.WithoutCancel(ctx))
	t.group.Go(func(ctx context.Context) {
		defer watch.Close()
		for {
			u, err := watch.Next(ctx)
			if err != nil { // the end of ctx
				return
			}
			t.observe(u)
		}
	})
	return nil
}

// observe takes over what the watch shows, and tells it. The roots stand in memory before anybody trims by them, so that
// what is not hot any more is found cold (I5).
func (t *Tiering) observe(u metadata.RootUpdate) {
	t.roots.observe(u)
	if t.o.OnRoot == nil {
		return
	}
	for _, c := range u.Changes {
		if !c.Gone {
			t.o.OnRoot(c.Root)
		}
	}
}
