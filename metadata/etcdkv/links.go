package etcdkv

import (
	"context"
	"time"
)

// A member that was cut off for a minute would take part again only when TCP tries its old connections again, which backs off for as
// long as the cut has lasted: until then a cluster that loses another voter has no quorum. rafthttp means to read from them with
// a deadline of 5 s (ConnReadTimeout), but its transport sets Dial beside DialContext, which net/http prefers, in all of etcd
// 3.5 to 3.7.3. So the sockets get that patience.
const (
	linkPatience = 5 * time.Second
	tendEvery    = 2 * time.Second
)

// tend gives every connection between members linkPatience, also those that come later.
func (m *Member) tend(ctx context.Context) {
	for {
		m.tendLinks()
		if m.pause(ctx, tendEvery) != nil {
			return
		}
	}
}
