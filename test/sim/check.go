package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
	"github.com/varvelog/varve/tiering"
)

// Where the metadata's image and the manifests' roots stand in the KV (metadata/keys.go).
const (
	imagePrefix = "/varve/image/"
	rootPrefix  = "/varve/root/"
)

// inSync tells whether every broker runs unfenced and every partition has all its replicas in its ISR: what etcd says, not what
// some broker has seen of it.
func (c *cluster) inSync() bool { return c.outOfSync() == "" }

// outOfSync names what is not; "" where everything is.
func (c *cluster) outOfSync() string {
	for _, n := range c.nodes {
		if n.current() == nil {
			return fmt.Sprintf("broker %d does not run", n.id)
		}
	}
	brokers, _, err := c.quorum.kv.List(context.Background(), imagePrefix+"broker/")
	if err != nil || len(brokers) != len(c.nodes) {
		return fmt.Sprintf("%d brokers are registered: %v", len(brokers), err)
	}
	for _, kv := range brokers {
		var b struct{ Fenced bool }
		if err := json.Unmarshal(kv.Value, &b); err != nil || b.Fenced {
			return fmt.Sprintf("%s %s: %v", kv.Key, kv.Value, err)
		}
	}
	partitions, err := c.partitions()
	for _, p := range partitions {
		if len(p.ISR) != len(p.Replicas) || len(p.ELR)+len(p.Adding) > 0 {
			return fmt.Sprintf("%+v", p)
		}
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// await polls a condition every second, until it holds or a time has passed.
func await(ctx context.Context, most time.Duration, holds func() bool) bool {
	for end := time.Now().Add(most); time.Now().Before(end); {
		if holds() {
			return true
		}
		if !pause(ctx, time.Second) {
			return false
		}
	}
	return false
}

// checkServed reads everything that a healed cluster serves and holds it against what was acknowledged, and what readers saw.
func (c *cluster) checkServed(ctx context.Context, along *reader) *reader {
	final := c.newReader("final read")
	ends, err := c.ends(ctx)
	if err != nil {
		c.failf("list offsets: %w", err)
		return final
	}
	reading, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := final.readTo(reading, ends); err != nil {
		c.fail(err)
	}
	c.ledger.mu.Lock()
	defer c.ledger.mu.Unlock()
	for p, acks := range c.ledger.acks {
		vals := final.parts[p].vals
		if len(acks) != len(vals) {
			c.failf("partition %d holds %d records, %d were acknowledged", p, len(vals), len(acks))
		}
		for _, a := range acks {
			switch {
			case a.offset >= int64(len(vals)):
				c.failf("partition %d: acknowledged offset %d is lost", p, a.offset)
			case vals[a.offset] != a.value:
				c.failf("partition %d offset %d: acknowledged for producer %d sequence %d, holds %v", p, a.offset, a.producer, a.seq, vals[a.offset])
			default:
				continue
			}
			break // one of a kind is enough
		}
		for off, v := range along.parts[p].vals {
			if off >= len(vals) || vals[off] != v {
				c.failf("partition %d offset %d: a reader saw %v, which is not there any more (I3)", p, off, v)
				break
			}
		}
	}
	return final
}

func (c *cluster) ends(ctx context.Context) ([]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(c.client()...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	out := make([]int64, c.plan.partitions)
	ends.Each(func(o kadm.ListedOffset) { out[o.Partition], err = o.Offset, o.Err })
	return out, err
}

// checkRegisters looks at every group's offset once more.
func (c *cluster) checkRegisters(ctx context.Context) {
	cl, err := kgo.NewClient(c.client()...)
	if err != nil {
		c.fail(err)
		return
	}
	defer cl.Close()
	for _, r := range c.registers {
		r.adm = kadm.NewClient(cl)
		before := c.counts["looks"]
		if !await(ctx, time.Minute, func() bool { r.look(ctx); return c.counts["looks"] > before }) {
			c.failf("group %s: its offset cannot be read", r.group)
		}
	}
}

// stored is a log as it stands on one disk.
type stored struct {
	broker  int32
	end     base.Offset
	batches []record.Batch
}

// checkDisks compares what stands on the disks of brokers that have stopped: the logs of a partition's replicas have the same
// bytes at the same offsets (I2), and end at the same one.
func (c *cluster) checkDisks(partitions []partition) {
	assigned := map[base.LogID][]int32{}
	for _, p := range partitions {
		assigned[p.Log] = p.Replicas
	}
	logs := map[base.LogID][]stored{}
	for _, n := range c.nodes {
		if err := readDisk(n, logs); err != nil {
			c.failf("disk of broker %d: %w", n.id, err)
		}
	}
	for id, replicas := range logs {
		var first *stored
		for i := range replicas {
			if s := &replicas[i]; !slices.Contains(assigned[id], s.broker) {
				continue
			} else if first == nil {
				first = s
			} else if what := differ(first, s); what != "" {
				c.failf("log %v on brokers %d and %d: %s", id, first.broker, s.broker, what)
			}
		}
	}
}

func readDisk(n *node, logs map[base.LogID][]stored) error {
	store, err := hot.Open(hot.Options{FS: n.disk, Dir: filepath.Join(n.dir, "hot"), Logger: slog.New(slog.DiscardHandler), MemTableBytes: 1 << 20})
	if err != nil {
		return err
	}
	found, err := store.Logs()
	for _, l := range found {
		s := stored{broker: n.id, end: l.End}
		for at := base.Offset(0); err == nil && at < l.End; {
			var bs []record.Batch
			if bs, err = store.ReadVerified(l.ID, at, l.End, 1<<20); len(bs) == 0 {
				break
			}
			s.batches = append(s.batches, bs...)
			at = bs[len(bs)-1].LastOffset() + 1
		}
		logs[l.ID] = append(logs[l.ID], s)
	}
	if cerr := store.Close(); err == nil {
		err = cerr
	}
	return err
}

// differ says in what two copies of a log differ, where both have an offset; "" in nothing.
func differ(a, b *stored) string {
	if a.end != b.end {
		return fmt.Sprintf("they end at %d and %d", a.end, b.end)
	}
	at := map[base.Offset]record.Batch{}
	for _, batch := range a.batches {
		at[batch.LastOffset()] = batch
	}
	low := base.Offset(0)
	if len(a.batches) > 0 && len(b.batches) > 0 {
		low = max(a.batches[0].BaseOffset(), b.batches[0].BaseOffset())
	}
	for _, batch := range b.batches {
		other, ok := at[batch.LastOffset()]
		switch {
		case batch.BaseOffset() < low || len(a.batches) == 0:
		case !ok:
			return fmt.Sprintf("only one has a batch that ends at %d", batch.LastOffset())
		case !bytes.Equal(batch, other):
			return fmt.Sprintf("the batches that end at %d differ (epochs %d and %d)", batch.LastOffset(), other.LeaderEpoch(), batch.LeaderEpoch())
		}
	}
	return ""
}

// checkBucket reads the bucket alone: it is clean (I4, I6, I7), and holds what is served (I3, I8).
func (c *cluster) checkBucket(ctx context.Context, final *reader) {
	rep, err := tiering.Fsck(ctx, c.bucket, tiering.FsckOptions{Grace: time.Minute, Now: time.Now()})
	switch {
	case err != nil:
		c.failf("fsck: %w", err)
	case !rep.Clean():
		c.failf("fsck: %d missing, %d corrupt, %d orphans: %v %v %v", rep.Missing, rep.Corrupt, rep.Orphans, rep.MissingDetails, rep.CorruptDetails, rep.OrphanDetails)
	}
	c.count("objects", int(rep.Objects))
	for p := range final.parts {
		vals := final.parts[p].vals
		want := base.Offset(0)
		err := tiering.Cat(ctx, c.bucket, tiering.CatOptions{Topic: topic, Partition: int32(p)}, func(_ record.Batch, r record.Record) error {
			v, _ := parse(r.Value)
			if r.Offset != want || int(want) >= len(vals) || v != vals[want] {
				c.failf("bucket: partition %d offset %d (after %d): holds %v, not what is served", p, r.Offset, want-1, v)
				return tiering.ErrStop
			}
			want++
			return nil
		})
		if err != nil && rep.Objects > 0 {
			c.failf("bucket: partition %d: %w", p, err)
		}
		c.count("tiered records", int(want))
	}
}
