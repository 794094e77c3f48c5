package ingest

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/varvelog/varve/ingest/replica"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/record"
)

// ProducersOf shows a partition's producer state as text.
func ProducersOf(p *Partition) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.producers.text()
}

// ProducersAfter shows the producer state of a log that consists of the batches.
func ProducersAfter(batches []record.Batch) string {
	t := producerTable{}
	for _, b := range batches {
		t.note(b, 1000)
	}
	return t.text()
}

func (t producerTable) text() string {
	var out strings.Builder
	for _, id := range slices.Sorted(maps.Keys(t)) {
		fmt.Fprintf(&out, "%d epoch %d %v\n", id, t[id].epoch, t[id].batches)
	}
	return out.String()
}

// EpochsOf are the leader epochs of a partition's log.
func EpochsOf(p *Partition) []base.EpochStart {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.mu.epochs)
}

// OpenBytesOf is the size of the open range.
func OpenBytesOf(p *Partition) (from base.Offset, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.active.base, p.mu.active.bytes
}

// FollowsUnder is the epoch of the leader that a partition follows.
func FollowsUnder(p *Partition) base.LeaderEpoch { return p.followsUnder() }

// Renewed reports whether a damaged log that has started over, or could not, in an epoch is to be followed in it.
func Renewed(g *Ingest, p *Partition, epoch base.LeaderEpoch) bool {
	r := newReplicator(g, Replication{})
	r.wantAgain(p, followed{epoch: epoch})
	_, wanted := r.mu.news[p.log]
	return wanted
}

// Housekeep seals and trims as a tick does.
func Housekeep(g *Ingest) {
	now := g.clock.Now()
	g.sealDue(g.work.list(), now)
	g.trim(now)
}

// Retain applies retention.* as housekeeping does every RetentionEvery.
func Retain(g *Ingest) { g.retain(g.clock.Now()) }

// StartOver is what a fetcher asks for that has acknowledged what is below acked and whose leader's log starts at leaderStart, where the tiered range ends as tail says.
func StartOver(g *Ingest, p *Partition, epoch base.LeaderEpoch, acked, leaderStart base.Offset, tail FollowerStart) (replica.LogState, error) {
	r := newReplicator(g, Replication{Tail: func(context.Context, base.LogID, base.Offset) (FollowerStart, error) { return tail, nil }})
	r.mu.logs[replica.ID{}] = p.log
	return r.StartOver(context.Background(), replica.ID{}, epoch, acked, leaderStart)
}

// TrimTo drops what is hot below the end of a sealed range, as a tick does that has found it before.
func TrimTo(p *Partition, end base.Offset) { p.g.trimTo(map[*Partition]base.Offset{p: end}) }

// PendingBytes is what is appended and not synced, and shown, yet.
func PendingBytes(g *Ingest) int64 { return g.pipe.pendingBytes() }

// Damage takes a partition out of service.
func Damage(p *Partition) { p.damage(base.MarkCorruption(errSnapshot)) }

// LedWithoutRecords makes the log's epochs those of a broker that has begun to lead and appended nothing yet.
func LedWithoutRecords(p *Partition, epoch base.LeaderEpoch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.epoch, p.mu.epochs = epoch, replica.AssignEpoch(p.mu.epochs, epoch, p.mu.end)
	p.mu.unsaved = true
}

// LoseEnd makes the log end earlier than what is stored, as a recovery that came upon a damaged batch leaves it.
func LoseEnd(p *Partition, end base.Offset) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.end, p.mu.durable = end, min(p.mu.durable, end)
}

// SkipToTiered makes a log go on at end, as that of a new leader does which ends before what is tiered.
func SkipToTiered(p *Partition, end base.Offset) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.tieredEnd = end
	p.skipToTieredLocked()
}

// FollowAll has every partition follow an image in which brokers came or went.
func FollowAll(g *Ingest, image *metadata.Image) { g.followAll(image) }

// OpenedByRequest makes a partition one that a request has opened by an image which onImage has yet to come to.
func OpenedByRequest(g *Ingest, p *Partition) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.opened[p.log] = math.MaxInt64
}

// DropGone deletes the rows of logs that are not here any more, as a tick does.
func DropGone(g *Ingest) { g.dropGone() }
