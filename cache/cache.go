package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/internal/service"
	"github.com/varvelog/varve/objstore"
)

// ErrClosed is what readers get once the cache is closed.
var ErrClosed = errors.New("cache is closed")

// Options configures a Cache.
type Options struct {
	// MemoryBytes bounds the blocks in memory. 0: nothing is kept in memory.
	MemoryBytes int64
	// DiskBytes bounds the block files, each rounded up to 4 KiB. 0: no disk tier.
	DiskBytes int64
	// Dir holds the block files; it belongs to this cache alone. Required where DiskBytes > 0; where that is 0, what an earlier
	// run has left in it is removed.
	Dir string
	// BlockBytes is the unit of download and of caching. Blocks on disk of another size are removed. Default: 1 MiB.
	BlockBytes int
	// ReadAheadBytes bounds what Prefetch has under way. Default: a quarter of the larger tier, at most 64 MiB.
	ReadAheadBytes int64
	// MaxDownloads bounds the concurrent downloads; read-ahead gets half of them. Default: 16.
	MaxDownloads int
	// WritePause is how long the disk tier stops writing after a failed write (a full disk, say). Default: 1 minute.
	WritePause time.Duration

	Clock  clock.Clock  // default: clock.Real
	Meter  metric.Meter // default: none
	Logger *slog.Logger // default: discards
	FS     vfs.FS       // default: vfs.Default
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.BlockBytes == 0 {
		o.BlockBytes = 1 << 20
	}
	if o.ReadAheadBytes == 0 {
		o.ReadAheadBytes = min(max(o.MemoryBytes, o.DiskBytes)/4, 64<<20)
	}
	if o.MaxDownloads == 0 {
		o.MaxDownloads = 16
	}
	if o.WritePause == 0 {
		o.WritePause = time.Minute
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Meter == nil {
		o.Meter = noop.Meter{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
}

// Validate reports the first option that makes no sense.
func (o *Options) Validate() error {
	switch {
	case o.MemoryBytes < 0 || o.DiskBytes < 0 || o.ReadAheadBytes < 0:
		return fmt.Errorf("cache: negative budget (memory %d, disk %d, read-ahead %d bytes)", o.MemoryBytes, o.DiskBytes, o.ReadAheadBytes)
	case o.BlockBytes < 1 || o.BlockBytes > maxBlockBytes:
		return fmt.Errorf("cache: block size %d bytes is not in [1, %d]", o.BlockBytes, maxBlockBytes)
	case o.MaxDownloads < 1:
		return fmt.Errorf("cache: %d concurrent downloads", o.MaxDownloads)
	case o.DiskBytes > 0 && o.Dir == "":
		return errors.New("cache: a disk budget needs a directory")
	}
	return nil
}

// Cache serves ranges of immutable objects. Safe for concurrent use. New starts it, Close stops it and waits for its
// goroutines; what is on disk is found again by the next New.
type Cache struct {
	opts    Options
	source  objstore.Reader
	group   *service.Group
	metrics *metrics
	disk    *disk // nil without a disk tier

	downloads  chan struct{} // one token per running download
	prefetches chan struct{} // one token per running download of read-ahead
	diskReads  chan struct{} // one token per running read of a block file
	diskWrites chan struct{} // one token per running write of a block file

	mu struct {
		sync.Mutex
		closed         bool
		memory         tier[[]byte]
		disk           tier[diskEntry]
		diskReady      bool      // the directory was scanned
		writesPaused   time.Time // no disk writes before
		full           bool      // the disk has no room: its tier keeps nothing
		diskSeq        uint64    // of the last block file
		flights        map[blockID]*flight
		readAheadBytes int64 // under way
	}
}

// New starts a cache in front of source. The directory is scanned in the background; until that is done, the disk tier
// neither serves nor stores.
func New(source objstore.Reader, opts Options) (*Cache, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	c := &Cache{
		opts: opts, source: source, group: service.NewGroup(context.Background()),
		downloads:  make(chan struct{}, opts.MaxDownloads),
		prefetches: make(chan struct{}, max(1, opts.MaxDownloads/2)),
		diskReads:  make(chan struct{}, opts.MaxDownloads),
		diskWrites: make(chan struct{}, opts.MaxDownloads),
	}
	c.mu.memory = newTier[[]byte](opts.MemoryBytes, int64(opts.BlockBytes))
	c.mu.disk = newTier[diskEntry](opts.DiskBytes, int64(opts.BlockBytes))
	c.mu.flights = map[blockID]*flight{}
	if opts.DiskBytes > 0 {
		c.disk = &disk{fs: opts.FS, root: opts.Dir, blockBytes: opts.BlockBytes}
		if err := opts.FS.MkdirAll(c.disk.blocksDir(), 0o755); err != nil {
			return nil, fmt.Errorf("cache: create %s: %w", opts.Dir, err)
		}
	}
	var err error
	if c.metrics, err = newMetrics(opts.Meter, c); err != nil {
		return nil, fmt.Errorf("cache: metrics: %w", err)
	}
	switch {
	case c.disk != nil:
		c.group.Go(c.scan)
	case opts.Dir != "":
		c.group.Go(c.removeUnused)
	}
	return c, nil
}

// ReadAt returns length bytes at off of the object, whose total size the caller knows from the manifest. One download per
// block whoever asks. The result must not be modified. The errors are those of the source, and ErrClosed; a range that
// does not lie within objectSize is objstore.ErrRange. Cancelling ctx ends the wait, not the download.
func (c *Cache) ReadAt(ctx context.Context, key string, objectSize, off int64, length int) ([]byte, error) {
	if length == 0 {
		return nil, nil
	}
	if off < 0 || length < 0 || off > objectSize-int64(length) {
		return nil, fmt.Errorf("cache: read %q [%d, +%d) of %d bytes: %w", key, off, length, objectSize, objstore.ErrRange)
	}
	object := objectOf(key)
	bs := int64(c.opts.BlockBytes)
	first, last := off/bs, (off+int64(length)-1)/bs
	if first == last {
		data, err := c.lookup(c.refOf(object, key, objectSize, first)).wait(ctx)
		if err != nil {
			return nil, err
		}
		lo := int(off - first*bs)
		return data[lo : lo+length : lo+length], nil
	}
	out := make([]byte, 0, length)
	var ahead []*lookup // of the blocks from the current one on, at most MaxDownloads
	next := first
	for i := first; i <= last; i++ {
		for ; next <= last && len(ahead) < c.opts.MaxDownloads; next++ {
			ahead = append(ahead, c.lookup(c.refOf(object, key, objectSize, next)))
		}
		data, err := ahead[0].wait(ctx)
		if err != nil {
			return nil, err
		}
		ahead = ahead[1:]
		lo := max(0, off-i*bs)
		hi := min(int64(len(data)), off+int64(length)-i*bs)
		out = append(out, data[lo:hi]...)
	}
	return out, nil
}

// Drop forgets the blocks of an object that will not be read again, in memory and on disk.
func (c *Cache) Drop(key string) {
	object := objectOf(key)
	c.mu.Lock()
	for _, f := range c.mu.flights {
		if f.id.object == object {
			f.dropped = true
		}
	}
	c.mu.memory.removeObject(object)
	gone := c.mu.disk.removeObject(object)
	c.mu.Unlock()
	c.removeFiles(gone)
}

// SetFull says whether the disk has no room for others: its tier then gives back what it has, and keeps nothing until there is room.
func (c *Cache) SetFull(full bool) {
	c.mu.Lock()
	c.mu.full = full
	var gone []*entry[diskEntry]
	for full && c.mu.disk.used > 0 {
		gone = append(gone, c.mu.disk.evict())
	}
	c.mu.Unlock()
	c.metrics.evicted(tierDisk, len(gone))
	c.removeFiles(gone)
}

// Close stops the background work and waits for it. Readers that still wait get ErrClosed.
func (c *Cache) Close() error {
	c.mu.Lock()
	c.mu.closed = true
	c.mu.Unlock()
	c.group.Stop()
	return c.metrics.close()
}
