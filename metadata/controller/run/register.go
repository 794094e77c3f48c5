package run

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
)

// MayRegister tells whether a process may register under a node id: kerr.DuplicateBrokerRegistration while another one lives under it,
// kerr.NotController where this broker does not act as the controller. It promises nothing: the registration is a write of its own.
func (c *Controller) MayRegister(id base.BrokerID) error {
	image, now := c.opts.Store.Image(), c.opts.Clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.tracker == nil {
		return kerr.NotController
	}
	c.mu.tracker.Sync(registrations(image), now)
	if c.mu.tracker.Taken(id, now) {
		return fmt.Errorf("broker %d: %w", id, kerr.DuplicateBrokerRegistration)
	}
	return nil
}
