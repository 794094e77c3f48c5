package broker

import (
	"context"
	"time"

	"github.com/varvelog/varve/kafka"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/controller/run"
)

// hotBytesTimeout bounds how long a broker may take to tell its hot bytes.
const hotBytesTimeout = 5 * time.Second

// hotBytes asks a broker, this one too, for the hot bytes of its replicas.
func (b *Broker) hotBytes(ctx context.Context, other metadata.Broker) (run.HotSizes, error) {
	var sizes run.HotSizes
	err := b.askOnce(ctx, other, "balance", hotBytesTimeout, func(peer *kafka.Peer, deadline time.Time) (err error) {
		sizes, err = peer.HotBytes(deadline)
		return err
	})
	return sizes, err
}
