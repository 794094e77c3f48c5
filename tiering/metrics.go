package tiering

import (
	"context"
	"math"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics are the instruments of the archiver and the limits of its memory.
type metrics struct {
	bytes, reads, puts, commits, fences metric.Int64Counter
	kinds                               map[readKind]metric.MeasurementOption
	reg                                 metric.Registration
}

// readKind is what was read from the bucket past the block cache. What goes through the cache are blocks of segments, records with
// a footer now and then, and counted there (varve_cache_download_bytes_total): so the record bytes that left the bucket are
// the cache's downloads and body, and all else is about records.
type readKind string

const (
	readManifest readKind = "manifest"
	readArchive  readKind = "archive"
	readFooter   readKind = "footer"
	readBody     readKind = "body" // of a segment: without a cache, or after a checksum that did not hold
	readBack     readKind = "back" // an object just written, from a bucket that knows no checksum
)

func newMetrics(t *Tiering) (*metrics, error) {
	m := &metrics{kinds: map[readKind]metric.MeasurementOption{}}
	for _, k := range []readKind{readManifest, readArchive, readFooter, readBody, readBack} {
		m.kinds[k] = metric.WithAttributeSet(attribute.NewSet(attribute.String("kind", string(k))))
	}
	var err error
	counter := func(name, unit, desc string) metric.Int64Counter {
		c, e := t.o.Meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(desc))
		if e != nil {
			err = e
		}
		return c
	}
	gauge := func(name, unit, desc string) metric.Int64ObservableGauge {
		g, e := t.o.Meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(desc))
		if e != nil {
			err = e
		}
		return g
	}
	m.bytes = counter("varve_tiering_uploaded_bytes", "By", "Bytes that were written to the bucket and verified.")
	m.reads = counter("varve_tiering_read_bytes", "By", "Bytes that were read from the bucket past the block cache, by kind: manifest, archive, footer, body, back.")
	m.puts = counter("varve_tiering_uploads", "1", "Attempts to write an object, by outcome.")
	m.commits = counter("varve_tiering_commits", "1", "Manifests that were committed.")
	m.fences = counter("varve_tiering_commits_refused", "1", "Manifest commits that were fenced or came too late.")
	lagBytes := gauge("varve_tiering_lag_bytes", "By", "Sealed bytes of led partitions that are not in the bucket.")
	lagMs := gauge("varve_tiering_lag_ms", "ms", "Age of the oldest sealed range that is not in the bucket.")
	garbage := gauge("varve_tiering_garbage_objects", "1", "Objects let go of that compaction has not taken yet (limit: GarbageEntries).")
	cached := gauge("varve_tiering_index_memory_bytes", "By", "Decoded manifests, archives and footers (limits: ManifestBytes, FooterBytes).")
	if err != nil {
		return nil, err
	}
	m.reg, err = t.o.Meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		bytes, ms := t.lag()
		o.ObserveInt64(lagBytes, bytes)
		o.ObserveInt64(lagMs, ms)
		o.ObserveInt64(garbage, t.garbage.len())
		o.ObserveInt64(cached, t.manifests.bytes()+t.archives.bytes()+t.footers.bytes())
		return nil
	}, lagBytes, lagMs, garbage, cached)
	return m, err
}

// lag is how far the bucket is behind, in bytes and in milliseconds.
func (t *Tiering) lag() (bytes, ms int64) {
	if t.o.Source == nil {
		return 0, 0
	}
	now := t.o.Clock.Now().UnixMilli()
	for _, r := range t.o.Source.Sealed(math.MaxInt64) {
		bytes += r.Bytes
		ms = max(ms, now-r.SealedAtMs)
	}
	return bytes, ms
}

func (m *metrics) put(ctx context.Context, bytes int64, err error) {
	outcome := "ok"
	if err != nil {
		outcome = "error"
	} else {
		m.bytes.Add(ctx, bytes)
	}
	m.puts.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
}

func (m *metrics) read(ctx context.Context, kind readKind, bytes int64) {
	m.reads.Add(context.WithoutCancel(ctx), bytes, m.kinds[kind])
}

func (m *metrics) committed() { m.commits.Add(context.Background(), 1) }

func (m *metrics) fenced() { m.fences.Add(context.Background(), 1) }

func (m *metrics) close() {
	if m.reg != nil {
		_ = m.reg.Unregister()
	}
}
