package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/varvelog/varve/kafka"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/controller/run"
)

// hotBytesTimeout bounds how long a broker may take to tell its hot bytes.
const hotBytesTimeout = 5 * time.Second

// hotBytes asks a broker, this one too, for the hot bytes of its replicas, over a connection of its own: it is done twice a minute, and
// must not hold up heartbeats.
func (b *Broker) hotBytes(ctx context.Context, other metadata.Broker) (run.HotSizes, error) {
	ctx, cancel := context.WithTimeout(ctx, hotBytesTimeout)
	defer cancel()
	conn, err := b.seams.Dial(ctx, "tcp", addressOf(other))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addressOf(other), err)
	}
	peer := kafka.NewPeer(conn, fmt.Sprintf("balance-%d", b.cfg.NodeID))
	defer peer.Close()
	defer context.AfterFunc(ctx, peer.Close)()
	return peer.HotBytes(b.seams.Clock.Now().Add(hotBytesTimeout))
}
