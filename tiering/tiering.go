package tiering

import (
	"context"
	"fmt"
	"sync"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/service"
	"github.com/varvelog/varve/record"
	"github.com/varvelog/varve/tiering/manifest"
	"github.com/varvelog/varve/tiering/segment"
)

// SealedRange is a range of a partition that this broker leads, closed for appends and below the high watermark (I3).
type SealedRange struct {
	Log          base.LogID
	TP           base.TopicPartition
	TopicID      base.TopicID
	Base, End    base.Offset
	Bytes        int64
	MaxTimestamp int64
	LogStart     base.Offset
	LeaderEpoch  base.LeaderEpoch  // of this broker's leadership: the fence
	Epochs       []base.EpochStart // leader epochs of the whole log up to End
	Producers    []byte            // snapshot as of End, opaque
	SealedAtMs   int64
}

// Source is where sealed ranges come from; ingest satisfies it.
type Source interface {
	// Sealed lists, oldest seal first, ranges that are ready: per log the next one after its tiered end and those that follow. A
	// leader before us may have cut the same batches elsewhere: the first may begin below the tiered end, or at it in the
	// middle of a range of the source.
	Sealed(maxBytes int64) []SealedRange
	// SealedC is signalled when there may be more.
	SealedC() <-chan struct{}
	// ReadSealed yields the range's batches in order, whole batches, exactly [Base, End).
	ReadSealed(ctx context.Context, r SealedRange, emit func(record.Batch) error) error
	// Tiered is called after the manifest that names everything below end was committed (I5), by this broker or another: a
	// source that offers what is tiered hears of it here. Calls with an end below an earlier one change nothing.
	Tiered(log base.LogID, epoch base.LeaderEpoch, end base.Offset)
}

// Tiering is a broker's side of the bucket: the archiver, the committers of its logs, the cold reader. It is created with
// New, runs from Start to Stop, and is safe for concurrent use.
type Tiering struct {
	o         Options
	roots     *roots
	manifests *lru[manifest.ArchiveKey, *manifest.Manifest]
	archives  *lru[manifest.ArchiveKey, *manifest.Archive]
	footers   *lru[manifest.ArchiveKey, *segment.Footer]
	garbage   *garbage
	metrics   *metrics
	group     *service.Group
	workers   chan struct{} // one slot per upload under way
	buffers   *buffers
	intents   struct {
		sync.Mutex
		done []string // intents whose deletion did not succeed yet
	}
}

// New checks the options. Nothing runs before Start.
func New(o Options) (*Tiering, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	t := &Tiering{o: o, roots: newRoots(), garbage: newGarbage(o.GarbageEntries), workers: make(chan struct{}, o.MaxUploads), buffers: newBuffers(o.MaxUploads, o.UploadBytes/int64(o.MaxUploads)*17/16)}
	t.manifests = newLRU[manifest.ArchiveKey](o.ManifestBytes*3/4, (*manifest.Manifest).MemoryBytes)
	t.archives = newLRU[manifest.ArchiveKey](o.ManifestBytes/4, func(a *manifest.Archive) int64 { return int64(176 * len(a.Entries)) })
	t.footers = newLRU[manifest.ArchiveKey](o.FooterBytes, (*segment.Footer).MemoryBytes)
	m, err := newMetrics(t)
	if err != nil {
		return nil, fmt.Errorf("tiering metrics: %w", err)
	}
	t.metrics = m
	return t, nil
}

// Start follows the roots and starts the archiver. It does not need the bucket (I13).
func (t *Tiering) Start(ctx context.Context) error {
	if err := t.Follow(ctx); err != nil {
		return err
	}
	if t.o.Source != nil {
		t.group.Go(t.run)
	}
	return nil
}

// Stop ends the archiver in the middle of what it does: what it did not commit is uploaded again after the next start, or by
// another leader.
func (t *Tiering) Stop() {
	if t.group != nil {
		t.group.Stop()
	}
	t.metrics.close()
}

// Reader returns the cold reader.
func (t *Tiering) Reader() *Reader { return &Reader{t: t} }
