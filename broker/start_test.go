package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/varvelog/varve/internal/clock"
)

// A start waits for a quorum that is away, as long as it may; other errors end it.
func TestStartWaitsForTheQuorum(t *testing.T) {
	away := fmt.Errorf("register: %w", rpctypes.ErrNoLeader)
	broken := errors.New("broken")
	synctest.Test(t, func(t *testing.T) {
		b := &Broker{seams: Seams{Clock: clock.Real{}}, log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		f := func(want error, answers ...error) {
			t.Helper()
			asked := 0
			err := b.patiently(ctx, func() error {
				err := answers[min(asked, len(answers)-1)]
				asked++
				return err
			})
			if !errors.Is(err, want) || asked < len(answers) {
				t.Errorf("%v after %d questions, want %v", err, asked, want)
			}
		}
		f(nil, away, away, nil)
		f(broken, away, broken)
		if err := ctx.Err(); err != nil {
			t.Fatal(err)
		}
		f(rpctypes.ErrNoLeader, away) // for ever: ctx ends
	})
}
