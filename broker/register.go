package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/kafka"
	"github.com/varvelog/varve/metadata"
)

const (
	// admissionTimeout bounds one question to the controller. One that hangs cannot let this broker serve either.
	admissionTimeout = 500 * time.Millisecond
	// admissionRetry is how soon a question is asked again that was answered with no.
	admissionRetry = 50 * time.Millisecond
	// admissionGrace is added to the session timeout: a process that is dead without a sign is fenced by then.
	admissionGrace = time.Second
)

// admit returns nil when this broker's registration may replace the old one: no other process lives under its id. Who knows is the
// controller, which hears that process's heartbeats; a no is final once it has lasted for a session. Where nobody can answer (there is
// no controller at the moment, or this id is still its own), the broker registers at once: then the other process, should there be
// one, ends as soon as it sees that.
func (b *Broker) admit(ctx context.Context, old metadata.Broker) error {
	most := b.brokerSetting("broker.session.timeout.ms") + admissionGrace
	deadline := b.seams.Clock.Now().Add(most)
	refused := false
	for {
		err := b.mayRegister(ctx)
		switch {
		case err == nil, ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, kerr.InconsistentClusterID):
			return err
		case errors.Is(err, kerr.DuplicateBrokerRegistration):
			if !refused {
				b.log.Warn("another process is alive under this broker's id; waiting for its end", slog.Int("node_id", int(old.ID)),
					slog.String("at", addressOf(old)), slog.Duration("at_most", most))
			}
			refused = true
		case !refused:
			return nil
		}
		if image := b.meta.Image(); image.Revision() >= old.Rev {
			if current, ok := image.BrokerByID(old.ID); !ok || current.Epoch != old.Epoch {
				return nil // the write will find that out, and ask about the one that came
			}
		}
		if !b.seams.Clock.Now().Before(deadline) {
			return fmt.Errorf("broker %d is registered at %s and alive: every broker needs a --node-id of its own; to replace that one, stop it first: %w",
				old.ID, addressOf(old), kerr.DuplicateBrokerRegistration)
		}
		if !sleep(ctx, b.seams.Clock, nil, admissionRetry) {
			return ctx.Err()
		}
	}
}

func (b *Broker) mayRegister(ctx context.Context) error {
	image := b.meta.Image()
	target := image.Controller()
	if target == b.id() {
		return nil
	}
	other, ok := image.BrokerByID(target)
	if !ok {
		return fmt.Errorf("ask broker %d: %w", target, kerr.BrokerIDNotRegistered)
	}
	return b.askOnce(ctx, other, "register", admissionTimeout, func(peer *kafka.Peer, deadline time.Time) error {
		return peer.MayRegister(b.id(), image.ClusterID(), deadline)
	})
}
