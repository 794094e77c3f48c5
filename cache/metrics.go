package cache

import (
	"context"
	"errors"
	"log/slog"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/varvelog/varve/objstore"
)

const (
	tierMemory = "memory"
	tierDisk   = "disk"
	tierFlight = "flight" // somebody else's load was under way
)

// metrics are the instruments of one cache. Counters are per block, bytes are of whole blocks.
type metrics struct {
	hits, bytes, misses, evictions, downloads, downloadBytes metric.Int64Counter
	damages, writeErrors, writeSkips, refusals               metric.Int64Counter
	gauges                                                   metric.Registration
	tiers                                                    map[string][]metric.AddOption // made once: a hit allocates nothing for them
}

func newMetrics(m metric.Meter, c *Cache) (*metrics, error) {
	var errs []error
	counter := func(name, description string) metric.Int64Counter {
		i, err := m.Int64Counter(name, metric.WithDescription(description))
		errs = append(errs, err)
		return i
	}
	x := &metrics{
		hits:          counter("varve_cache_hits_total", "Blocks served without a download, by tier."),
		bytes:         counter("varve_cache_hit_bytes_total", "Bytes of the blocks served without a download, by tier."),
		misses:        counter("varve_cache_misses_total", "Blocks that a reader had to wait for the bucket for."),
		evictions:     counter("varve_cache_evictions_total", "Blocks evicted, by tier."),
		downloads:     counter("varve_cache_downloads_total", "Downloads of blocks, by cause and outcome."),
		downloadBytes: counter("varve_cache_download_bytes_total", "Bytes of the downloaded blocks, by cause."),
		damages:       counter("varve_cache_disk_damaged_total", "Block files that were not what was written."),
		writeErrors:   counter("varve_cache_disk_write_errors_total", "Block files that could not be written."),
		writeSkips:    counter("varve_cache_disk_writes_skipped_total", "Blocks not written because the disk was busy."),
		refusals:      counter("varve_cache_readahead_refused_total", "Read-aheads cut short by their budget."),
		tiers:         map[string][]metric.AddOption{},
	}
	for _, tier := range []string{tierMemory, tierDisk, tierFlight} {
		x.tiers[tier] = []metric.AddOption{tierAttr(tier)}
	}
	gauges, err := x.newGauges(m, c)
	x.gauges = gauges
	return x, errors.Join(append(errs, err)...)
}

// newGauges observes each limit and what is used of it.
func (x *metrics) newGauges(m metric.Meter, c *Cache) (metric.Registration, error) {
	used, err1 := m.Int64ObservableGauge("varve_cache_used_bytes", metric.WithDescription("Bytes held, reservations included, by tier."))
	limit, err2 := m.Int64ObservableGauge("varve_cache_limit_bytes", metric.WithDescription("Budget, by tier."))
	running, err3 := m.Int64ObservableGauge("varve_cache_downloads_running", metric.WithDescription("Downloads under way."))
	ahead, err4 := m.Int64ObservableGauge("varve_cache_readahead_bytes", metric.WithDescription("Bytes of read-ahead under way."))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	return m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		c.mu.Lock()
		memory, disk, aheadBytes := c.mu.memory.used+c.mu.memory.reserved, c.mu.disk.used+c.mu.disk.reserved, c.mu.readAheadBytes
		c.mu.Unlock()
		o.ObserveInt64(used, memory, tierAttr(tierMemory))
		o.ObserveInt64(used, disk, tierAttr(tierDisk))
		o.ObserveInt64(limit, c.opts.MemoryBytes, tierAttr(tierMemory))
		o.ObserveInt64(limit, c.opts.DiskBytes, tierAttr(tierDisk))
		o.ObserveInt64(running, int64(len(c.downloads)))
		o.ObserveInt64(ahead, aheadBytes)
		return nil
	}, used, limit, running, ahead)
}

func (x *metrics) close() error {
	if x.gauges == nil {
		return nil
	}
	return x.gauges.Unregister()
}

func tierAttr(tier string) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String("tier", tier)))
}

func (x *metrics) hit(tier string, n int) {
	x.hits.Add(context.Background(), 1, x.tiers[tier]...)
	x.bytes.Add(context.Background(), int64(n), x.tiers[tier]...)
}

func (x *metrics) evicted(tier string, n int) {
	if n > 0 {
		x.evictions.Add(context.Background(), int64(n), x.tiers[tier]...)
	}
}

func (x *metrics) downloaded(readAhead bool, n int, err error) {
	cause := "read"
	if readAhead {
		cause = "readahead"
	} else {
		x.misses.Add(context.Background(), 1)
	}
	x.downloads.Add(context.Background(), 1, metric.WithAttributes(attribute.String("cause", cause), attribute.String("outcome", string(objstore.Classify(err)))))
	x.downloadBytes.Add(context.Background(), int64(n), metric.WithAttributes(attribute.String("cause", cause)))
}

func (x *metrics) damaged()          { x.damages.Add(context.Background(), 1) }
func (x *metrics) writeFailed()      { x.writeErrors.Add(context.Background(), 1) }
func (x *metrics) writeSkipped()     { x.writeSkips.Add(context.Background(), 1) }
func (x *metrics) readAheadRefused() { x.refusals.Add(context.Background(), 1) }

func slogKey(key string) slog.Attr    { return slog.String("object", key) }
func slogBlock(index int64) slog.Attr { return slog.Int64("block", index) }
func slogErr(err error) slog.Attr     { return slog.Any("error", err) }
